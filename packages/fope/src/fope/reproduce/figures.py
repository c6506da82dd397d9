"""The figures of the report. Where a claim of the paper does not hold, the title says so."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from fope.reproduce.claims import CLAIMS
from fope.reproduce.language import GAINS, MULTIPLES
from fope.reproduce.spectra import spectrum, toy
from tenfold import Estimate, Figure, Records
from tenfold.figures import MUTED, PALETTE, save, style, title

if TYPE_CHECKING:
    from fope.reproduce.experiment import ExperimentConfig

LOOKS: Mapping[str, tuple[str, str, str]] = {
    "rope": ("RoPE", PALETTE[1], "-"),
    "fope": ("FoPE", PALETTE[0], "-"),
    "cf": ("CF only (clipped, no series)", PALETTE[2], "-"),
    "fs": ("FS only (series, not clipped)", PALETTE[3], "-"),
    "fope-zeta0": ("FoPE, ζ = 0", PALETTE[5], "--"),
    "rope_a": ("RoPE-A", PALETTE[4], "--"),
    "alibi": ("ALiBi", PALETTE[6], "--"),
    "nope": ("NoPE", PALETTE[7], "--"),
    "kerple": ("KERPLE", "#999933", ":"),
    "fire": ("FIRE", "#117733", ":"),
}
SPLITS = {"valid": "text of the kind trained on", "heldout": "a held-out library", "books": "books"}

CLAIM = {claim.id: claim for claim in CLAIMS}
FIRST_POSITION = 16  # before it there is too little to read from

Results = Mapping[str, Sequence[Mapping[str, Any]]]


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    results = by_arm(records)
    drawn: list[Figure] = []
    with style():
        drawn += [
            perplexity_by_length(config, metrics, results, folder),
            loss_by_position(config, metrics, results, folder),
        ]
        if all("heldout" in result["losses"] for found in results.values() for result in found):
            drawn.append(perplexity_ratio(config, metrics, results, folder))
        if any("passkey" in result for found in results.values() for result in found):
            drawn.append(passkey(config, metrics, results, folder))
        if config.gains:
            drawn.append(gains(config, metrics, folder))
        drawn += [spectrum(config.shape["head_dim"], config.context_length, folder), toy(folder)]
    return drawn


def by_arm(records: Records) -> Results:
    """The results of the arms, without the sweeps: {arm: one result a seed}."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for trial, result in records.results().items():
        if not trial.stage:
            arms.setdefault(trial.arm, []).append(result)
    return {arm: arms[arm] for arm in LOOKS if arm in arms}


def perplexity_by_length(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], results: Results, folder: Path
) -> Figure:
    """Perplexity against the length of the windows, a panel a text."""
    splits = [split for split in SPLITS if all(split in found[0]["losses"] for found in results.values())]
    canvas = Canvas(figsize=(3.3 * len(splits) + 1, 4.4), layout="constrained")
    panels = canvas.subplots(1, len(splits), squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        for arm, found in results.items():
            label, colour, line = LOOKS[arm]
            ppl = np.exp([_across(result["losses"][split], config) for result in found])
            axes.plot(
                _lengths(config), ppl.mean(0), line, color=colour, label=label, marker="o", markersize=3.5
            )
            axes.fill_between(_lengths(config), ppl.min(0), ppl.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set(title=SPLITS[split], xlabel="length of the context (bytes)", yscale="log")
        _length_axis(axes, config)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    panels[0].set_ylabel("perplexity (a byte)")
    _legend_below(canvas, panels[0])
    says = title(
        CLAIM["A"],
        metrics,
        "Beyond its training length FoPE degrades less than RoPE",
        "FoPE does not degrade 0.7 times as fast as RoPE or less: claim A did not hold",
        "Perplexity beyond the training length",
    )
    if CLAIM["E1"].holds(metrics) is False:
        says += "; the series alone (FS) is no better than RoPE, seed by seed"
    canvas.suptitle(says, x=0.01, ha="left", fontsize=12)
    caption = (
        f"Perplexity of windows of each length; trained at {config.context_length} bytes (dotted). "
        "Lines: means over seeds; bands: their range."
    )
    return Figure(save(canvas, folder, "perplexity_by_length"), caption)


def loss_by_position(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], results: Results, folder: Path
) -> Figure:
    """Loss at each position of the longest windows, averaged in bins that grow with the position."""
    canvas = Canvas(figsize=(8, 4.8), layout="constrained")
    axes = canvas.subplots()
    shown: list[float] = []
    for arm, found in results.items():
        label, colour, line = LOOKS[arm]
        loss = np.mean([result["positions"] for result in found], axis=0)
        edges = np.unique(np.geomspace(FIRST_POSITION, len(loss), 24).astype(int))
        binned = [loss[a - 1 : b - 1].mean() for a, b in itertools.pairwise(edges)]
        axes.plot(np.sqrt(edges[:-1] * edges[1:]), binned, line, color=colour, label=label)
        shown += binned
    axes.set(xlabel="position in the window", ylabel="loss (nats a byte)")
    axes.set_ylim(min(shown) - 0.1, max(shown) + 0.1)
    axes.set_xscale("log")
    axes.axvline(config.context_length, color=MUTED, linestyle=":", linewidth=1)
    _legend_below(canvas, axes)
    axes.set_title(f"Where the loss goes up: windows of {MULTIPLES[-1]} L")
    caption = (
        "Loss by position on text of the kind trained on, mean over seeds; dotted: the training length. "
        "A model that reads on stays where it was at the dotted line."
    )
    return Figure(save(canvas, folder, "loss_by_position"), caption)


def perplexity_ratio(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], results: Results, folder: Path
) -> Figure:
    """The paper's PPL ratio: held-out library over text of the kind trained on."""
    canvas = Canvas(figsize=(8, 4.8), layout="constrained")
    axes = canvas.subplots()
    for arm, found in results.items():
        label, colour, line = LOOKS[arm]
        logs = [
            _across(result["losses"]["heldout"], config) - _across(result["losses"]["valid"], config)
            for result in found
        ]
        axes.plot(
            _lengths(config), np.exp(logs).mean(0), line, color=colour, label=label, marker="o", markersize=4
        )
    axes.set(xlabel="length of the context (bytes)", ylabel="PPL held-out library / PPL valid")
    _length_axis(axes, config)
    _legend_below(canvas, axes)
    axes.set_title(
        title(
            CLAIM["E2"],
            metrics,
            "Out of distribution: FoPE's ratio at 16 L is below RoPE's",
            "Out of distribution: FoPE's ratio at 16 L is not below RoPE's (E2 did not hold)",
            "Out of distribution",
        )
    )
    caption = (
        "Perplexity on a library never trained on, over that on text of the kind trained on. A model that "
        "has lost its way on both has a low ratio too: read it beside the perplexities."
    )
    return Figure(save(canvas, folder, "perplexity_ratio"), caption)


def passkey(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], results: Results, folder: Path
) -> Figure:
    """Keys found, by depth and length, a panel an arm."""
    taught = {arm: found for arm, found in results.items() if all("passkey" in result for result in found)}
    canvas = Canvas(figsize=(max(6.5, 2.1 * len(taught) + 1.4), 3.8), layout="constrained")
    panels = canvas.subplots(1, len(taught), sharey=True, squeeze=False)[0]
    depths = config.passkey.depths if config.passkey else ()
    for axes, (arm, found) in zip(panels, taught.items(), strict=True):
        share = np.mean([[r["passkey"][str(n)] for n in _lengths(config)] for r in found], axis=0).T
        image = axes.imshow(share, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            ink = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(MULTIPLES)), [f"{multiple}L" for multiple in MULTIPLES])
        axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f}%" for depth in depths])
        axes.set_title(LOOKS[arm][0].split(" (")[0], fontsize=10)
        axes.grid(visible=False)
    panels[0].set_ylabel("depth of the key")
    canvas.supxlabel("length of the text", fontsize=10.5)
    canvas.colorbar(image, ax=list(panels), label="keys found", shrink=0.9)
    says = title(
        CLAIM["D"],
        metrics,
        "Passkey: at 4 L FoPE finds at least 20 points more than RoPE",
        "Passkey: at 4 L FoPE does not find 20 points more than RoPE (D did not hold)",
        "Passkey: void, RoPE and FoPE did not both learn it at L",
    )
    canvas.suptitle(says, x=0.01, ha="left", fontsize=12)
    caption = (
        "Share (%) of five-digit keys found exactly, by depth (0%: the beginning of the text) and length; "
        f"taught at L = {config.context_length} only. Mean over seeds."
    )
    return Figure(save(canvas, folder, "passkey"), caption)


def gains(config: ExperimentConfig, metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """The noise gain of the coefficients: loss at L and its growth to 16 L."""
    canvas = Canvas(figsize=(7.5, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for axes, key, label in (
        (left, "loss_valid_{}_1L", "loss at L (nats)"),
        (right, "growth_valid_{}", "its growth to 16 L (nats)"),
    ):
        values = [metrics[key.format(f"{GAINS}_{gain:g}")].mean for gain in config.gains]
        axes.plot(config.gains, values, "o-", color=PALETTE[0])
        axes.set(xlabel="σ (gain of the noise)", ylabel=label)
    best = min(config.gains, key=lambda gain: metrics[f"growth_valid_{GAINS}_{gain:g}"].mean)
    says = f"σ: the loss grows least at {best:g} (the paper: 0.3), on one seed of {config.gain_steps} steps"
    canvas.suptitle(says, x=0.01, ha="left", fontsize=12)
    caption = (
        f"FoPE with each gain of the noise after {config.gain_steps} steps; 0 is CF only. One seed: compare "
        "the differences with the spread over seeds in the other figures before reading much into them."
    )
    return Figure(save(canvas, folder, "gains"), caption)


def _lengths(config: ExperimentConfig) -> list[int]:
    return [multiple * config.context_length for multiple in MULTIPLES]


def _across(losses: Mapping[str, float], config: ExperimentConfig) -> NDArray[np.float64]:
    return np.array([losses[str(length)] for length in _lengths(config)])


def _legend_below(canvas: Canvas, axes: Axes) -> None:
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _length_axis(axes: Axes, config: ExperimentConfig) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(_lengths(config), [str(length) for length in _lengths(config)])
    axes.axvline(config.context_length, color=MUTED, linestyle=":", linewidth=1)
