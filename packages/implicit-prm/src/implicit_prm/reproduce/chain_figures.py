"""What the reward models of the chain tasks found: steps, selections, sizes, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from implicit_prm.reproduce.evaluation import SIZES
from implicit_prm.reproduce.metrics import Result, Results, at, bon, grown_arms, prompts_of
from implicit_prm.reproduce.prm_study import UNTRAINED
from tenfold import Estimate, Figure
from tenfold.figures import INK, MUTED, PALETTE, save

Metrics = Mapping[str, Estimate]

HOWS = {
    "min": "lowest step reward (paper)",
    "sum": "outcome reward, the sum",
    "mean": "mean step reward",
    "last": "last step's reward",
    "min_q": "lowest Q-value",
    "softmin(0.1)": "soft minimum, 0.1",
}
PAPER = {"dpo": 50.4, "nca": 49.4, "ce": 48.4, "kto": 45.7}
"""Table 1, means of the columns."""


def heat_map(results: Mapping[int, Result], folder: Path, name: str = "heat_map") -> Figure:
    """Step rewards of some responses, with the first error of each marked."""
    rows = next(iter(results.values()))["examples"]
    width = max(len(row["rewards"]) for row in rows)
    table = np.full((len(rows), width), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(row["rewards"])] = row["rewards"]
    canvas = Canvas(figsize=(9, 0.34 * len(rows) + 1.5), layout="constrained")
    axes = canvas.subplots()
    span = float(np.nanquantile(np.abs(table), 0.97)) or 1.0
    image = axes.imshow(table, cmap="RdBu", vmin=-span, vmax=span, aspect="auto")
    for place, row in enumerate(rows):
        steps = _steps(row["completion"], len(row["rewards"]))
        for step, text in enumerate(steps):
            light = abs(table[place, step]) > 0.6 * span
            axes.text(
                step, place, text, ha="center", va="center", fontsize=8.5, color="white" if light else INK
            )
        if 0 <= row["first_error"] < len(steps):
            at_error = (row["first_error"] - 0.5, place - 0.5)
            axes.add_patch(_frame(at_error))
    axes.set_yticks(range(len(rows)), ["right" if row["correct"] else "wrong" for row in rows], fontsize=8.5)
    axes.set_xticks(range(width), [f"step {step + 1}" for step in range(width)])
    axes.grid(visible=False)
    canvas.colorbar(image, ax=axes, label="reward of the step", shrink=0.8)
    axes.set_title("Rewards of single steps, learned from labels of whole responses")
    caption = (
        "Responses of the generator, a row each, a step a cell; frames: the true first error, which no label "
        "of the training data told. Blue: the model, trained on outcomes, likes the step better than the "
        "reference does."
    )
    return Figure(save(canvas, folder, name), caption)


def roc_curves(results: Results, main: str, metrics: Metrics, folder: Path) -> Figure:
    """How well the rewards of steps find the first error, with and without training and reference."""
    canvas = Canvas(figsize=(6.4, 4.6), layout="constrained")
    axes = canvas.subplots()
    for colour, label, arm, which in (
        (PALETTE[0], "with the reference", main, "with"),
        (PALETTE[2], "without the reference", main, "without"),
        (PALETTE[1], "untrained likelihood", UNTRAINED, "without"),
    ):
        found = [at(result)[which] for result in results[arm].values()]
        area = np.mean([one["step_auc"] for one in found])
        for number, one in enumerate(found):
            text = f"{label}: AUC {area:.3f}" if number == 0 else None
            axes.plot(one["roc"]["false"], one["roc"]["true"], color=colour, linewidth=1.2, label=text)
    axes.plot([0, 1], [0, 1], ":", color=MUTED)
    axes.set(xlabel="share of right steps below the threshold", ylabel="share of first errors found")
    axes.legend(loc="lower right")
    held = metrics["step_auc"].mean >= 0.95 and metrics["step_auc"].mean > metrics["step_auc_untrained"].mean
    says = "find the first error" if held else "do not find the first error well enough (C1 did not hold)"
    axes.set_title(f"Step rewards {says}")
    caption = "Over the steps up to the first error; a line a seed."
    return Figure(save(canvas, folder, "roc"), caption)


def best_of_n(
    results: Results, main: str, name: str, task: str, metrics: Metrics, folder: Path, prefix: str = ""
) -> Figure:
    """Accuracy against n: every aggregation, with and without the reference, votes, and what is possible."""
    canvas = Canvas(figsize=(10.5, 4.6), layout="constrained")
    panels: Sequence[Axes] = canvas.subplots(1, 2, sharey=True)
    ours = [at(result) for result in results[main].values()]
    bare = [at(result)["without"] for result in results[UNTRAINED].values()]
    for axes, which, title in zip(
        panels, ("with", "without"), ("with the reference", "without the reference"), strict=True
    ):
        for colour, (how, label) in zip(PALETTE, HOWS.items(), strict=False):
            _curve(axes, [one[which]["best"][how] for one in ours], colour, label, band=how == "min")
        _curve(axes, [one[which]["weighted"] for one in ours], INK, "vote weighted by the outcome", "-.")
        _curve(axes, [one["majority"] for one in ours], INK, "majority vote", "--")
        _curve(axes, [one["best"]["min"] for one in bare], MUTED, "untrained likelihood, lowest step", ":")
        _curve(axes, [one["oracle"] for one in ours], MUTED, "the best there is", "-")
        axes.set(xlabel="responses, n", xscale="log")
        ns = SIZES[: len(ours[0]["oracle"])]
        axes.set_xticks(ns, [str(n) for n in ns])
        axes.minorticks_off()
        axes.set_title(title)
    panels[0].set_ylabel("right answers (%)")
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    ahead = metrics[f"{prefix}bon16_minus_majority16"].mean
    says = f"best-of-16 is {abs(ahead):.1f} points {'above' if ahead > 0 else 'below'} the majority vote"
    canvas.suptitle(f"{task}: {says}", x=0.01, ha="left", fontsize=12)
    caption = "Means over seeds; band: their range, of the lowest step reward."
    return Figure(save(canvas, folder, name), caption)


def losses(results: Results, metrics: Metrics, folder: Path) -> Figure:
    """Best-of-16 of every arm, beside the paper's order of the losses."""
    arms = [arm for arm in results if arm != UNTRAINED]
    arms.sort(key=lambda arm: metrics[f"bon16_{arm}"].mean)
    canvas = Canvas(figsize=(9.5, 0.36 * len(arms) + 1.8), layout="constrained")
    axes, paper = canvas.subplots(1, 2, width_ratios=(2, 1))
    for place, arm in enumerate(arms):
        for shift, which, colour in ((0.18, "with", PALETTE[0]), (-0.18, "without", PALETTE[2])):
            found = [bon(at(result)[which]) for result in results[arm].values()]
            label = f"{which} the reference" if place == 0 else None
            axes.barh(place + shift, np.mean(found), 0.34, color=colour, alpha=0.8, label=label)
            axes.plot(found, [place + shift] * len(found), ".", color=INK, markersize=4)
    axes.set_yticks(range(len(arms)), arms)
    axes.axvline(metrics["pass1"].mean, color=MUTED, linestyle=":", label="pass@1")
    axes.axvline(metrics["majority16"].mean, color=INK, linestyle="--", label="majority of 16")
    axes.set(xlabel="best-of-16 by the lowest step reward (%)", xlim=(0, 100))
    order = sorted(PAPER, key=lambda loss: PAPER[loss])
    paper.plot([PAPER[loss] for loss in order], order, "o", color=PALETTE[1])
    paper.margins(y=0.3)
    paper.set(xlabel="the paper's Table 1, mean (%)", xlim=(40, 52))
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    canvas.suptitle(f"Losses and sizes: {arms[-1]} is best", x=0.01, ha="left", fontsize=12)
    caption = "Loss, prompts x responses; dots: seeds. The order of the losses need not be the paper's (R3)."
    return Figure(save(canvas, folder, "losses"), caption)


def scaling(results: Results, metrics: Metrics, folder: Path) -> list[Figure]:
    """Best-of-16 and the AUC of steps against the number of prompts, CE on 8 responses to each."""
    arms = grown_arms(results)
    if len(arms) < 3:
        return []
    canvas = Canvas(figsize=(10, 4.6), layout="constrained")
    chosen, steps = canvas.subplots(1, 2)
    prompts = [prompts_of(arm) for arm in arms]
    for axes, key in ((chosen, "bon16"), (steps, "step_auc")):
        means = [metrics[f"{key}_{arm}"].mean for arm in arms]
        axes.plot(prompts, means, "o-", color=PALETTE[0], label="CE, 8 responses a prompt")
        for count, arm in zip(prompts, arms, strict=True):
            samples = metrics[f"{key}_{arm}"].samples
            axes.plot([count] * len(samples), samples, ".", color=INK, markersize=4)
        for colour, arm in zip(PALETTE[1:], ("ce-500x1", "ce-4000x1"), strict=False):
            if arm in results:
                axes.plot(prompts_of(arm), metrics[f"{key}_{arm}"].mean, "s", color=colour, label=arm)
        axes.set(xlabel="prompts", xscale="log")
        axes.set_xticks(prompts, [f"{count:,}" for count in prompts])
        axes.minorticks_off()
    chosen.axhline(metrics["pass1"].mean, color=MUTED, linestyle=":", label="pass@1")
    chosen.axhline(metrics["oracle16"].mean, color=MUTED, label="the best there is")
    bare = steps.axhline(metrics["step_auc_untrained"].mean, color=MUTED, linestyle="--")
    chosen.set_ylabel("best-of-16 (%)")
    steps.set_ylabel("AUC of first errors")
    handles, labels = chosen.get_legend_handles_labels()
    canvas.legend([*handles, bare], [*labels, "untrained likelihood"], loc="outside lower center", ncols=3)
    fell = metrics["smallest_bon16_step"].mean < -2
    says = "does not always help (C4 did not hold)" if fell else "helps"
    canvas.suptitle(f"More data {says}", x=0.01, ha="left", fontsize=12)
    return [Figure(save(canvas, folder, "scaling"), "Dots: seeds.")]


def over_optimization(results: Mapping[int, Result], metrics: Metrics, folder: Path) -> list[Figure]:
    """Best-of-n at temperature 1, where rare tokens are drawn, beside that at 0.5."""
    if "t1_bon64_minus_bon4" not in metrics:
        return []
    canvas = Canvas(figsize=(9.5, 4.2), layout="constrained")
    panels: Sequence[Axes] = canvas.subplots(1, 2, sharey=True)
    for axes, temperature in zip(panels, ("0.5", "1"), strict=True):
        found = [at(result, temperature) for result in results.values()]
        for colour, which in ((PALETTE[0], "with"), (PALETTE[2], "without")):
            curves = [one[which]["best"]["min"] for one in found]
            _curve(axes, curves, colour, f"lowest step reward, {which} the reference", band=True)
        _curve(axes, [one["with"]["best"]["sum"] for one in found], PALETTE[1], "outcome reward, with")
        _curve(axes, [one["majority"] for one in found], INK, "majority vote", "--")
        axes.set(xlabel="responses, n", xscale="log")
        axes.set_xticks(SIZES, [str(n) for n in SIZES])
        axes.minorticks_off()
        axes.set_title(f"temperature {temperature}")
    panels[0].set_ylabel("right answers (%)")
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    change = metrics["t1_bon64_minus_bon4"].mean
    says = f"{'adds' if change > 0 else 'costs'} {abs(change):.1f} points at temperature 1"
    canvas.suptitle(f"Over-optimisation: from 4 to 64 responses {says}", x=0.01, ha="left", fontsize=12)
    caption = (
        "Bands: the range of the seeds. At temperature 1 rare tokens come up, whose ratios nobody trained."
    )
    return [Figure(save(canvas, folder, "over_optimization"), caption)]


def _curve(
    axes: Axes,
    curves: Sequence[Sequence[float]],
    colour: str,
    label: str,
    line: str = "-",
    *,
    band: bool = False,
) -> None:
    table = np.array(curves)
    ns = SIZES[: table.shape[1]]
    width = 2.2 if band else 1.4
    axes.plot(ns, table.mean(0), line, color=colour, label=label, linewidth=width)
    if band:
        axes.fill_between(ns, table.min(0), table.max(0), color=colour, alpha=0.15, linewidth=0)


def _steps(completion: str, count: int) -> list[str]:
    steps = completion.split() if ";" not in completion else completion.removesuffix(";").split(";")
    return steps[:count]


def _frame(corner: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=2)
