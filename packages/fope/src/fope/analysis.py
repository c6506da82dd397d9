"""What FoPE does to attention, in numbers: periods, shifts, spectra, the channels that are used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fope.embedding import FourierPositionEmbedding


def score_by_distance(embedding: FourierPositionEmbedding, length: int) -> Tensor:
    """The score of an all-ones query at position p with an all-ones key at 0, for p < `length`: [H, length].

    What the position embedding alone contributes to attention.
    """
    ones = torch.ones(1, embedding.config.num_heads, length, embedding.config.head_dim)
    with torch.no_grad():
        q, k = embedding(ones.to(embedding.cos_coef.device), ones.to(embedding.cos_coef.device))
    return (q @ k[:, :, :1].transpose(-1, -2)).squeeze(-1).squeeze(0)


def score_periodicity(scores: Tensor, period: int) -> Tensor:
    """How alike the scores of each later period are to the first one: correlations [H, N] of scores [H,
    (N+1)·L].

    1 where attention repeats itself from one training length to the next, which is what waves with whole
    cycles do.
    """
    windows = scores.double().unfold(-1, period, period)
    windows = windows - windows.mean(dim=-1, keepdim=True)
    first, later = windows[..., :1, :], windows[..., 1:, :]
    return (first * later).sum(-1) / (first.norm(dim=-1) * later.norm(dim=-1))


@dataclass(frozen=True)
class ShiftSensitivity:
    """By how much scores change when queries and keys move together, as a share of the scores' own rms."""

    shifts: tuple[int, ...]
    relative_change: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The root of the mean square over the shifts."""
        return float(torch.tensor(self.relative_change).square().mean().sqrt())


def shift_sensitivity(
    embedding: FourierPositionEmbedding,
    length: int = 64,
    shifts: tuple[int, ...] = (1, 7, 64, 200),
    seed: int = 0,
) -> ShiftSensitivity:
    """Shift random queries and keys by the same number of positions and see what happens to their scores.

    Zero for RoPE and for clipping alone. The series is applied to queries and keys separately, so FoPE's
    scores do not depend on the distance alone: cached rotated keys cannot be given new positions.
    """
    config = embedding.config
    generator = torch.Generator().manual_seed(seed)
    shape = (8, config.num_heads, length, config.head_dim)
    q, k = (torch.randn(shape, generator=generator).to(embedding.cos_coef.device) for _ in range(2))

    def scores(start: int) -> Tensor:
        rotated_q, rotated_k = embedding(q, k, torch.arange(start, start + length, device=q.device))
        return (rotated_q @ rotated_k.transpose(-1, -2)).double()

    with torch.no_grad():
        still = scores(0)
        changes = [
            (scores(shift) - still).square().mean().sqrt() / still.square().mean().sqrt() for shift in shifts
        ]
    return ShiftSensitivity(shifts, tuple(change.item() for change in changes))


@dataclass(frozen=True)
class MisledPair:
    """A pair of channels whose series is not led by the pair's own wave."""

    head: int
    pair: int
    own_row: int
    own_weight: float
    largest_row: int
    largest_weight: float


def misled_pairs(embedding: FourierPositionEmbedding, least: float = 0.5) -> list[MisledPair]:
    """The pairs whose own wave has a coefficient of at most `least` in size, in cos or sin; none is right."""
    found = {}
    for coef in (embedding.cos_coef.detach(), embedding.sin_coef.detach()):
        H, D, R = coef.shape
        for head in range(H):
            for pair in range(R):
                row = pair * embedding.config.oversample
                weight = coef[head, row, pair].item() if row < D else 0.0
                if not abs(weight) > least:
                    largest = int(coef[head, :, pair].abs().argmax())
                    led_by = coef[head, largest, pair].item()
                    found[head, pair] = MisledPair(head, pair, row, weight, largest, led_by)
    return [found[place] for place in sorted(found)]


@dataclass(frozen=True)
class SpectrumDamage:
    """Magnitudes of a signal's spectrum before and after a nonlinearity, [length/2 + 1] each."""

    before: Tensor
    after: Tensor

    @property
    def leaked(self) -> float:
        """The share of the energy after it that lies at frequencies absent before, the mean not counted."""
        energy = self.after.square()
        energy[0] = 0
        new = self.before < 1e-6 * self.before.max()
        return float(energy[new].sum() / energy.sum())


def spectrum_damage(
    cycles: tuple[int, ...] = (8, 21), length: int = 256, activation: Callable[[Tensor], Tensor] = torch.relu
) -> SpectrumDamage:
    """Figure 3 as a toy: a sum of waves with whole `cycles` in `length` samples, through an activation.

    A linear layer mixes the waves of several channels into one; the activation then makes harmonics and
    waves of their sums and differences, which rotary embedding of single waves does not know.
    """
    n = torch.arange(length, dtype=torch.float64)
    signal = sum((torch.cos(2 * torch.pi * c * n / length) for c in cycles), torch.zeros_like(n))
    before, after = (torch.fft.rfft(x).abs() / length for x in (signal, activation(signal)))
    return SpectrumDamage(before, after)


def channel_means(x: Tensor) -> Tensor:
    """Mean |x| of every channel, [heads, d], of queries or keys [B, heads, T, d]."""
    return x.detach().float().abs().mean(dim=(0, -2))


@torch.no_grad()
def query_key_activation(
    model: nn.Module,
    inputs: Mapping[str, Any],
    head_dim: int,
    pattern: str = r"\.(q|k)_(proj|norm)$",
) -> dict[str, Tensor]:
    """Figure 7: mean |q| and |k| of every channel before rotation, [heads, head_dim] a module's name.

    Runs `model(**inputs)` and looks at the outputs of the modules whose names match `pattern`: [B, T,
    heads·d] of a projection, or [B, T, heads, d] of a norm over a head. Models use the channels that are
    never trained through a full cycle much more, or much less, than the others.
    """
    means: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            by_head = output.flatten(2).unflatten(-1, (-1, head_dim))
            means[name] = channel_means(by_head.transpose(1, 2))

        return hook

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if re.search(pattern, name)
    ]
    try:
        model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return means
