"""The paper's setting 1, an unusual decoder (section 2): the norm is on each sub-layer's output.

    x = E[token] + P[position]
    x = x + dropout(LayerNorm(attention(x)))
    x = x + dropout(LayerNorm(W_2 relu(W_1 x)))        for each layer; no norm at the end
    logits = W x + b

Everything starts as PyTorch starts it (embeddings at N(0, 1)). With `rank` the four attention matrices are
low-rank from the start, with the official biases: of q, k and v on A, of o on B. With `ffn_rank` the
feed-forward matrices are (the paper's ablation), W_1 with its bias on A and W_2 with its bias on B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from lpa.config import check_rank
from lpa.errors import LPAError, RankError
from lpa.layers import LowRankLinear, StackedDown

# What transformers calls the cache of keys and values: `cache` from 5.24 on. Models here take both names; one
# that knew only the older would generate from the last token alone, and nobody would say so.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


class ClassicConfig(PreTrainedConfig):
    """Sizes of a setting-1 model; the defaults are the official 370M one.

    `rank` makes q, k, v and o low-rank, `ffn_rank` the feed-forward matrices; None leaves them dense.
    Raises `RankError` for a rank that is impossible or at or above break-even, `LPAError` for other sizes
    below 1.
    """

    model_type = "lpa_classic"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 32_000,
        hidden_size: int = 1024,
        intermediate_size: int = 4096,
        num_hidden_layers: int = 24,
        num_attention_heads: int = 8,
        head_dim: int = 128,
        max_position_embeddings: int = 1024,
        dropout: float = 0.1,
        rank: int | None = None,
        ffn_rank: int | None = None,
        use_cache: bool = True,
        **settings: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim
        self.max_position_embeddings = max_position_embeddings
        self.dropout = dropout
        self.rank = rank
        self.ffn_rank = ffn_rank
        self.use_cache = use_cache
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise LPAError(f"{name} is {getattr(self, name)}; it must be at least 1")
        _check_saves("rank", rank, hidden_size, num_attention_heads * head_dim)
        _check_saves("ffn_rank", ffn_rank, hidden_size, intermediate_size)
        super().__init__(**{"tie_word_embeddings": False, **settings})


def _check_saves(key: str, rank: int | None, n_in: int, n_out: int) -> None:
    if rank is None:
        return
    check_rank(rank, key)
    if not isinstance(rank, int) or rank * (n_in + n_out) >= n_in * n_out:
        raise RankError(
            f"{key} is {rank!r}; for {n_out} x {n_in} matrices it must be a whole number below break-even, "
            f"{n_in * n_out / (n_in + n_out):g}, from where the factors are larger than the matrix"
        )


class ClassicAttention(nn.Module):
    """Causal attention over (batch, length, hidden_size), with heads of any width."""

    def __init__(self, config: ClassicConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        self.num_key_value_groups = 1
        width = config.num_attention_heads * config.head_dim
        self.q_proj = _matrix(config.hidden_size, width, config.rank, bias="down")
        self.k_proj = _matrix(config.hidden_size, width, config.rank, bias="down")
        self.v_proj = _matrix(config.hidden_size, width, config.rank, bias="down")
        self.o_proj = _matrix(width, config.hidden_size, config.rank, bias="up")
        low = [layer for layer in (self.q_proj, self.k_proj, self.v_proj) if isinstance(layer, LowRankLinear)]
        stack = StackedDown(low)
        for layer in low:
            layer.stack = stack

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, length, hidden_size) twice: the output, and the attention weights if they are computed."""
        batch, length, _ = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(batch, length, -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if (cache := past_key_values if cache is None else cache) is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attention: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.reshape(batch, length, -1)), weights


class ClassicMLP(nn.Module):
    """W_2 relu(W_1 x + b_1) + b_2."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        self.fc1 = _matrix(config.hidden_size, config.intermediate_size, config.ffn_rank, bias="down")
        self.fc2 = _matrix(config.intermediate_size, config.hidden_size, config.ffn_rank, bias="up")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) -> (..., hidden_size)."""
        return self.fc2(F.relu(self.fc1(x)))


class ClassicDecoderLayer(GradientCheckpointingLayer):
    """Attention and feed-forward layer, each normalised on its way out."""

    def __init__(self, config: ClassicConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = ClassicAttention(config, layer_idx)
        self.attn_norm = nn.LayerNorm(config.hidden_size)
        self.mlp = ClassicMLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """(batch, length, hidden_size) -> the same."""
        x = hidden_states
        x = x + self.dropout(self.attn_norm(self.self_attn(x, **kwargs)[0]))
        return x + self.dropout(self.mlp_norm(self.mlp(x)))


class ClassicPreTrainedModel(PreTrainedModel):
    """What transformers has to know about these models."""

    config_class = ClassicConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ClassicDecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ClassicDecoderLayer, "attentions": ClassicAttention}  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm):
            module.reset_parameters()


class ClassicModel(ClassicPreTrainedModel):
    """The decoder without its head."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(
            ClassicDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Token ids (batch, length) -> hidden states (batch, length, hidden_size).

        `attention_mask` is (batch, length so far), 0 for padding; `position_ids` count from 0 by default, and
        have to be given where padding is on the left (`generate` does). Raises `LPAError` for a text longer
        than `max_position_embeddings`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise LPAError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        seen = 0 if cache is None else cache.get_seq_length()
        named: dict[str, Any] = {CACHE: cache}
        self._check_length(seen + inputs_embeds.shape[1])
        if position_ids is None:
            position_ids = seen + torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        x = inputs_embeds + self.embed_positions(position_ids)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **named,
        )
        for layer in self.layers:
            x = layer(x, attention_mask=mask, **named, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=x, **named)

    def _check_length(self, length: int) -> None:
        most = self.config.max_position_embeddings
        if length > most:
            raise LPAError(
                f"the text has {length} tokens; the model has learned positions for {most}. Shorten it, or "
                "train a model with more max_position_embeddings"
            )


class ClassicForCausalLM(ClassicPreTrainedModel, GenerationMixin):
    """The decoder with its head, which has a bias."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__(config)
        self.model = ClassicModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Token ids (batch, length) -> `.logits` (batch, length, vocab_size), of the last `logits_to_keep`.

        With `labels`, `.loss` is the mean cross-entropy of each token given those before it. The rest is as
        in `ClassicModel.forward`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **{CACHE: past_key_values if cache is None else cache},
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )


def _matrix(n_in: int, n_out: int, rank: int | None, bias: str) -> nn.Module:
    """A dense layer with a bias, or a low-rank one with it on A ("down") or B ("up")."""
    if rank is None:
        return nn.Linear(n_in, n_out)
    return LowRankLinear(n_in, n_out, rank, bias_down=bias == "down", bias_up=bias == "up")


AutoConfig.register(ClassicConfig.model_type, ClassicConfig, exist_ok=True)
AutoModel.register(ClassicConfig, ClassicModel, exist_ok=True)
AutoModelForCausalLM.register(ClassicConfig, ClassicForCausalLM, exist_ok=True)
