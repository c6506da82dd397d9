"""What became of tiny models, and of the n-grams, with human, synthetic and edited text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from tenfold import Estimate, Figure, Records
from tenfold.figures import INK, PALETTE, save
from toedit.reproduce.effect_study import HELDOUT
from toedit.reproduce.iteration_study import ARMS

TABLE_1 = {0: 34.55, 25: 36.32, 50: 38.65, 75: 42.95, 100: 128.05}
"""GPT-2 on Wikitext-103."""

LABELS = {
    "replace": "its own text alone",
    "accumulate": "its own text, and all before",
    "edit": "human text, edited at P >= 0.99",
    "edit-most": "human text, the surest 12.5% edited",
    "human": "human text",
}


def bucket_response(found: Mapping[str, Any], folder: Path) -> list[Figure]:
    """How much of all n-grams the fullest buckets hold."""
    if not found:
        return []
    canvas = Canvas(figsize=(7, 3.8), layout="constrained")
    axes = canvas.subplots()
    for colour, (name, kind) in zip(PALETTE, found.items(), strict=False):
        label = f"{name}: e^H {kind['effective_buckets']:,.0f} of {kind['words']:,} words"
        places = np.arange(1, len(kind["curve"]) + 1)
        axes.plot(places, 100 * np.array(kind["curve"]), color=colour, label=label)
    axes.set(xlabel="% of the 10,000 buckets, fullest first", ylabel="% of all 1- and 2-grams")
    axes.legend(fontsize=9)
    axes.set_title("How concentrated the n-grams are")
    caption = (
        "Hashed 1- and 2-grams. Human and synthetic text have the same number of words, source and edited "
        "text too."
    )
    return [Figure(save(canvas, folder, "buckets"), caption)]


def mixing(corpus: str, metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """PPL of held-back human text against the share of synthetic training text."""
    canvas = Canvas(figsize=(6.5, 3.8), layout="constrained")
    axes = canvas.subplots()
    prefix = f"ppl_{corpus}_"
    points = {int(name[len(prefix) :]): value for name, value in metrics.items() if name.startswith(prefix)}
    shares = sorted(points)
    base = points[0].mean
    axes.plot(shares, [points[share].mean / base for share in shares], "o-", color=PALETTE[0], label="here")
    for share in shares:
        axes.plot(
            [share] * len(points[share].samples), np.array(points[share].samples) / base, ".", color=INK
        )
    paper = np.array(list(TABLE_1.values())) / TABLE_1[0]
    axes.plot(list(TABLE_1), paper, "s--", color=PALETTE[1], label="the paper, GPT-2, Wikitext-103")
    axes.set(xlabel="% of the training text that is synthetic", ylabel="PPL over that without", yscale="log")
    ticks = [1, 1.2, 1.5, 2, 3, 4]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend()
    axes.set_title(f"Mixtures of an equal token budget: {corpus}")
    caption = "Dots: seeds. The paper's synthetic text is Cosmopedia, its models see 42 B tokens."
    return Figure(save(canvas, folder, f"mixing_{corpus}"), caption)


def generations(records: Records, folder: Path) -> list[Figure]:
    """PPL against the generation, for each way to make the next one's text."""
    found: dict[str, list[dict[str, Any]]] = {}
    for trial, result in records.results().items():
        if trial.stage == "iteration":
            found.setdefault(trial.arm, []).append(result)
    if not found:
        return []
    canvas = Canvas(figsize=(8.5, 3.9), layout="constrained")
    axes = canvas.subplots()
    for colour, arm in zip(PALETTE, ARMS, strict=False):
        ppl = np.array([result["ppl"] for result in found[arm]])
        label = LABELS[arm]
        if found[arm][0]["candidates"]:
            shares = [np.mean([result[key] for result in found[arm]]) for key in ("candidates", "changed")]
            label += f"\n({100 * shares[0]:.2g}% candidates, {100 * shares[1]:.2g}% changed)"
        axes.plot(np.arange(1, ppl.shape[1] + 1), ppl.mean(0), "o-", color=colour, label=label, markersize=4)
    axes.set(xlabel="generation", ylabel="PPL on held-back human text", yscale="log")
    axes.set_xticks(range(1, ppl.shape[1] + 1))
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8.5)
    axes.set_title("What each generation learns from")
    caption = "A model a generation, all of the same size and as many steps; text is from the one before."
    return [Figure(save(canvas, folder, "generations"), caption)]


def training_effect(metrics: Mapping[str, Estimate], folder: Path) -> list[Figure]:
    """T7: edited minus source for each held-out set, with what could have been seen."""
    names = [name for name in HELDOUT if f"edited_minus_source_{name}" in metrics]
    if not names:
        return []
    canvas = Canvas(figsize=(8, 0.7 * len(names) + 1.6), layout="constrained")
    axes = canvas.subplots()
    for place, name in enumerate(names):
        gaps = metrics[f"edited_minus_source_{name}"]
        axes.plot(gaps.samples, [place] * len(gaps.samples), ".", color=INK)
        if gaps.low is not None and gaps.high is not None:
            axes.plot([gaps.low, gaps.high], [place, place], color=PALETTE[0], linewidth=3, alpha=0.6)
        smallest, needed = (metrics.get(f"{key}_{name}") for key in ("smallest_effect", "seeds_needed"))
        if smallest is not None and needed is not None:
            told = (
                f"{len(gaps.samples)} seeds see {smallest.mean:.2g}; this mean would need {needed.mean:,.0f}"
            )
            axes.annotate(
                told, (gaps.mean, place), xytext=(0, 9), textcoords="offset points", fontsize=8.5, ha="center"
            )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.2)
    axes.set(xlabel="loss with edited text minus loss with its source (nats a token)")
    axes.set_title("Does editing the training text help? No answer is possible at this scale")
    caption = (
        "Dots: pairs of the same seed; bars: 95% intervals of their mean. The text: what a paired test at 5% "
        "would find in four of five cases with as many seeds, and how many the mean found would need."
    )
    return [Figure(save(canvas, folder, "effect"), caption)]
