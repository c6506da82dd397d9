"""The figures of the report: ids, letters, counts and accuracies, and nothing of a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas

from medxpertqa.reproduce.claims import PUBLISHED
from medxpertqa.reproduce.metrics import cot_rows, right
from medxpertqa.stats import wilson
from tenfold import Estimate, Figure, Records
from tenfold.figures import save, style


def figures(config: Any, metrics: Mapping[str, Estimate], records: Records, folder: Path) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    by_stage: dict[str, dict[str, Any]] = {}
    for trial, result in records.results().items():
        by_stage.setdefault(trial.stage, {})[trial.arm] = result
    rows = cot_rows(by_stage.get("answers", {}))
    with style():
        drawn = [published(folder)]
        if rows:
            drawn += [cells(rows, folder), letters(rows, folder)]
        if "pipeline" in by_stage:
            drawn.append(funnel(by_stage["pipeline"]["pipeline"], folder))
        if "pairs" in by_stage:
            drawn.append(nearest(by_stage["pairs"]["pairs"], folder))
        if "leakage" in by_stage:
            drawn.append(leakage(by_stage["leakage"]["leakage"], folder))
    return drawn


def published(folder: Path) -> Figure:
    """The printed accuracies of the open models with their intervals."""
    canvas = Canvas(figsize=(7, 3.8))
    axes = canvas.subplots()
    for place, model in enumerate(PUBLISHED):
        for color, values in (("C0", model.text), ("C1", model.mm)):
            if values is not None:
                value, low, high = values
                axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color=color)
    axes.set_yticks(range(len(PUBLISHED)), [model.name for model in PUBLISHED])
    axes.set(xlabel="accuracy, %")
    caption = "Published accuracies of open models with Wilson's 95% intervals: Text blue, MM orange."
    return Figure(save(canvas, folder, "published"), caption)


def cells(rows: Sequence[Mapping[str, Any]], folder: Path) -> Figure:
    """Accuracy by medical task and body system."""
    canvas = Canvas(figsize=(7, 4.6))
    axes = canvas.subplots()
    names: list[str] = []
    for key in ("medical_task", "body_system"):
        for value in sorted({row["attributes"][key] for row in rows}):
            chosen = [row for row in rows if row["attributes"][key] == value]
            correct, n = sum(right(chosen, "official")), len(chosen)
            low, high = (100 * end for end in wilson(correct, n))
            mean = 100 * correct / n
            axes.errorbar(
                mean, len(names), xerr=[[max(mean - low, 0)], [max(high - mean, 0)]], fmt="o", color="C0"
            )
            names.append(f"{value} ({n})")
    axes.axvline(10, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="accuracy, %")
    caption = "SmolLM2-135M on Text, official-cot, with Wilson's 95% intervals; dotted: chance."
    return Figure(save(canvas, folder, "cells"), caption)


def letters(rows: Sequence[Mapping[str, Any]], folder: Path) -> Figure:
    """Predicted letters by both parsers beside the labels."""
    canvas = Canvas(figsize=(7, 3.2))
    axes = canvas.subplots()
    shown: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
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
        axes.barh(places, [stage["count"] for stage in stages], 0.36, label=label)
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
