"""What a model's attention does with its dimensions: ranks in use, common subspaces, attention entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lpa.architectures import Site, sites
from lpa.config import ATTENTION_ROLES
from lpa.errors import LPAError
from lpa.factorization import SecondMoment
from lpa.layers import FusedLowRank, LowRankLinear
from lpa.surgery import part_weights


@dataclass(frozen=True)
class Projection:
    """One attention matrix: its `rank` (None: dense) and how much of it is in use.

    The effective rank of singular values s is exp(entropy of s / sum s), between 1 and their number (Roy,
    Vetterli 2007): `weight_rank` that of W (or B A), `output_rank` that of the outputs on the batch.
    """

    layer: int
    role: str
    rank: int | None
    weight_rank: float
    output_rank: float


@dataclass(frozen=True)
class Analysis:
    """The result of `analyze`; `str()` is a table with a line a layer.

    `overlaps[layer]["q-k"]` is the mean squared cosine of the principal angles between the row spaces of two
    A's: 1 if one contains the other, and r / n_in (the larger r) expected of independent ones; low-rank
    layers only. `attention_entropy` (layers, heads) is in nats, the mean over queries; a query that sees n
    tokens evenly has log n.
    """

    projections: tuple[Projection, ...]
    overlaps: Mapping[int, Mapping[str, float]]
    attention_entropy: torch.Tensor

    def __str__(self) -> str:
        head = "layer | effective rank of W: q k v o | of the outputs: q k v o | overlap of A: q-k q-v k-v"
        lines = [head + " | attention entropy: lowest head, mean, highest"]
        for layer in sorted({projection.layer for projection in self.projections}):
            own = {item.role: item for item in self.projections if item.layer == layer}
            weights = [
                f"{own[role].weight_rank:7.1f}" if role in own else "      -" for role in ATTENTION_ROLES
            ]
            outputs = [
                f"{own[role].output_rank:7.1f}" if role in own else "      -" for role in ATTENTION_ROLES
            ]
            overlap = self.overlaps.get(layer, {})
            pairs = [f"{overlap[pair]:6.3f}" if pair in overlap else "     -" for pair in _PAIRS]
            entropy = self.attention_entropy[layer]
            spread = [f"{float(value):6.3f}" for value in (entropy.min(), entropy.mean(), entropy.max())]
            columns = (f"{layer:5}", *("".join(part) for part in (weights, outputs, pairs, spread)))
            lines.append(" | ".join(columns))
        return "\n".join(lines)


_PAIRS = tuple("-".join(pair) for pair in combinations(("q", "k", "v"), 2))


@torch.no_grad()
def analyze(model: PreTrainedModel, batch: torch.Tensor | Mapping[str, Any]) -> Analysis:
    """Look at every attention matrix, dense or low-rank, while the model reads `batch`.

    `batch` is token ids (batch, length) or a mapping with "input_ids"; what "attention_mask" hides does not
    count. Attention is computed in the model's eager form meanwhile; nothing of the model is changed.
    Raises `LPAError` for a model without attention matrices that are known here.
    """
    found = [site for site in sites(model) if site.role in (*ATTENTION_ROLES, "qkv")]
    if not found:
        raise LPAError(f"{type(model).__name__} has no q, k, v or o that is known here")
    device = next(model.parameters()).device
    inputs = {"input_ids": batch} if isinstance(batch, torch.Tensor) else dict(batch)
    inputs = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in inputs.items()
    }
    mask = inputs.get("attention_mask")
    moments, attentions = _observe(model, found, inputs)
    projections = []
    for site in found:
        module = model.get_submodule(site.name)
        for part, weight in part_weights(model, site).items():
            layer = module.parts[part] if isinstance(module, FusedLowRank) else module
            values = moments[site.full_name(part)].mean()
            projections.append(
                Projection(
                    layer=site.layer or 0,
                    role=site.role_of(part),
                    rank=layer.rank if isinstance(layer, LowRankLinear) else None,
                    weight_rank=effective_rank(torch.linalg.svdvals(weight.float())),
                    output_rank=effective_rank(torch.linalg.eigvalsh(values).clamp(min=0).sqrt()),
                )
            )
    entropy = torch.stack([_entropy(weights, mask) for weights in attentions])
    return Analysis(tuple(projections), _overlaps(model, found), entropy)


def effective_rank(singular_values: torch.Tensor) -> float:
    """exp(entropy of s / sum s), between 1 and the number of singular values; 0 if all are 0."""
    s = singular_values.double()
    if not s.sum() > 0:
        return 0.0
    share = s / s.sum()
    return math.exp(float(torch.special.entr(share).sum()))


def subspace_overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """The mean squared cosine of the principal angles between the row spaces of (r_1, n) and (r_2, n)."""
    bases = [torch.linalg.qr(matrix.double().T).Q for matrix in (first, second)]
    cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
    return float(cosines.square().mean())


def _observe(
    model: PreTrainedModel, found: list[Site], inputs: Mapping[str, Any]
) -> tuple[dict[str, SecondMoment], tuple[torch.Tensor, ...]]:
    """Second moments of the outputs by part; by layer, attention weights (batch, heads, query, key)."""
    mask = inputs.get("attention_mask")
    moments: dict[str, SecondMoment] = {}

    def hook(site: Site) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def add(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            parts = [output] if site.layout is None else site.layout.split(output.movedim(-1, 0))
            for (part, n_out), values in zip(site.parts, parts, strict=True):
                values = values if site.layout is None else values.movedim(0, -1)
                moment = moments.setdefault(site.full_name(part), SecondMoment(n_out, values.device))
                moment.add(values, mask)

        return add

    was_training, kind = model.training, model.config._attn_implementation
    with ExitStack() as restore:
        for site in found:
            handle = model.get_submodule(site.name).register_forward_hook(hook(site))
            restore.callback(handle.remove)
        restore.callback(model.train, was_training)
        restore.callback(model.set_attn_implementation, kind)
        model.eval()
        model.set_attn_implementation("eager")
        outputs = model(**inputs, output_attentions=True, use_cache=False)
    return moments, outputs.attentions


def _overlaps(model: nn.Module, found: list[Site]) -> dict[int, dict[str, float]]:
    downs: dict[int, dict[str, torch.Tensor]] = {}
    for site in found:
        module = model.get_submodule(site.name)
        parts = module.parts if isinstance(module, FusedLowRank) else {site.role: module}
        for role, layer in parts.items():
            if isinstance(layer, LowRankLinear):
                downs.setdefault(site.layer or 0, {})[role] = layer.down.weight
    return {
        layer: {
            f"{first}-{second}": subspace_overlap(own[first], own[second])
            for first, second in combinations([role for role in ("q", "k", "v") if role in own], 2)
        }
        for layer, own in downs.items()
    }


def _entropy(weights: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(batch, heads, query, key) -> nats (heads,), the mean over the queries that are no padding."""
    entropy = torch.special.entr(weights.double()).sum(-1).movedim(1, 0)
    if mask is None:
        return entropy.mean((1, 2)).float()
    return entropy[:, mask.bool()].mean(1).float()
