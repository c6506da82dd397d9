"""The pictures show the statistics' numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from memoryformer import plots
from memoryformer.errors import MemoryFormerError
from memoryformer.statistics import BucketStats

pytest.importorskip("matplotlib")

STATS = {
    "even": BucketStats(torch.tensor([[4, 4, 4, 4], [8, 8, 0, 0]]), torch.tensor([0.0, 0.5])),
    "single": BucketStats(torch.tensor([[16, 0, 0, 0], [0, 16, 0, 0]]), torch.tensor([0.25, 0.25])),
}


def test_the_histogram_shows_the_first_and_last_table_of_each_layer_and_what_even_use_gives():
    figure = plots.bucket_histogram(STATS)
    shown = {axes.get_title(): axes for axes in figure.axes}
    assert list(shown) == ["even, table 0", "single, table 0", "even, table 1", "single, table 1"]
    for name, stats in STATS.items():
        for k in range(2):
            axes = shown[f"{name}, table {k}"]
            assert [bar.get_height() for bar in axes.patches] == stats.counts[k].tolist()
            assert list(axes.lines[0].get_ydata()) == [4, 4]


def test_the_histogram_takes_the_layers_asked_for():
    figure = plots.bucket_histogram(STATS, ["single"])
    assert [axes.get_title() for axes in figure.axes] == ["single, table 0", "single, table 1"]


@pytest.mark.parametrize(
    ("draw", "means", "spans"),
    [
        (plots.bucket_entropy, (0.75, 0), ((0.5, 1), (0, 0))),
        (plots.dead_rows, (0.25, 0.75), ((0, 0.5), (0.75, 0.75))),
        (plots.collision_rate, (4 * 160 / 480, 4), ((0.8, 4 * 112 / 240), (4, 4))),
        (plots.flip_rate, (0.25, 0.25), ((0, 0.5), (0.25, 0.25))),
    ],
)
def test_each_layer_has_its_mean_and_a_line_from_least_to_greatest(draw, means, spans):
    (axes,) = draw(STATS).axes
    points = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == pytest.approx(means)
    lines = [collection.get_segments()[0][:, 1] for collection in axes.collections]
    assert [tuple(line) for line in lines] == [pytest.approx(span) for span in spans]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["even", "single"]


def test_a_picture_can_be_written(tmp_path: Path):
    plots.bucket_entropy(STATS).savefig(tmp_path / "entropy.png")
    assert (tmp_path / "entropy.png").stat().st_size > 1000


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MemoryFormerError, match="no statistics of layer 'odd'; there are even, single"):
        plots.bucket_histogram(STATS, ["odd"])
    with pytest.raises(MemoryFormerError, match="the statistics are empty"):
        plots.dead_rows({})
    with pytest.raises(MemoryFormerError, match="no flips were counted: call bucket_stats with other="):
        plots.flip_rate({"even": BucketStats(STATS["even"].counts)})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MemoryFormerError, match=r"pip install 'memoryformer\[plot\]'"):
        plots.bucket_entropy(STATS)
