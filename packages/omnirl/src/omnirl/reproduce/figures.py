"""The figures of the report. Where a claim of the paper does not hold, the numbers show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from omnirl.inference.animation import animate_lake
from omnirl.inference.live import Episode
from omnirl.reproduce import contexts, playing, training, worlds
from omnirl.reproduce.metrics import Results
from tenfold import Estimate, Figure, Records
from tenfold.figures import MUTED, PALETTE, save, style
from tenfold.trials import by_arm

if TYPE_CHECKING:
    from omnirl.reproduce.experiment import ExperimentConfig

LEARNERS = {"released": "Q-learning as released", "tuned": "Q-learning, tuned", "psrl": "PSRL"}
METHODS = {"dpd": "DPD", "dpd_untagged": "DPD, no tags", "dpt": "DPT", "ad": "AD", "ad_eps": "AD-eps"}
STARTS = {
    "online": "online, last 100 steps",
    "noisy": "after a noisy teacher",
    "imitation": "after the oracle",
}


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    found = records.results()
    played = by_arm(found, playing.STAGE)
    with style():
        drawn = [
            learning_curves(played, folder),
            start_curves(played, folder),
            lakes(played, folder),
            film(by_arm(found, playing.FILM), config.film_model or "the model of this run", folder),
            stationary(by_arm(found, worlds.STAGE), folder),
            cross_entropy(by_arm(found, contexts.STAGE), folder),
            training_loss(records, folder),
        ]
        if "online_dpd" in metrics:
            drawn.append(methods(metrics, folder))
        if config.pools is not None:
            drawn.append(pools(config.pools.sizes, metrics, folder))
    return drawn


def learning_curves(played: Results, folder: Path) -> Figure:
    """Online scores by step in context: the model and the tabular learners."""
    canvas, axes = _canvas()
    ours = "online_long" if "online_long" in played else "online"
    _score_curve(axes, _first(played[ours]), "OmniRL, frozen")
    for name, label in LEARNERS.items():
        _score_curve(axes, _first(played[name]), label)
    _score_axes(axes)
    caption = (
        "Online, from an empty memory: mean score of 128 unseen tasks with its 95% interval. The tabular "
        "learners begin with empty tables. 0 is the random policy, 1 the oracle."
    )
    return Figure(save(canvas, folder, "learning_curves"), caption)


def start_curves(played: Results, folder: Path) -> Figure:
    """Scores after demonstrations, with the teachers' own."""
    canvas, axes = _canvas()
    labels = {
        "imitation": "oracle",
        "noisy": "oracle with 70% noise",
        "noisy_untagged": "the same, tags hidden",
        "offline_random": "random policy",
        "offline_random_hidden": "the same, rewards hidden",
    }
    for index, (arm, label) in enumerate(labels.items()):
        result = _first(played[arm])
        _score_curve(axes, result, label, first_step=result["shown"])
        if arm in ("imitation", "noisy", "offline_random"):
            teacher = float(np.mean(result["teacher"]))
            axes.plot([0, result["shown"]], [teacher, teacher], color=f"C{index}", linestyle=":")
    _score_axes(axes)
    caption = (
        "After demonstrations in the context: dotted the teacher's own score while it is watched, then the "
        "model alone, on the same 128 unseen tasks."
    )
    return Figure(save(canvas, folder, "starts"), caption)


def lakes(played: Results, folder: Path) -> Figure:
    """Success on FrozenLake along the context, with the control."""
    canvas, axes = _canvas()
    labels = {"lake": "not slippery", "lake_hidden": "the same, rewards hidden", "lake_slippery": "slippery"}
    for arm, label in labels.items():
        result = _first(played[arm])
        values = [np.nan if value is None else value for value in result["curve"]]
        axes.plot(_centres(result), values, label=label)
    axes.axhline(0.0139, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set(xlabel="step in context", ylabel="share of episodes at the goal", ylim=(0, 1))
    axes.legend()
    caption = (
        "FrozenLake, never trained on, with other names of states and actions in every run: success of the "
        "episodes that end in each part of the context. Dotted: a random policy. The oracle has 1, on ice "
        "0.744."
    )
    return Figure(save(canvas, folder, "frozen_lake"), caption)


def film(found: Results, model: str, folder: Path) -> Figure:
    """The first three episodes of a run of FrozenLake beside its last three, animated."""
    result = _first(found["lake"])
    episodes = [
        Episode(number, raw, raw, tuple(way))
        for number, (way, raw) in enumerate(zip(result["ways"], result["raw"], strict=True))
    ]
    caption = (
        f"One run of FrozenLake by {model}, parameters frozen: the first three of {len(episodes)} episodes, "
        "from an empty context, beside the last three. What lies between was learnt in the context alone."
    )
    return Figure(animate_lake(episodes[:3], episodes[-3:], folder / "frozen_lake_film.gif"), caption)


def stationary(found: Results, folder: Path) -> Figure:
    """How often a random policy is in each state, from the rarest to the most frequent."""
    canvas, axes = _canvas()
    for family, label in (("anymdp", "AnyMDP (16, 5)"), ("garnet", "Garnet (16, 5, 2)")):
        values = _first(found[family])["sorted"]
        axes.semilogy(np.arange(1, len(values) + 1), values, marker="o", markersize=4, label=label)
    axes.set(xlabel="state, from the rarest", ylabel="probability")
    axes.legend()
    caption = "Where a random policy is found: geometric means over 64 tasks of the sorted probabilities."
    return Figure(save(canvas, folder, "stationary"), caption)


def cross_entropy(found: Results, folder: Path) -> Figure:
    """Cross-entropy of the reference action against the position in the context, on a logarithmic scale."""
    canvas, axes = _canvas()
    for arm, label in {"main": "the model", **{a: a.replace("_", " ") for a in found if a != "main"}}.items():
        result = _first(found[arm])
        axes.semilogx(_centres(result), result["cross_entropy"], label=label)
    axes.set(xlabel="position in context (log)", ylabel="cross-entropy, nats")
    axes.legend(ncols=2 if len(found) > 2 else 1)
    caption = (
        "Cross-entropy of the oracle's action along contexts made by the behaviour policies of training, up "
        "to four times the trained length."
    )
    return Figure(save(canvas, folder, "cross_entropy"), caption)


def training_loss(records: Records, folder: Path) -> Figure:
    """The loss of every training."""
    canvas, axes = _canvas()
    for number, arm in enumerate(records.arms(training.STAGE)):
        dashes = "-" if number < len(PALETTE) else ":"  # from here on the colours repeat
        for steps, losses in records.curve(arm, "loss", stage=training.STAGE).values():
            axes.plot(steps, losses, dashes, color=f"C{number}", label=arm.replace("_", " "))
    axes.set(xlabel="update", ylabel="policy loss, nats")
    axes.legend(ncols=2)
    caption = (
        "Training: the policy's loss, weighted by position. Learning in context begins where it falls. "
        "Methods and numbers of worlds have labels of their own, so heights compare only where these are "
        "the same."
    )
    return Figure(save(canvas, folder, "training_loss"), caption)


def methods(metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """Bars: methods by start (the paper's figure 6)."""
    canvas, axes = _canvas()
    width = 0.8 / len(METHODS)
    for number, (method, label) in enumerate(METHODS.items()):
        found = [metrics[f"{start}_{method}"] for start in STARTS]
        error = [0.0 if one.high is None else one.high - one.mean for one in found]
        at = np.arange(len(STARTS)) + width * (number - (len(METHODS) - 1) / 2)
        axes.bar(at, [one.mean for one in found], width, yerr=error, label=label)
    axes.set_xticks(range(len(STARTS)), list(STARTS.values()))
    axes.set(ylabel="normalised score")
    axes.legend(ncols=2)
    caption = "Five ways to make the training data, equal updates; 128 unseen tasks with 95% intervals."
    return Figure(save(canvas, folder, "methods"), caption)


def pools(sizes: tuple[int, ...], metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """Gain within the context against the number of training tasks (the paper's figure 7)."""
    canvas, axes = _canvas()
    for name in ("seen", "unseen"):
        axes.semilogx(
            sizes, [metrics[f"{name}_gain_{size}"].mean for size in sizes], marker="o", label=f"{name} tasks"
        )
    axes.set(xlabel="training tasks (log)", ylabel="1 - loss at the end / loss at the start")
    axes.legend()
    caption = "How much of the loss the context takes away, on tasks of the training and on new ones."
    return Figure(save(canvas, folder, "pools"), caption)


def _canvas() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(7, 3.8))
    return canvas, canvas.subplots()


def _first(seeds: Mapping[int, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(seeds.values()))


def _centres(result: Mapping[str, Any]) -> np.ndarray:
    key = "curve" if "curve" in result else "cross_entropy"
    return result["window"] * (np.arange(len(result[key])) + 0.5)


def _score_curve(axes: Axes, result: Mapping[str, Any], label: str, first_step: int = 0) -> None:
    at, mean, half = first_step + _centres(result), np.array(result["curve"]), np.array(result["half"])
    (line,) = axes.plot(at, mean, label=label)
    axes.fill_between(at, mean - half, mean + half, alpha=0.15, color=line.get_color(), linewidth=0)


def _score_axes(axes: Axes) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.8, linestyle=":")
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set(xlabel="step in context", ylabel="normalised score")
    axes.legend()
