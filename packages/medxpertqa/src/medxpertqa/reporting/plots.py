"""The plots of a report as SVG text, drawn by matplotlib without a screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medxpertqa.errors import MissingExtraError
from medxpertqa.reporting.tables import labels, visible
from medxpertqa.results import Results
from medxpertqa.summaries import Comparison, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIELDS = ("question_type", "medical_task", "body_system")


def accuracy_plot(summaries: Sequence[Summary], chance: float | None = None) -> str:
    """Accuracy with its interval, overall and by cell, a colour a run; a dashed line at chance (a share)."""
    rows = [("all", "all")]
    rows += [
        (key, value)
        for key in _FIELDS
        for value in dict.fromkeys(value for summary in summaries for value in summary.by.get(key, ()))
    ]
    figure, axes = _figure(7.5, 0.9 + 0.28 * len(rows) * max(1, 0.6 * len(summaries)))
    for place, (summary, name) in enumerate(zip(summaries, labels(summaries), strict=True)):
        cells = [summary if key == "all" else summary.by.get(key, {}).get(value) for key, value in rows]
        found = [(row, cell) for row, cell in enumerate(cells) if cell is not None]
        middle = [100 * cell.accuracy for _, cell in found]
        low = [max(100 * (cell.accuracy - cell.ci.low), 0) for _, cell in found]
        high = [max(100 * (cell.ci.high - cell.accuracy), 0) for _, cell in found]
        heights = [row + (place - (len(summaries) - 1) / 2) * 0.7 / len(summaries) for row, _ in found]
        axes.errorbar(middle, heights, xerr=[low, high], fmt="o", markersize=4, capsize=2, label=_plain(name))
    axes.set_yticks(range(len(rows)), [_plain(value) for _, value in rows])
    axes.invert_yaxis()
    if chance is not None:
        axes.axvline(100 * chance, linestyle="--", color="grey", linewidth=1, label="chance")
    axes.set_xlabel("accuracy, % (95 % CI)")
    axes.legend(fontsize=8, loc="best")
    return _svg(figure)


def letters_plot(run: Results, summary: Summary) -> str:
    """How often each letter was given, beside how often it is the right one."""
    if summary.position is None:
        return ""
    figure, axes = _figure(6, 2.6)
    letters = list(summary.position.counts)
    right = [sum(record.label == letter for record in run.records) for letter in letters]
    places = range(len(letters))
    axes.bar([place - 0.2 for place in places], list(summary.position.counts.values()), 0.4, label="given")
    axes.bar([place + 0.2 for place in places], right, 0.4, label="right")
    axes.set_xticks(list(places), letters)
    axes.set_ylabel("questions")
    axes.legend(fontsize=8)
    return _svg(figure)


def difference_plot(pair: Comparison) -> str:
    """The difference of two runs with its interval, overall and by cell."""
    rows = [("all", pair.difference, pair.ci)]
    rows += [
        (value, cell.difference, cell.ci) for key in _FIELDS for value, cell in pair.by.get(key, {}).items()
    ]
    figure, axes = _figure(7.5, 0.9 + 0.25 * len(rows))
    middle = [100 * difference for _, difference, _ in rows]
    low = [max(100 * (difference - ci.low), 0) for _, difference, ci in rows]
    high = [max(100 * (ci.high - difference), 0) for _, difference, ci in rows]
    axes.errorbar(middle, range(len(rows)), xerr=[low, high], fmt="o", markersize=4, capsize=2)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(rows)), [_plain(value) for value, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(_plain(f"{pair.names[0]} minus {pair.names[1]}, percentage points (95 % CI)"))
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("plots need an optional extra: pip install 'medxpertqa[report]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    """The SVG element alone, the same for the same figure, and escaped by matplotlib."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "medxpertqa", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _plain(name: str) -> str:
    """A name of which matplotlib makes no formula."""
    return visible(name).replace("$", r"\$")
