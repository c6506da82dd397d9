"""The language model of section 2.3: a decoder whose only matrix multiplication with weights is the head.

    Z = X + concat_heads(softmax(Q K^T / sqrt(d_head) + causal) V)        Q | K | V = ML_qkv(Norm(X))
    Y = Z + ML_2(LayerNorm(ML_1(Norm(Z))))                                no output projection, no activation

Q, K and V hash the same Norm(X), so they are one memory layer with rows q | k | v: one hash, one
read a table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import (
    GPTNeoXRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from memoryformer.errors import MemoryFormerError
from memoryformer.hf import caches, decoding, saving
from memoryformer.hf.config import MemoryFormerConfig
from memoryformer.hf.memory import check_fits
from memoryformer.layers import BIAS_STD, MemoryBlock, MemoryLayer


class MemoryFormerRMSNorm(nn.Module):
    """x / (rms(x) + eps) * weight over the last dimension; eps is beside the root, as released."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., hidden_size) of any float dtype, computed in at least float32, to the same."""
        precise = x if x.dtype == torch.float64 else x.float()
        rms = precise.square().mean(-1, keepdim=True).sqrt()
        return (precise / (rms + self.eps)).to(x.dtype) * self.weight

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


def _norm(config: MemoryFormerConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return MemoryFormerRMSNorm(config.hidden_size, config.rms_norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class MemoryFormerAttention(nn.Module):
    """Causal attention over (batch, length, hidden_size); q, k and v come from one memory layer."""

    def __init__(self, config: MemoryFormerConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.num_key_value_groups = 1
        self.attention_dropout = 0.0
        self.qkv_proj = MemoryLayer(
            config.hidden_size,
            3 * config.hidden_size,
            config.tau,
            score=config.score,
            temperature=config.temperature,
            bias=config.bias,
            init_std=small_init_std(config),
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (batch, length, hidden_size) and, from the eager attention, the weights."""
        shape = hidden_states.shape[:-1]
        query, key, value = (
            part.view(*shape, -1, self.head_dim).transpose(1, 2)
            for part in self.qkv_proj(hidden_states).chunk(3, dim=-1)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if (cache := caches.either(past_key_values, cache)) is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        return output.reshape(*shape, -1), weights


class MemoryFormerLayer(GradientCheckpointingLayer):
    """One block; with all tables and biases 0 it is the identity."""

    def __init__(self, config: MemoryFormerConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = _norm(config)
        self.self_attn = MemoryFormerAttention(config, layer_idx)
        self.post_attention_layernorm = _norm(config)
        self.mlp = MemoryBlock(
            config.hidden_size,
            config.tau,
            config.expand_bits,
            score=config.score,
            temperature=config.temperature,
            expand=config.expand,
            activation=config.activation,
            bias=config.bias,
            init_std=config.table_initializer_range,
        )

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """(batch, length, hidden_size) -> the same."""
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class MemoryFormerPreTrainedModel(PreTrainedModel):
    """What the models have in common: config, initialisation, what transformers may do with them."""

    config_class = MemoryFormerConfig
    config: MemoryFormerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MemoryFormerLayer"]  # noqa: RUF012
    _skip_keys_device_placement = list(caches.NAMES)  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": MemoryFormerLayer,
        "attentions": MemoryFormerAttention,
    }

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **settings: Any) -> None:
        """As every model of transformers, and with it how the tables are stored (`quantize_tables_`)."""
        saving.record_tables(self)
        super().save_pretrained(save_directory, *args, **settings)

    def _init_weights(self, module: nn.Module) -> None:
        """Section 2.1: tables of q, k, v as embedding and head ("small init"), those of the block 0.02."""
        if isinstance(module, MemoryLayer):
            init.normal_(module.tables, std=module.init_std)
            if module.bias is not None:
                init.normal_(module.bias, std=BIAS_STD)
        elif isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=small_init_std(self.config))
        else:
            super()._init_weights(module)


class MemoryFormerModel(MemoryFormerPreTrainedModel):
    """Embedding, blocks and final norm.

    Raises `MemoryFormerError` before anything is built if the parameters do not fit in the free memory.
    """

    def __init__(self, config: MemoryFormerConfig) -> None:
        super().__init__(config)
        check_fits(config, torch.get_default_device(), torch.get_default_dtype())
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        with init.no_init_weights():  # drawn once, by `post_init`
            self.layers = nn.ModuleList(
                [MemoryFormerLayer(config, index) for index in range(config.num_hidden_layers)]
            )
        self.norm = _norm(config)
        self.rotary_emb = GPTNeoXRotaryEmbedding(cast(Any, config))
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
        """Token ids (batch, length), or embeddings, to the last hidden states (batch, length, hidden_size).

        Raises `MemoryFormerError` if the tokens and those before them are more than
        `max_position_embeddings`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise MemoryFormerError("give either input_ids or inputs_embeds, not both")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        cache = caches.either(past_key_values, cache)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        past = cache.get_seq_length() if cache is not None else 0
        named: dict[str, Any] = {caches.NAME: cache}
        self.check_length(past, inputs_embeds.shape[1])
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + past
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **named,
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids=position_ids)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=mask,
                position_ids=position_ids,
                use_cache=use_cache,
                **named,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **named)

    def check_length(self, past: int | torch.Tensor, new: int) -> None:
        """Raise `MemoryFormerError` if `new` tokens after `past` ones go beyond the positions."""
        limit = self.config.max_position_embeddings
        if isinstance(past, int) and past + new > limit:
            raise MemoryFormerError(
                f"{past + new} tokens are more than max_position_embeddings {limit}. Give a shorter input, "
                "or raise model.config.max_position_embeddings, if positions that were not trained are meant"
            )


class _OfConfig(GenerationConfig):
    """Makes the settings of `generate` from a model's config, whose `temperature` is not that of sampling."""

    @classmethod
    def from_model_config(cls, model_config: Any) -> GenerationConfig:
        """As transformers does it, from the rest."""
        settings = model_config if isinstance(model_config, dict) else model_config.to_dict()
        rest = {key: value for key, value in settings.items() if key != "temperature"}
        return GenerationConfig.from_model_config(rest)


class MemoryFormerForCausalLM(MemoryFormerPreTrainedModel, GenerationMixin):
    """The language model: memory layers, and a head (hidden_size x vocab_size, untied, without bias).

        config = MemoryFormerConfig.preset("tiny")
        model = MemoryFormerForCausalLM(config)

    An ordinary model of transformers: `generate`, `save_pretrained`, `from_pretrained`, `Trainer`. Under
    `torch.device("meta")` it has shapes and no values. Raises `MemoryFormerError` if the parameters do not
    fit in the free memory.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    generation_config_class = _OfConfig

    def __init__(self, config: MemoryFormerConfig) -> None:
        super().__init__(config)
        self.model = MemoryFormerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._lean = False
        self.post_init()

    def adjust_generation_fn(self, *args: Any, **settings: Any) -> None:
        """Called by `from_pretrained`; without a generation_config.json it takes all from config.json."""
        usual: Any = super()
        usual.adjust_generation_fn(*args, **settings)
        found = self.generation_config
        if not found.do_sample and found.temperature == self.config.temperature:
            found.temperature = GenerationConfig().temperature

    def compile_decode(self, enabled: bool = True) -> Self:
        """Let `generate` decode by one lean step a token (`memoryformer.hf.decoding`); returns the model.

        The same tokens, several times faster for a small model on a CPU: what is saved is the overhead of
        Python and of the dispatcher. Greedy decoding and sampling, any batch, with left padding. Where the
        step does not apply (beam search, `return_dict_in_generate`, a cache brought along, positions of one's
        own, attention other than "sdpa", hooks in the modules), `generate` does as ever. Nothing is compiled
        or kept, so the weights may change between calls. `enabled=False` ends it.
        """
        self._lean = enabled
        return self

    def _sample(self, input_ids: Any, synced_gpus: bool = False, **call: Any) -> Any:  # type: ignore[override]
        """What `generate` calls for greedy decoding and sampling."""
        if self._lean and not synced_gpus and decoding.is_possible(self, input_ids, **call):
            return decoding.sample(self, input_ids, **call)
        usual: Any = super()
        return usual._sample(input_ids, synced_gpus=synced_gpus, **call)

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
        """Logits (batch, length, vocab_size), and with `labels` the mean loss in nats.

        Raises as `MemoryFormerModel`.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **{caches.NAME: caches.either(past_key_values, cache)},
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden_states = cast(torch.Tensor, outputs.last_hidden_state)
        logits = self.lm_head(hidden_states[:, kept])
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
            **{caches.NAME: outputs.get(caches.NAME)},
        )


def small_init_std(config: MemoryFormerConfig) -> float:
    """The standard deviation of embedding, head and the tables of q, k and v: sqrt(2 / (5 d)) by default."""
    if config.initializer_range is not None:
        return config.initializer_range
    return math.sqrt(2 / (5 * config.hidden_size))


AutoConfig.register("memoryformer", MemoryFormerConfig, exist_ok=True)
AutoModel.register(MemoryFormerConfig, MemoryFormerModel, exist_ok=True)
AutoModelForCausalLM.register(MemoryFormerConfig, MemoryFormerForCausalLM, exist_ok=True)
