"""The figures of the report: the spike-in's volcano, error rates, the six proteins, cells, the funnel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from tenfold import Estimate, Figure, Records
from tenfold.figures import INK, PALETTE, save, style

if TYPE_CHECKING:
    from proteus_omics.reproduce.experiment import ExperimentConfig

SPECIES = {
    0.0: ("human (no change)", INK),
    1.0: ("yeast (2:1)", PALETTE[0]),
    -2.0: ("E. coli (1:4)", PALETTE[1]),
}
PUBLISHED = {"PIGR": 1.99}
"""log2 of the changes in cirrhosis that Niu et al. print."""


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw what the run's records allow into `folder`."""
    first: dict[str, dict[str, Any]] = {}
    for trial, result in records.results().items():
        first.setdefault(trial.arm, result)
    drawn = []
    with style():
        if "hye" in first:
            table = pd.DataFrame(first["hye"]["table"])
            drawn += [volcano(table, folder), error_rates(table, folder)]
        drawn.append(six_proteins(first["nafld"]["six"], folder))
        if "cytof" in first:
            drawn.append(responses(first["cytof"]["heat"], folder))
        drawn.append(funnel({arm: one["funnel"] for arm, one in first.items() if "funnel" in one}, folder))
    return drawn


def volcano(table: pd.DataFrame, folder: Path) -> Figure:
    """Effects and p-values of the spike-in by species."""
    canvas = Canvas(figsize=(6, 4))
    axes = canvas.add_subplot()
    for truth, (name, color) in SPECIES.items():
        rows = table[table["truth"] == truth]
        axes.scatter(
            rows["log2fc"],
            -np.log10(rows["p_value"]),
            s=4,
            color=color,
            alpha=0.6,
            label=name,
            rasterized=True,
        )
        axes.axvline(truth, color=color, lw=0.8, ls=":")
    axes.set(xlabel="log2 fold change, A against B", ylabel="-log10 p")
    axes.legend(markerscale=3)
    return Figure(
        save(canvas, folder, "volcano"), "Spike-in: found effects by species; dotted, what was put in."
    )


def error_rates(table: pd.DataFrame, folder: Path) -> Figure:
    """False discovery proportion and recovered share against the nominal rate."""
    canvas = Canvas(figsize=(6, 4))
    axes = canvas.add_subplot()
    nominal = np.linspace(0.01, 0.20, 39)
    changed = table["truth"] != 0
    false = [float((~changed)[table["q_value"] < q].mean()) for q in nominal]
    found = [float((table["q_value"] < q)[changed].mean()) for q in nominal]
    axes.plot(nominal, false, color=PALETTE[1], label="false of all discoveries")
    axes.plot(nominal, nominal, color=INK, lw=0.8, ls=":", label="nominal")
    axes.set(xlabel="q below", ylabel="false discovery proportion", ylim=(0, None))
    other = axes.twinx()
    other.plot(nominal, found, color=PALETTE[0])
    other.set(ylabel="changed proteins found", ylim=(0.9, 1))
    other.yaxis.label.set_color(PALETTE[0])
    axes.legend(loc="upper left")
    return Figure(save(canvas, folder, "error_rates"), "Spike-in: errors and power at each nominal rate.")


def six_proteins(six: Mapping[str, list[Any]], folder: Path) -> Figure:
    """The proteins that the cohort's authors name, in cirrhosis."""
    rows = pd.DataFrame(six)
    canvas = Canvas(figsize=(6, 3.2))
    axes = canvas.add_subplot()
    at = np.arange(len(rows))
    for place, row in zip(at, rows.itertuples(), strict=True):
        color = PALETTE[0] if row.q_value < 0.05 else INK
        axes.plot([row.ci_low, row.ci_high], [place, place], color=color)
        axes.plot(row.log2fc, place, "o", color=color)
        if row.gene in PUBLISHED:
            axes.plot(PUBLISHED[row.gene], place, "D", mfc="none", color=PALETTE[1], label="published")
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(at, [f"{row.gene} (q = {row.q_value:.2g})" for row in rows.itertuples()])
    axes.set(xlabel="log2 fold change, cirrhosis against healthy, 95% interval")
    axes.legend()
    return Figure(
        save(canvas, folder, "six_proteins"), "The six proteins of Niu et al. in cirrhosis, found or not."
    )


def responses(heat: Mapping[str, Any], folder: Path) -> Figure:
    """What cross-linking does to each state marker in each population."""
    values = np.array(heat["log2fc"], dtype=float)
    limit = float(np.nanmax(np.abs(values)))
    canvas = Canvas(figsize=(7, 0.35 * len(heat["populations"]) + 1.6))
    axes = canvas.add_subplot()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(heat["markers"])), heat["markers"], rotation=60, ha="right")
    axes.set_yticks(range(len(heat["populations"])), heat["populations"])
    canvas.colorbar(image, ax=axes, label="difference (arcsinh)")
    return Figure(
        save(canvas, folder, "responses"), "Cells: differences of medians with and without cross-linking."
    )


def funnel(counts: Mapping[str, Mapping[str, int]], folder: Path) -> Figure:
    """How many rows were tested, said, verified."""
    canvas = Canvas(figsize=(6, 3))
    axes = canvas.add_subplot()
    stages = list(next(iter(counts.values())))
    for number, (name, one) in enumerate(counts.items()):
        at = np.arange(len(stages)) + 0.35 * number
        axes.barh(at, [one[stage] for stage in stages], height=0.33, color=PALETTE[number], label=name)
    axes.set_yticks(np.arange(len(stages)) + 0.17, stages)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="count")
    axes.legend()
    return Figure(save(canvas, folder, "funnel"), "From tested rows to verified statements.")
