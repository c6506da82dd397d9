"""The figures of the report: ids, letters, counts and accuracies, and nothing of a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from medxpertqa.paper import MODELS, check_tables
from medxpertqa.reproduce.metrics import PARSERS, Row, cot_rows, right, rows_of
from medxpertqa.stats import paired_difference, wilson
from tenfold import Estimate, Figure, Records
from tenfold.figures import MUTED, save, style

SMALL, LEAST = 30, 5
"""A cell with fewer questions than the first says little, and is drawn hollow; than the second, left out."""


def figures(config: Any, metrics: Mapping[str, Estimate], records: Records, folder: Path) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    by_stage: dict[str, dict[str, Any]] = {}
    for trial, result in records.results().items():
        by_stage.setdefault(trial.stage, {})[trial.arm] = result
    answers = by_stage.get("answers", {})
    rows = cot_rows(answers)
    with style():
        drawn = [published(folder)]
        if rows:
            drawn += [cells(rows, rows_of(answers, "ao"), folder), reliability(answers, folder)]
            drawn.append(letters(rows, folder))
        if "pipeline" in by_stage:
            drawn.append(funnel(by_stage["pipeline"]["pipeline"], folder))
        if "pairs" in by_stage:
            drawn.append(nearest(by_stage["pairs"]["pairs"], folder))
        if "leakage" in by_stage:
            drawn.append(leakage(by_stage["leakage"]["leakage"], folder))
    return drawn


def published(folder: Path) -> Figure:
    """Every printed accuracy with the interval of the count behind it; a cross where there is no count."""
    canvas = Canvas(figsize=(7, 5.2))
    axes = canvas.subplots()
    solved = {row.model: row for row in check_tables()}
    names = [row.model for row in MODELS]
    for place, row in enumerate(MODELS):
        counts, sizes = solved[row.model].counts, solved[row.model].sizes
        for color, start in (("C0", 0), ("C1", 2)):
            if counts is not None and len(counts) > start:
                n_right, n = sum(counts[start : start + 2]), sum(sizes[start : start + 2])
                share(axes, n_right, n, place, color=color)
        if counts is None:
            axes.plot(row.percents["text"], place, "x", color="C0")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, %")
    caption = (
        "Published accuracies with Wilson's 95% intervals of the counts behind them: Text blue, MM orange. "
        "Behind the cross there is no count: the row of LLaMA-3-70B-UltraMedical has no solution."
    )
    return Figure(save(canvas, folder, "published"), caption)


def share(axes: Axes, n_right: int, n: int, place: float, color: str = "C0") -> None:
    """A share in % with Wilson's interval; hollow if it is of few."""
    low, high = (100 * end for end in wilson(n_right, n))
    mean = 100 * n_right / n
    ends = [[max(mean - low, 0)], [max(high - mean, 0)]]
    face = "white" if n < SMALL else color
    axes.errorbar(mean, place, xerr=ends, fmt="o", color=color, markerfacecolor=face)


def cells(cot: Sequence[Row], ao: Sequence[Row], folder: Path) -> Figure:
    """Accuracy by medical task and body system, and beside it the paired difference of two protocols."""
    canvas = Canvas(figsize=(9, 5))
    left, right_axes = canvas.subplots(1, 2, sharey=True)
    names: list[str] = []
    other = dict(zip((row["id"] for row in ao), right(ao, "official"), strict=True))
    for key in ("medical_task", "body_system"):
        for value in sorted({row["attributes"][key] for row in cot}):
            chosen = [row for row in cot if row["attributes"][key] == value]
            if len(chosen) < LEAST:
                continue
            n_right = right(chosen, "official")
            share(left, sum(n_right), len(chosen), len(names))
            paired = [
                (a, other[row["id"]]) for a, row in zip(n_right, chosen, strict=True) if row["id"] in other
            ]
            if len(paired) >= LEAST:
                gap(right_axes, np.array(paired, dtype=float), len(names))
            names.append(f"{value} ({len(chosen)})")
    left.axvline(10, color=MUTED, linewidth=0.8, linestyle=":")
    right_axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel="accuracy, %")
    right_axes.set(xlabel="official-cot minus official-ao, points")
    caption = (
        "SmolLM2-135M on Text, official-cot, with Wilson's 95% intervals (dotted: chance), and its paired "
        f"difference from the answer-only protocol (bootstrap). Hollow: fewer than {SMALL} questions; "
        f"cells with fewer than {LEAST} are left out."
    )
    return Figure(save(canvas, folder, "cells"), caption)


def gap(axes: Axes, paired: np.ndarray, place: float) -> None:
    """First minus second column of (n, 2) in points, with its interval; hollow if it is of few."""
    found = paired_difference(paired[:, 0], paired[:, 1])
    mean, low, high = (100 * x for x in (found.difference, found.ci.low, found.ci.high))
    face = "white" if len(paired) < SMALL else "C2"
    ends = [[max(mean - low, 0)], [max(high - mean, 0)]]
    axes.errorbar(mean, place, xerr=ends, fmt="o", color="C2", markerfacecolor=face)


def reliability(answers: Mapping[str, Mapping[str, Any]], folder: Path) -> Figure:
    """In how many replies each parser finds a letter, and in how many both find the same."""
    runs = {
        "official-cot": cot_rows(answers),
        "official-ao": rows_of(answers, "ao"),
        "MM, no images": rows_of(answers, "blind"),
        "four orders": rows_of(answers, "permuted"),
    }
    runs = {name: rows for name, rows in runs.items() if rows}
    canvas = Canvas(figsize=(7, 1.4 + 0.5 * len(runs)))
    axes = canvas.subplots()
    for place, rows in enumerate(runs.values()):
        for shift, parser in enumerate(PARSERS):
            found = sum(row["letters"][parser] is not None for row in rows)
            share(axes, found, len(rows), place + 0.2 * (shift - 1), color=f"C{shift}")
        same = sum(row["letters"][PARSERS[0]] == row["letters"][PARSERS[1]] for row in rows)
        share(axes, same, len(rows), place + 0.2, color="C2")
    axes.set_yticks(range(len(runs)), [f"{name} ({len(rows)})" for name, rows in runs.items()])
    axes.invert_yaxis()
    axes.set(xlabel="replies, %", xlim=(-2, 102))
    caption = (
        "How reliable reading is: replies in which the official parser (blue) and the robust one (orange) "
        "find a letter, and in which both say the same (green), with Wilson's 95% intervals."
    )
    return Figure(save(canvas, folder, "reliability"), caption)


def letters(rows: Sequence[Row], folder: Path) -> Figure:
    """Predicted letters by both parsers beside the labels."""
    canvas = Canvas(figsize=(7, 3.2))
    axes = canvas.subplots()
    shown: list[tuple[str, Callable[[Row], str]]] = [
        ("label", lambda row: row["label"]),
        ("official", lambda row: row["letters"]["official"] or "none"),
        ("robust", lambda row: row["letters"]["robust"] or "none"),
    ]
    places = [*"ABCDEFGHIJ", "none"]
    for shift, (name, letter) in enumerate(shown):
        counts = Counter(letter(row) for row in rows)
        axes.bar([x + 0.27 * (shift - 1) for x in range(11)], [counts[p] for p in places], 0.27, label=name)
    axes.set_xticks(range(11), places)
    axes.set(ylabel="questions")
    axes.legend()
    caption = "Letters that each parser reads from the same replies, beside the right ones."
    return Figure(save(canvas, folder, "letters"), caption)


def funnel(found: Mapping[str, Any], folder: Path) -> Figure:
    """How many questions each step of the construction leaves."""
    canvas = Canvas(figsize=(7, 3))
    axes = canvas.subplots()
    for shift, (key, label) in enumerate(
        (("funnel", "first run"), ("funnel_again", "stricter, from the ledger"))
    ):
        stages = found[key]
        places = [place + 0.38 * shift for place in range(len(stages))]
        bars = axes.barh(places, [stage["count"] for stage in stages], 0.36, label=label)
        axes.bar_label(bars, padding=3, fontsize=9)
    axes.set_yticks(range(len(found["funnel"])), [stage["stage"] for stage in found["funnel"]])
    axes.invert_yaxis()
    axes.set(xlabel="questions")
    axes.legend()
    caption = "Questions left after each step. Human answers are made up; the voter is asked about a sample."
    return Figure(save(canvas, folder, "funnel"), caption)


def nearest(found: Mapping[str, Any], folder: Path) -> Figure:
    """The similarity of each MedQA question to its nearest other, with the fence."""
    canvas = Canvas(figsize=(7, 3))
    axes = canvas.subplots()
    axes.hist(found["nearest"], bins=60)
    axes.axvline(found["fence"], color="C1", label="fence")
    axes.set(xlabel="similarity to the nearest other question (TF-IDF)", ylabel="questions", yscale="log")
    axes.legend()
    return Figure(save(canvas, folder, "nearest"), "MedQA: beyond the fence a pair counts as similar.")


def leakage(found: Mapping[str, Any], folder: Path) -> Figure:
    """What the audit says of leaked and other questions, before and after rewriting."""
    canvas = Canvas(figsize=(7, 3.2))
    for axes, (name, scores) in zip(canvas.subplots(1, 2), found["scores"].items(), strict=True):
        parts = [[pair[column] for pair in scores[kind::2]] for kind in (0, 1) for column in (0, 1)]
        axes.boxplot(parts)
        axes.set_xticks(range(1, 5), ["leaked", "rewritten", "other", "rewritten"])
        axes.set(ylabel="minus perplexity" if name == "perplexity" else "5-gram accuracy")
    caption = "The audit of a tuned model: leaked questions and others, as published and rewritten."
    return Figure(save(canvas, folder, "leakage"), caption)
