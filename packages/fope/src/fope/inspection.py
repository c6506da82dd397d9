"""What a config keeps and clips, what a checkpoint holds, whether rotation pairs the right channels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fope.analysis import misled_pairs
from fope.coefficients import init_std
from fope.compat.layouts import read_coefficients
from fope.config import FopeConfig
from fope.embedding import FourierPositionEmbedding
from fope.errors import FopeError
from fope.frequencies import rope_frequencies

INTERLEAVED_RATIO = 1.5  # half-split models have about 1, interleaved ones 2 to 3 (SmolLM2: 0.96 and 2.76)
TRAINED_RATIO = 2.0  # rows of trained projections differ by more than so many times what random ones do
COEFFICIENT = re.compile(r"(?:^|\.)(?:fope|pos_emb|rotary_emb)\.(?:cos|sin|fourier)_coef$")
QUERY_KEY = re.compile(r"layers\.\d+\.self_attn\.[qk]_proj\.weight$")


@dataclass(frozen=True)
class Pair:
    """A pair of channels: frequency in radians per position, period in positions, whether it turns."""

    index: int
    frequency: float
    period: float
    kept: bool


@dataclass(frozen=True)
class Inspection:
    """A config in numbers. `std` is that of the noise on the coefficients."""

    config: FopeConfig
    pairs: tuple[Pair, ...]
    kept: int
    frequencies: int
    std: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class Coefficients:
    """A checkpoint's coefficients: whose layout, for how many layers (0: one set for all), [H, D, R] of each.

    `misled` counts the pairs that another pair's wave leads, of all layers and heads; 0 is right.
    """

    layout: str
    layers: int
    shape: tuple[int, int, int]
    misled: int


def inspect_config(config: FopeConfig) -> Inspection:
    """Every pair with its period, R, D and the noise of the coefficients."""
    bank = rope_frequencies(config.dim, config.theta).tolist()
    pairs = tuple(
        Pair(index, frequency, 2 * math.pi / frequency, index < config.num_kept)
        for index, frequency in enumerate(bank)
    )
    return Inspection(config, pairs, config.num_kept, config.num_frequencies, init_std(config))


def inspect_checkpoint(folder: Path, config: FopeConfig) -> Coefficients:
    """Read the coefficients in the safetensors files of `folder` and hold them against its `config`.

    Raises `FopeError` where there are none, some are missing or not finite, or the shape is another.
    """
    layout, layers = read_coefficients(dict(_tensors(folder, COEFFICIENT)))
    embedding = FourierPositionEmbedding(config)
    misled = 0
    for cos, sin in layers.values():
        embedding.load_state_dict({"cos_coef": cos, "sin_coef": sin}, strict=False)
        misled += len(misled_pairs(embedding))
    count = 0 if set(layers) == {None} else len(layers)
    heads, frequencies, kept = next(iter(layers.values()))[0].shape
    return Coefficients(layout, count, (heads, frequencies, kept), misled)


def selftest() -> dict[str, bool]:
    """Rotate by hand-made numbers in both layouts: {"half_split": ok, "interleaved": ok}.

    Heads of 8 channels, θ = 10,000, L = 100: ω = 1, 0.1, 0.01, 0.001 and R = 2. Of x = (1, ..., 8) with ζ = 1
    the clipped pair of channels 3 and 7 becomes 3 − 7 = −4 and 7 + 3 = 10, and pair 1, 5 turns by 3 radians.
    """
    half = torch.arange(1.0, 9.0)
    c, s = math.cos(3), math.sin(3)
    expected = {0: c - 5 * s, 4: 5 * c + s, 2: -4.0, 6: 10.0}
    order = torch.arange(8).view(2, 4).T.flatten()  # half-split channels, as an interleaved head has them
    return {
        "half_split": _turns(half, torch.arange(8), expected, interleaved=False),
        "interleaved": _turns(half, order, expected, interleaved=True),
    }


def _turns(x: Tensor, order: Tensor, expected: dict[int, float], *, interleaved: bool) -> bool:
    config = FopeConfig(8, 1, 100, series=False, interleaved=interleaved)
    rows = x[order].view(1, 1, 1, 8)
    turned = torch.empty(8)
    turned[order] = FourierPositionEmbedding(config)(rows, rows, torch.tensor([3]))[0].flatten()
    return all(abs(turned[channel].item() - value) < 1e-5 for channel, value in expected.items())


def layout_fits(folder: Path, config: FopeConfig) -> bool | None:
    """Whether a checkpoint's weights are of the layout that its config says; None where weights cannot tell.

    Trained weights that do not look interleaved fit a half-split config. Of an interleaved one they prove
    nothing: the lengths of its rows may be alike for other reasons.
    """
    ratio = pairing_ratio(folder, config.head_dim)
    if ratio is None:
        return None
    if ratio > INTERLEAVED_RATIO:
        return config.interleaved
    return None if config.interleaved else True


def pairing_ratio(folder: Path, head_dim: int) -> float | None:
    """How unlike a checkpoint's channels j and j + d/2 are, as a multiple of how unlike 2j and 2j + 1 are.

    Of the lengths of the rows of q and k, in logarithms. Training makes channels of like frequency alike: a
    half-split checkpoint has about 1, an interleaved one well above (`INTERLEAVED_RATIO`); rotated as
    half-split it would be another model. None if the folder has no q_proj and k_proj, and where rows are
    about as alike as random ones, whose logarithms of n numbers differ by √(2/(πn)): then nothing is trained.
    """
    across = beside = random = 0.0
    for _, weight in _tensors(folder, QUERY_KEY):
        lengths = weight.float().unflatten(0, (-1, head_dim)).norm(dim=-1).log()
        first, second = lengths.chunk(2, dim=-1)
        across += (first - second).abs().mean().item()
        beside += (lengths[:, 0::2] - lengths[:, 1::2]).abs().mean().item()
        random += math.sqrt(2 / (math.pi * weight.shape[1]))
    trained = max(across, beside) > TRAINED_RATIO * random
    return across / beside if beside and trained else None


def _tensors(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FopeError(f"{folder} holds no safetensors files")
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  # no mapping
                    if pattern.search(key):
                        yield key, opened.get_tensor(key)
        except SafetensorError as error:
            raise FopeError(f"{file} cannot be read: {error}") from error
