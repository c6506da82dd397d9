"""The figures of the report. Where a claim of the paper does not hold, the title says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from implicit_prime.reproduce.claims import MORE_AREA
from implicit_prime.reproduce.metrics import MAIN, OFFLINE, OUTCOMES, PHASES, Result, Results
from tenfold import Estimate, Figure, Records
from tenfold.figures import INK, MUTED, PALETTE, save, style
from tenfold.trials import by_arm

if TYPE_CHECKING:
    from implicit_prime.reproduce.experiment import ExperimentConfig

OFFICIAL = "prime-batch-max"
LABELS = {
    OUTCOMES: "outcomes alone (RLOO)",
    MAIN: "PRIME, the paper's form",
    OFFICIAL: "PRIME, the official code's form",
    OFFLINE: "PRIME, offline PRM",
}
COLOURS = dict(zip(LABELS, PALETTE, strict=False))
WORDS = {
    "supports": "more than",
    "no difference": "no different from",
    "contradicts": "less than",
}


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    results = by_arm(records.results(), "training")
    with style():
        return [
            learning(results, metrics, folder),
            areas(metrics, folder),
            reward_model(results, metrics, folder),
            phases(results, metrics, folder),
            heat_map(next(iter(results[MAIN].values())), folder),
        ]


def learning(results: Results, metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """Accuracy against responses drawn and against time; bands from the least seed to the greatest."""
    canvas = Canvas(figsize=(10.5, 4.4), layout="constrained")
    panels: Sequence[Axes] = canvas.subplots(1, 2, sharey=True)
    for arm, seeds in results.items():
        if arm not in LABELS:
            continue
        for axes, along in zip(panels, ("rollouts", "seconds"), strict=True):
            _band(axes, list(seeds.values()), along, COLOURS[arm], LABELS[arm])
    panels[0].set(xlabel="responses drawn, filtered ones included", ylabel="accuracy at temperature 1 (%)")
    panels[1].set(xlabel="seconds of training")
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    area = metrics[f"area_{MAIN}_minus_{OUTCOMES}"]
    word = "compared with" if len(area.samples) < 2 else WORDS[MORE_AREA.word(area)]
    canvas.suptitle(
        f"PRIME learns {word} outcomes alone from as many responses ({area.mean:+.1f} points)",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    caption = "Means over seeds of responses to 256 fixed prompts; bands: the seeds' range."
    return Figure(save(canvas, folder, "learning"), caption)


def areas(metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """Every arm with a PRM against its outcomes alone."""
    chosen = {
        name.removeprefix("area_").replace("_minus_", " against ").replace("_on_", ", "): found
        for name, found in metrics.items()
        if name.startswith("area_") and not name.startswith("area_by_time_")
    }
    order = sorted(chosen, key=lambda name: chosen[name].mean)
    canvas = Canvas(figsize=(8.5, 0.34 * len(order) + 1.6), layout="constrained")
    axes = canvas.subplots()
    for place, name in enumerate(order):
        axes.barh(place, chosen[name].mean, 0.6, color=PALETTE[0], alpha=0.8)
        axes.plot(chosen[name].samples, [place] * len(chosen[name].samples), ".", color=INK, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("mean accuracy over responses drawn, difference in points")
    axes.set_title("What process rewards add to outcomes alone")
    return Figure(save(canvas, folder, "areas"), "Bars: means over seeds; dots: seeds, paired.")


def reward_model(results: Results, metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """Pair accuracy on the steps' own rollouts and AUC of single steps, online and offline."""
    canvas = Canvas(figsize=(10.5, 4.4), layout="constrained")
    pair, step = canvas.subplots(1, 2, sharey=True)
    for arm in (MAIN, OFFICIAL, OFFLINE):
        runs = list(results.get(arm, {}).values())
        if not runs:
            continue
        found = np.array([run["steps"]["prm/accuracy"] for run in runs], float)
        steps = np.arange(1, found.shape[1] + 1)
        pair.plot(steps, found.mean(0), color=COLOURS[arm], label=LABELS[arm], linewidth=1.2)
        pair.fill_between(steps, found.min(0), found.max(0), color=COLOURS[arm], alpha=0.12, linewidth=0)
        _band(step, runs, "step", COLOURS[arm], LABELS[arm], "step_auc")
    for axes in (pair, step):
        axes.axhline(0.5, color=MUTED, linestyle=":")
        axes.set_xlabel("step")
    pair.set(ylabel="of pairs, or AUC", title="right responses above wrong ones")
    step.set(title="right steps above wrong ones")
    canvas.legend(*pair.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    late = metrics["prm_accuracy"].mean
    canvas.suptitle(f"The online PRM is right in {late:.0%} of pairs late", x=0.01, ha="left", fontsize=12)
    caption = "Before the PRM is trained on what it is asked about; bands: the seeds' range; dotted: chance."
    return Figure(save(canvas, folder, "reward_model"), caption)


def phases(results: Results, metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """Where the time of a step goes (Table 2)."""
    arms = [arm for arm in LABELS if arm in results]
    canvas = Canvas(figsize=(8.5, 0.5 * len(arms) + 1.8), layout="constrained")
    axes = canvas.subplots()
    left = np.zeros(len(arms))
    for colour, phase in zip(PALETTE, (*PHASES, "other"), strict=False):
        if phase == "other":
            width = np.array([metrics[f"seconds_step_{arm}"].mean for arm in arms]) - left
            width = np.maximum(width, 0.0)
        else:
            width = np.array([metrics[f"seconds_{phase}_{arm}"].mean for arm in arms])
        axes.barh(range(len(arms)), width, 0.6, left=left, color=colour, label=phase)
        left = left + width
    axes.set_yticks(range(len(arms)), [LABELS[arm] for arm in arms])
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a step")
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    axes.set_title(f"A step of PRIME takes {metrics['step_time_ratio'].mean:.2f} times one of RLOO")
    return Figure(save(canvas, folder, "phases"), "Medians over steps, means over seeds. The paper: 1.28.")


def heat_map(run: Result, folder: Path) -> Figure:
    """Rewards of the tokens of some responses at the beginning, in the middle and at the end."""
    places = sorted({0, len(run["examples"]) // 2, len(run["examples"]) - 1})
    canvas = Canvas(figsize=(11, 3.4), layout="constrained")
    panels = np.atleast_1d(canvas.subplots(1, len(places)))
    tables = [_table(run["examples"][place]) for place in places]
    span = max(float(np.nanquantile(np.abs(table), 0.97)) for table in tables) or 1.0
    image: Any = None
    for axes, place, table in zip(panels, places, tables, strict=True):
        image = axes.imshow(table, cmap="RdBu", vmin=-span, vmax=span, aspect="auto")
        for row, example in enumerate(run["examples"][place]):
            wrong = [step for step, right in enumerate(example["right"]) if not right]
            axes.plot(wrong, [row] * len(wrong), ".", color=INK, markersize=4)
        axes.set(xlabel="token", title=f"after step {run['judged']['step'][place]}", yticks=[])
        axes.grid(visible=False)
    canvas.colorbar(image, ax=list(panels), label="reward", shrink=0.9)
    caption = (
        "Responses to the same prompts, a row each; dots: wrong steps, which nothing told the PRM of. At the "
        "beginning the PRM equals its reference, and all rewards are 0."
    )
    return Figure(save(canvas, folder, "heat_map"), caption)


def _band(
    axes: Axes, runs: Sequence[Result], along: str, colour: str, label: str, what: str = "accuracy"
) -> None:
    """The mean of the runs over what is common to all, and their range."""
    end = min(run["judged"][along][-1] for run in runs)
    points = np.linspace(0, end, 101)
    table = np.array(
        [np.interp(points, run["judged"][along], np.array(run["judged"][what], float)) for run in runs]
    )
    axes.plot(points, table.mean(0), color=colour, label=label)
    axes.fill_between(points, table.min(0), table.max(0), color=colour, alpha=0.15, linewidth=0)


def _table(examples: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    table = np.full((len(examples), max(len(example["rewards"]) for example in examples)), np.nan)
    for row, example in enumerate(examples):
        table[row, : len(example["rewards"])] = example["rewards"]
    return table
