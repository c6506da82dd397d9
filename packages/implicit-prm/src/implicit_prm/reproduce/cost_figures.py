"""What rewards cost beside Math-Shepherd's, and what SmolLM2 makes of real solutions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from implicit_prm.reproduce.evaluation import roc
from implicit_prm.reproduce.metrics import Results, grown_arms
from implicit_prm.reproduce.real_responses import REWARDS, outcomes
from tenfold import Estimate, Figure
from tenfold.figures import INK, MUTED, PALETTE, save

Metrics = Mapping[str, Estimate]

LABELS = {"with": "with the reference", "without": "without it", "untrained": "untrained likelihood"}


def cost(shepherd: Results, chains: Results, metrics: Metrics, folder: Path) -> list[Figure]:
    """Best-of-16 against the FLOPs of making the data and training, implicit CE and Math-Shepherd."""
    if not shepherd:
        return []
    canvas = Canvas(figsize=(7.5, 4.4), layout="constrained")
    axes = canvas.subplots()
    arms = grown_arms(chains)
    work = [metrics[f"flops_{arm}"].mean for arm in arms]
    axes.plot(
        work, [metrics[f"bon16_{arm}"].mean for arm in arms], "o-", color=PALETTE[0], label="implicit, CE"
    )
    for x, arm in zip(work, arms, strict=True):
        axes.annotate(
            arm.removeprefix("ce-"),
            (x, metrics[f"bon16_{arm}"].mean),
            (0, -14),
            fontsize=8,
            textcoords="offset points",
            ha="center",
        )
    samples = metrics["shepherd16"].samples
    x = metrics["flops_shepherd"].mean
    axes.plot([x] * len(samples), samples, ".", color=INK)
    axes.plot(
        x, metrics["shepherd16"].mean, "s", color=PALETTE[1], label="Math-Shepherd, 8 completions a step"
    )
    axes.axhline(metrics["oracle16"].mean, color=MUTED, label="the best there is")
    axes.set(xlabel="FLOPs of the data and of training", ylabel="best-of-16 (%)", xscale="log")
    axes.legend(fontsize=9)
    ratio = metrics["shepherd_flops_ratio"].mean
    axes.set_title(f"Math-Shepherd takes {ratio:.1f} times the FLOPs at equal responses")
    caption = "Labels of steps need completions from every step, labels of responses none. The paper: 38.8."
    return [Figure(save(canvas, folder, "cost"), caption)]


def real_responses(results: Mapping[str, Mapping[int, Any]], metrics: Metrics, folder: Path) -> list[Figure]:
    """How well SmolLM2's rewards tell right from wrong solutions of held-out questions."""
    if not results:
        return []
    (found,) = results["smollm2"].values()
    labels = np.array(found["labels"]).ravel() > 0.5
    canvas = Canvas(figsize=(10, 4.2), layout="constrained")
    curve, chosen = canvas.subplots(1, 2)
    keys = {name: "smollm2" if name == "with" else f"smollm2_{name}" for name in REWARDS}
    for colour, name in zip(PALETTE, REWARDS, strict=False):
        points = roc(outcomes(found, name).ravel(), labels)
        area, low, high = (metrics[f"{keys[name]}_auroc{end}"].mean for end in ("", "_low", "_high"))
        text = f"{LABELS[name]}: {area:.2f} [{low:.2f}, {high:.2f}]"
        curve.plot(points["false"], points["true"], color=colour, label=text)
    curve.plot([0, 1], [0, 1], ":", color=MUTED)
    curve.set(xlabel="share of wrong solutions above", ylabel="share of right solutions above")
    curve.legend(loc="lower right", fontsize=9, title="AUROC", title_fontsize=9)
    for place, name in enumerate(REWARDS):
        for shift, how, colour in ((-0.18, "min", PALETTE[0]), (0.18, "sum", PALETTE[2])):
            label = {"min": "lowest step", "sum": "sum"}[how] if place == 0 else None
            value = metrics[f"{keys[name]}_best_of_4_{how}"].mean
            chosen.bar(place + shift, value, 0.34, color=colour, alpha=0.8, label=label)
    chosen.axhline(metrics["smollm2_random4"].mean, color=INK, linestyle="--", label="a random one")
    chosen.set_xticks(range(len(REWARDS)), [LABELS[name] for name in REWARDS], fontsize=9)
    chosen.set_ylabel("right among the chosen of 4 (%)")
    chosen.set_ylim(0, 1.3 * chosen.get_ylim()[1])  # room for the legend
    chosen.legend(fontsize=9, loc="upper left", ncols=3)
    low, high = metrics["smollm2_auroc_low"].mean, metrics["smollm2_auroc_high"].mean
    says = "tells right from wrong" if low > 0.5 else "cannot be told from chance"
    says = "is worse than chance" if high < 0.5 else says
    canvas.suptitle(f"Real solutions: SmolLM2-135M's reward {says}", x=0.01, ha="left", fontsize=12)
    caption = (
        "Solutions of held-out GSM8K questions by four models of 6 and 175 billion parameters; the AUROC is "
        "over all of them, so that knowing a better writer's style counts too. Intervals: 95%, bootstrap "
        "over questions."
    )
    return [Figure(save(canvas, folder, "real_responses"), caption)]
