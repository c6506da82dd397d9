"""The figures of the report: the spike-in, the six proteins, cells, the funnel, what escaped the guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox
from scipy.stats import binomtest

from proteus_omics.reproduce.mutations import KINDS
from tenfold import Estimate, Figure, Records
from tenfold.figures import HAIRLINE, INK, PALETTE, save, style

if TYPE_CHECKING:
    from proteus_omics.reproduce.experiment import ExperimentConfig

SPECIES = {
    0.0: ("human (no change)", INK),
    1.0: ("yeast (2:1)", PALETTE[0]),
    -2.0: ("E. coli (1:4)", PALETTE[1]),
}
TESTS = {"q_value": "moderated t (a run)", "student": "Student's t", "welch": "Welch's t"}
"""Columns of the spike-in's table that hold q."""
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
            drawn += [volcano(table, folder), error_rates(table, folder), recovered(table, folder)]
        drawn.append(six_proteins(first["nafld"]["six"], folder))
        if "cytof" in first:
            drawn.append(responses(first["cytof"]["heat"], folder))
        drawn.append(funnel({arm: one["funnel"] for arm, one in first.items() if "funnel" in one}, folder))
        judged = [one["mutants"] for one in records.results().values() if "mutants" in one]
        drawn.append(escapes(judged, folder))
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


def recovered(table: pd.DataFrame, folder: Path, alpha: float = 0.05) -> Figure:
    """Share of the proteins called at q < `alpha` by the fold change that was put in, with 95% intervals."""
    canvas = Canvas(figsize=(6, 3.6))
    axes = canvas.add_subplot()
    changes = sorted(SPECIES)
    width = 0.8 / len(TESTS)
    for number, (column, name) in enumerate(TESTS.items()):
        called = [table.loc[table["truth"] == change, column] < alpha for change in changes]
        share = np.array([one.mean() for one in called])
        low, high = np.array([proportion_interval(int(one.sum()), len(one)) for one in called]).T
        axes.bar(
            np.arange(len(changes)) + width * (number - 1),
            share,
            width=width,
            yerr=np.abs([share - low, high - share]),  # abs: of a share of 1 rounding leaves -1e-17
            color=PALETTE[number],
            label=name,
        )
    counts = [int((table["truth"] == change).sum()) for change in changes]
    labels = [f"{c:+.0f}\n{SPECIES[c][0]}, {n:,}" for c, n in zip(changes, counts, strict=True)]
    axes.set_xticks(range(len(changes)), labels)
    axes.set(xlabel="log2 fold change put in", ylabel=f"called at q < {alpha:g}", ylim=(0, 1.3))
    axes.legend(loc="upper right", ncols=len(TESTS), fontsize=8.5)
    return Figure(
        save(canvas, folder, "recovered"),
        "Spike-in: share of the proteins called, by the fold change put in; of human proteins, calls are "
        "wrong. Lines, 95% intervals (Wilson).",
    )


def proportion_interval(count: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    found = binomtest(count, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


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


def escapes(judged: Sequence[Mapping[str, Mapping[str, Any]]], folder: Path) -> Figure:
    """The table of the changed statements by what was changed, summed over the runs; the caption has those
    that escaped the guard.
    """
    counted = ("changed", "still true", "caught")
    lines = []
    for kind in KINDS:
        numbers = [sum(one[kind][name] for one in judged) for name in counted]
        lines.append([*numbers, sum(len(one[kind]["escaped"]) for one in judged)])
    lines.append([sum(column) for column in zip(*lines, strict=True)])
    canvas = Canvas(figsize=(6, 0.32 * (len(lines) + 1) + 0.2))
    axes = canvas.add_subplot()
    axes.axis("off")
    shown = axes.table(
        [[f"{number:,}" for number in line] for line in lines],
        rowLabels=[*KINDS, "all"],
        colLabels=[*counted, "escaped"],
        cellLoc="right",
        bbox=Bbox.from_bounds(0.2, 0, 0.8, 1),
    )
    for cell in shown.get_celld().values():
        cell.set_edgecolor(HAIRLINE)
    through = sorted({tuple(pair) for one in judged for tally in one.values() for pair in tally["escaped"]})
    told = "; ".join(f"\u201c{old}\u201d as \u201c{new}\u201d" for old, new in through) or "none"
    return Figure(
        save(canvas, folder, "escapes"),
        "Verified statements with one thing changed, by what was changed. Those that stay true by an "
        f"independent look at the tables are left out; no other may be verified. Escaped: {told}.",
    )
