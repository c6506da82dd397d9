"""Llama with FoPE in vLLM: its own classes, with a Fourier position embedding in each attention layer.

The weights have the names that `save_pretrained` gives them,
`model.layers.{i}.self_attn.fope.{cos,sin}_coef`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM

from fope.embedding import FourierPositionEmbedding, check_coefficients
from fope.errors import FopeError
from fope.hf.config import StoredFope, read


class ServedFope(FourierPositionEmbedding):
    """The embedding of this rank's key-value heads, for queries and keys [tokens, heads·head_dim].

    Coefficients are parameters, since those are what vLLM's loaders fill.
    """

    def __init__(self, stored: StoredFope, num_heads: int) -> None:
        super().__init__(dataclasses.replace(stored.config, num_heads=num_heads))
        self.whole = stored.config
        self.set_inv_freq(stored.bank())
        for name in ("cos_coef", "sin_coef"):
            values: Tensor = getattr(self, name)
            delattr(self, name)
            coef = nn.Parameter(values, requires_grad=False)
            coef.weight_loader = self.load_heads  # type: ignore[attr-defined]
            self.register_parameter(name, coef)

    def load_heads(self, coef: nn.Parameter, loaded: Tensor) -> None:
        """Take this rank's heads of the checkpoint's [H, D, R]; where heads are too few, ranks share one."""
        check_coefficients("fope coefficients", loaded, self.whole)
        if self.whole.separate_heads:
            ranks, heads = get_tensor_model_parallel_world_size(), len(loaded)
            rank = get_tensor_model_parallel_rank()
            if heads < ranks:
                rank, ranks = rank // (ranks // heads), heads
            loaded = loaded.chunk(ranks, dim=0)[rank]
        with torch.no_grad():  # not coef.data, whose changes kept tables do not see
            coef.copy_(loaded)

    def rotate_tokens(self, positions: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate q and k of tokens at `positions` [tokens]."""
        cos, sin = self.cos_sin(positions)
        rotated = []
        for x in (q, k):
            by_head = x.unflatten(-1, (-1, self.config.head_dim)).transpose(0, 1)
            rotated.append(self.rotate(by_head, cos, sin).transpose(0, 1).flatten(1))
        return rotated[0], rotated[1]


class FopeLlamaAttention(LlamaAttention):
    """vLLM's attention with `fope` in place of `rotary_emb`."""

    def _init_rotary_emb(self, config: Any, quant_config: Any) -> None:
        stored = read(config)
        if stored is None:
            raise FopeError(
                f"FopeLlamaForCausalLM needs rope_parameters of the rope type 'fope', got "
                f"{config.rope_parameters}; serve a RoPE model as LlamaForCausalLM, or convert it "
                "with `fope convert`"
            )
        self.fope = ServedFope(stored, self.num_kv_heads)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """As vLLM's, with the rotation of this layer's own tables."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q, k = self.fope.rotate_tokens(positions, q, k)
        output: Tensor = self.o_proj(self.attn(q, k, v))[0]
        return output


class FopeLlamaDecoderLayer(LlamaDecoderLayer):
    """vLLM's layer with that attention."""

    def __init__(self, vllm_config: VllmConfig, prefix: str = "", config: Any = None) -> None:
        super().__init__(vllm_config, prefix, config, attn_layer_type=FopeLlamaAttention)


class FopeLlamaForCausalLM(LlamaForCausalLM):
    """vLLM's Llama with those layers."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=FopeLlamaDecoderLayer)
