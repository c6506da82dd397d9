"""Pictures of what `bucket_stats` found; they need matplotlib: pip install 'memoryformer[plot]'.

Every function returns a `matplotlib.figure.Figure`, made without pyplot in the style that is set:
`figure.savefig("buckets.png")` writes it, and a notebook shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from memoryformer.errors import MemoryFormerError, MissingExtraError
from memoryformer.statistics import BucketStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Stats = Mapping[str, BucketStats]

EVEN: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1.0}


def bucket_histogram(stats: Stats, layers: Sequence[str] | None = None) -> Figure:
    """Figure 4: the tokens in each bucket of the first and the last table of some layers.

    A column a layer; the dashed line is what even use would give. By default the first three layers: of a
    MemoryFormer, q|k|v (which share their codes) and the two of the feed-forward part of block 1.

    Raises `MemoryFormerError` for a layer that was not counted.
    """
    names = list(stats)[:3] if layers is None else list(layers)
    _check(stats, names)
    figure = _figure(3.2 * len(names), 4.2)
    axes = figure.subplots(2, len(names), squeeze=False)
    for column, name in enumerate(names):
        counts = stats[name].counts
        for row, k in enumerate((0, len(counts) - 1)):
            _bars(axes[row, column], counts[k])
            axes[row, column].set_title(f"{name}, table {k}", fontsize="small")
    for place in axes[-1]:
        place.set_xlabel("bucket")
    for place in axes[:, 0]:
        place.set_ylabel("tokens")
    return figure


def bucket_entropy(stats: Stats) -> Figure:
    """Entropy / tau of every layer's tables: the mean, and a line from the least to the greatest.

    1 is even use.
    """
    figure, axes = _by_layer(stats, "entropy / tau", lambda found: found.entropy)
    axes.axhline(1, **EVEN)
    axes.set_ylim(0, 1.05)
    return figure


def dead_rows(stats: Stats) -> Figure:
    """The share of rows that no token fetched, of every layer's tables."""
    figure, axes = _by_layer(stats, "dead rows", lambda found: found.dead_rows / found.counts.shape[1])
    axes.set_ylim(bottom=0)
    return figure


def collision_rate(stats: Stats) -> Figure:
    """How many times likelier than in evenly used tables two tokens share a row; 1 is even."""
    figure, axes = _by_layer(
        stats, "collisions / those of even use", lambda found: found.collision_rate * found.counts.shape[1]
    )
    axes.axhline(1, **EVEN)
    axes.set_ylim(bottom=0)
    return figure


def flip_rate(stats: Stats) -> Figure:
    """The share of codes that differ in the model that was compared, of every layer's tables.

    Raises `MemoryFormerError` if none was: `bucket_stats(..., other=torch.bfloat16)` compares.
    """
    if any(found.flip_rate is None for found in stats.values()):
        raise MemoryFormerError(
            "no flips were counted: call bucket_stats with other=, a dtype or another model"
        )
    figure, axes = _by_layer(stats, "flipped codes", lambda found: found.flip_rate)
    axes.set_ylim(bottom=0)
    return figure


def _bars(axes: Axes, counts: Tensor) -> None:
    axes.bar(range(len(counts)), counts.tolist(), width=1.0)
    axes.axhline(counts.double().mean().item(), **EVEN)
    axes.margins(x=0)


def _by_layer(stats: Stats, label: str, quantity: Any) -> tuple[Figure, Axes]:
    _check(stats, list(stats))
    figure = _figure(max(4.0, 0.5 * len(stats) + 1.5), 4.2)
    axes = figure.subplots()
    for place, found in enumerate(stats.values()):
        values = quantity(found)
        axes.vlines(place, values.min(), values.max(), linewidth=1.2)
        axes.plot(place, values.mean(), "o", color="C0", markersize=5)
    axes.set_xticks(range(len(stats)), list(stats), rotation=60, ha="right", fontsize="small")
    axes.set_ylabel(label)
    return figure, axes


def _check(stats: Stats, names: list[str]) -> None:
    if not names:
        raise MemoryFormerError("there are no layers to draw: the statistics are empty")
    for name in names:
        if name not in stats:
            raise MemoryFormerError(f"no statistics of layer {name!r}; there are {', '.join(stats)}")


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plots need matplotlib: pip install 'memoryformer[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")
