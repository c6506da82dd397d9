"""The figures of the report: curves, perplexity against size, the sweep, step times, spectra.

A training that diverged is in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lpa.reproduce.arms import ARMS, ATTENTION
from tenfold import Estimate, Figure, Records, Trial
from tenfold.figures import PALETTE, save, style

if TYPE_CHECKING:
    from lpa.reproduce.experiment import ExperimentConfig

COLOURS = dict(zip(ARMS, PALETTE, strict=False))


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    rates = {arm: metrics[f"learning_rate_{arm.replace('-', '_')}"].mean for arm in config.arms}
    drawn = []
    with style():
        for draw in (curves, quality, sweep, step_times, spectra):
            drawn.append(draw(config, rates, records, folder))
    return drawn


def curves(config: ExperimentConfig, rates: Mapping[str, float], records: Records, folder: Path) -> Figure:
    """Validation loss against tokens and against seconds, mean over seeds with their range."""
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    by_tokens, by_seconds = canvas.subplots(1, 2, sharey=True)
    for arm in config.arms:
        trained = {trial.seed for trial, _ in trained_at(rates[arm], arm, records)}
        curves = records.curves(arm, stage=stage(rates[arm]))
        seeds = [curve for seed, curve in curves.items() if seed in trained]
        if not seeds:
            continue
        loss = np.array([curve["valid_loss"] for curve in seeds])
        tokens = seeds[0]["tokens"]
        seconds = np.mean([curve["seconds"] for curve in seeds], axis=0)
        for axes, x in ((by_tokens, tokens), (by_seconds, seconds)):
            axes.plot(x, loss.mean(0), color=COLOURS[arm], label=arm)
            axes.fill_between(x, loss.min(0), loss.max(0), color=COLOURS[arm], alpha=0.15, linewidth=0)
    by_tokens.set(xlabel="tokens", ylabel="validation loss (nats per token)")
    by_seconds.set(xlabel="training seconds, one core")
    by_seconds.legend()
    if lasts := [line.get_ydata()[-1] for line in by_tokens.lines]:
        by_tokens.set_ylim(min(lasts) - 0.1, min(lasts) + 2.0)
    caption = (
        "Validation loss of each arm at its best learning rate; line: mean over seeds, band: their range."
    )
    return Figure(save(canvas, folder, "curves"), caption)


def quality(config: ExperimentConfig, rates: Mapping[str, float], records: Records, folder: Path) -> Figure:
    """Test perplexity against parameters outside the embeddings."""
    canvas = Canvas(figsize=(7, 3.8), layout="constrained")
    axes = canvas.subplots()
    for arm in config.arms:
        results = [result for _, result in trained_at(rates[arm], arm, records)]
        if not results:
            continue
        size = results[0]["block_parameters"] / 1e3
        ppl = [result["test_ppl"] for result in results]
        axes.plot([size] * len(ppl), ppl, "o", color=COLOURS[arm], alpha=0.45, markersize=5)
        axes.plot(
            [size], [np.mean(ppl)], "_", color=COLOURS[arm], markersize=22, markeredgewidth=2.5, label=arm
        )
    axes.set(xlabel="parameters outside the embeddings (thousands)", ylabel="test perplexity")
    axes.legend(ncols=2)
    caption = "Test perplexity against size; dots: seeds, bars: means. Lower and further left is better."
    return Figure(save(canvas, folder, "quality"), caption)


def sweep(config: ExperimentConfig, rates: Mapping[str, float], records: Records, folder: Path) -> Figure:
    """The learning-rate sweep: loss on the choosing text against the rate."""
    canvas = Canvas(figsize=(7, 3.6), layout="constrained")
    axes = canvas.subplots()
    for arm in config.arms:
        losses = {
            rate: result["choice_loss"]
            for rate in config.learning_rates
            for trial, result in trained_at(rate, arm, records)
            if trial.seed == config.seeds[0]
        }
        if not losses:
            continue
        points = sorted(losses.items())
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[arm], label=arm, markersize=4)
        axes.plot([rates[arm]], [losses[rates[arm]]], "o", color=COLOURS[arm], markersize=9, fillstyle="none")
    axes.set(xlabel="learning rate", ylabel="validation loss (nats per token)", xscale="log")
    axes.set_xticks(config.learning_rates, [f"{rate:g}" for rate in config.learning_rates])
    axes.minorticks_off()
    axes.legend(ncols=2)
    caption = (
        "The learning-rate sweep with the first seed, the same rates for all; a ring marks the rate chosen."
    )
    return Figure(save(canvas, folder, "sweep"), caption)


def step_times(
    config: ExperimentConfig, rates: Mapping[str, float], records: Records, folder: Path
) -> Figure:
    """Measured time of LPA's block stack over dense, beside the FLOP model, against the rank."""
    canvas = Canvas(figsize=(6, 3.4), layout="constrained")
    axes = canvas.subplots()
    rounds: dict[int, list[dict[str, Any]]] = {}
    for trial, result in records.results().items():
        if trial.stage == "step_time_minus_prediction":
            rounds.setdefault(trial.settings["rank"], []).append(result)
    ranks = sorted(rounds)
    measured = [[result["step_time_ratio"] for result in rounds[rank]] for rank in ranks]
    for rank, ratios in zip(ranks, measured, strict=True):
        axes.plot([rank] * len(ratios), ratios, "o", color=COLOURS["lpa"], alpha=0.6)
    axes.plot(ranks, np.median(measured, axis=1), color=COLOURS["lpa"], label="measured")
    axes.plot(
        ranks, [rounds[rank][0]["predicted_ratio"] for rank in ranks], "k--s", markersize=4, label="FLOPs"
    )
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set(xlabel="rank", ylabel="time of LPA / time of dense")
    axes.legend()
    width, layers = config.timing.shape["hidden_size"], config.timing.block_layers
    caption = f"Forward and backward, {layers} block(s) of width {width}: time ratio, measured and predicted."
    return Figure(save(canvas, folder, "step_times"), caption)


def spectra(config: ExperimentConfig, rates: Mapping[str, float], records: Records, folder: Path) -> Figure:
    """Singular values of the trained attention matrices, dense and LPA."""
    canvas = Canvas(figsize=(9, 2.8), layout="constrained")
    panels: list[Axes] = list(canvas.subplots(1, len(ATTENTION), sharey=True))
    for arm in ("dense", "dense-scaled", "lpa"):
        trained = {trial.seed: result for trial, result in trained_at(rates[arm], arm, records)}
        if config.seeds[0] not in trained:
            continue
        spectrum = trained[config.seeds[0]]["spectrum"]
        for axes, name in zip(panels, ATTENTION, strict=True):
            axes.plot(np.arange(1, len(spectrum[name]) + 1), spectrum[name], color=COLOURS[arm], label=arm)
            axes.set(title=name, yscale="log", ylim=(1e-3, 1.2), xlabel="index")
    panels[0].set_ylabel("singular value / largest")
    panels[-1].legend()
    caption = (
        "Singular values of the trained attention matrices (B A for LPA), averaged over layers, first seed."
    )
    return Figure(save(canvas, folder, "spectra"), caption)


def trained_at(rate: float, arm: str, records: Records) -> list[tuple[Trial, dict[str, Any]]]:
    """The trials of an arm at a rate, with their results; not those that diverged."""
    return [
        (trial, result)
        for trial, result in records.results().items()
        if (trial.arm, trial.stage) == (arm, stage(rate)) and "diverged_at_step" not in result
    ]


def stage(rate: float) -> str:
    """The stage of a training trial: the rate it trains at."""
    return f"lr {rate:g}"
