"""What a low-rank model costs beside its dense form: parameters, arithmetic, cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from lpa.architectures import dense_bias, matrix_shape, sites
from lpa.config import ATTENTION_ROLES
from lpa.errors import LPAError
from lpa.hf import recorded_config
from lpa.layers import FusedLowRank, LowRankLinear
from lpa.surgery import apply_lpa

FLOP_KEYS = ("attention_projections", "attention_core", "ffn", "lm_head", "total")


@dataclass(frozen=True)
class Cost:
    """Parameters, and per token at `seq_len`: forward FLOPs (a multiply-add counts 2) and cached numbers.

    The attention core (scores and weighted values) is counted for a causal mask: a token sees seq_len / 2
    others on average. `latent_kv_elements_per_token` is what `latent_cache` keeps: 2 r a layer.
    """

    seq_len: int
    params: int
    dense_params: int
    flops: dict[str, int]
    dense_flops: dict[str, int]
    kv_elements_per_token: int
    latent_kv_elements_per_token: int

    def __str__(self) -> str:
        rows = [("parameters", self.dense_params, self.params)]
        rows += [
            (f"FLOPs, {key.replace('_', ' ')}", self.dense_flops[key], self.flops[key]) for key in FLOP_KEYS
        ]
        rows += [("cached numbers", self.kv_elements_per_token, self.latent_kv_elements_per_token)]
        lines = [
            f"{'per token at ' + format(self.seq_len, ','):<30}{'dense':>16}{'LPA':>16}{'LPA / dense':>13}"
        ]
        for name, dense, low in rows:
            ratio = f"{low / dense:.3f}" if dense else "-"
            lines.append(f"{name:<30}{dense:>16,}{low:>16,}{ratio:>13}")
        return "\n".join(lines)


def estimate(model_or_config: nn.Module | PreTrainedConfig, seq_len: int) -> Cost:
    """Count the cost of a model (dense or low-rank, also on the meta device) or of a config.

    Raises `LPAError` for a mixture of experts, whose arithmetic depends on the routing, and for a config of
    no causal language model; `ValueError` for a `seq_len` below 1.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len is {seq_len}; it must be at least 1")
    model = _on_meta(model_or_config) if isinstance(model_or_config, PreTrainedConfig) else model_or_config
    if any(name.endswith("experts") for name, _ in model.named_modules()):
        raise LPAError("estimate cannot count a mixture of experts: its arithmetic depends on the routing")
    parts = list(_parts(model))
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(
        seq_len=seq_len,
        params=params,
        dense_params=params + _params_saved(model),
        flops=_flops(model, parts, seq_len, dense=False),
        dense_flops=_flops(model, parts, seq_len, dense=True),
        kv_elements_per_token=sum(part.n_out for part in parts if part.role in ("k", "v")),
        latent_kv_elements_per_token=sum(
            part.rank or part.n_out for part in parts if part.role in ("k", "v")
        ),
    )


def _on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    lpa = recorded_config(config)
    plain = type(config).from_dict(
        {key: value for key, value in config.to_dict().items() if key != "quantization_config"}
    )
    with torch.device("meta"):
        model = model_from_config(plain)
        return model if lpa is None else apply_lpa(model, lpa)


def model_from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A new causal language model of that config. Raises `LPAError` if its family has none."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise LPAError(
            f"transformers has no causal language model for {type(config).__name__}; LPA is a method for "
            "decoders"
        )
    return AutoModelForCausalLM.from_config(config)


@dataclass(frozen=True)
class _Part:
    role: str
    n_in: int
    n_out: int
    rank: int | None  # None: dense

    def flops(self, dense: bool) -> int:
        low = self.rank is not None and not dense
        return 2 * (self.rank * (self.n_in + self.n_out) if low else self.n_in * self.n_out)  # type: ignore[operator]


def _parts(model: nn.Module) -> Iterator[_Part]:
    for site in sites(model):
        module = model.get_submodule(site.name)
        for name, n_out in site.parts:
            layer = module.parts[name] if isinstance(module, FusedLowRank) else module
            rank = layer.rank if isinstance(layer, LowRankLinear) else None
            yield _Part(site.role_of(name), site.n_in, n_out, rank)


def _flops(model: nn.Module, parts: list[_Part], seq_len: int, dense: bool) -> dict[str, int]:
    flops = dict.fromkeys(FLOP_KEYS, 0)
    for part in parts:
        key = "attention_projections" if part.role in ATTENTION_ROLES else "ffn"
        flops[key] += part.flops(dense)
        if part.role == "q":  # q k^T and a v: 2 products of 2 n_out FLOPs with seq_len / 2 tokens
            flops["attention_core"] += 2 * part.n_out * seq_len
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    if head is not None:
        n_in, n_out = matrix_shape(head)
        flops["lm_head"] = 2 * n_in * n_out
    flops["total"] = sum(flops.values())
    return flops


def _params_saved(model: nn.Module) -> int:
    """Parameters that the dense form of the low-rank matrices has more."""
    dense, own = 0, dict[int, int]()
    for site in sites(model):
        module = model.get_submodule(site.name)
        n_out = sum(size for _, size in site.parts)
        dense += n_out * (site.n_in + dense_bias(module))
        own |= {
            id(parameter): parameter.numel() for parameter in module.parameters()
        }  # a shared A counts once
    return dense - sum(own.values())
