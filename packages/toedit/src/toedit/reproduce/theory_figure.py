"""The linear model: simulated, exact, and by the paper's formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from tenfold import Figure
from tenfold.figures import INK, MUTED, PALETTE, save
from toedit.theory import DISJOINT_BOUND

LONG_RUNS = {
    "disjoint": "ten disjoint tenths",
    "constant": "a new 12.5% each time",
    "shrinking": "a new share each time, 12.5% falling by 5.9%",
}


def theory_curves(found: dict[str, Any], folder: Path) -> Figure:
    """The error against the generation."""
    canvas = Canvas(figsize=(10.5, 4.4), layout="constrained")
    short, long = canvas.subplots(1, 2)
    for colour, (name, masks) in zip(PALETTE, found["masks"].items(), strict=False):
        n = np.arange(1, len(masks["exact"]) + 1)
        short.plot(n, masks["exact"], color=colour, label=f"{name} masks")
        short.plot(n, masks["paper"], "--", color=colour, linewidth=1)
        short.errorbar(n, masks["mean"], 3 * np.array(masks["se"]), fmt=".", color=colour)
    short.axhline(2, color=INK, linestyle=":", label="the paper's bound, 2")
    short.set(xlabel="generation", ylabel="test error (σ²d/(T-d-1))")
    for colour, (name, label) in zip(PALETTE, LONG_RUNS.items(), strict=False):
        long.plot(np.arange(1, len(found["long"][name]) + 1), found["long"][name], color=colour, label=label)
    long.plot([1, 60], [1, 60], color=MUTED, label="full replacement, n")
    long.axhline(2, color=INK, linestyle=":")
    long.axhline(DISJOINT_BOUND, color=PALETTE[0], linestyle=":", label="2e - 1, disjoint edits")
    long.set(xlabel="generation", xscale="log", yscale="log")
    ticks = [1, 2, 5, 10, 20, 50]
    long.set_yticks(ticks, [str(tick) for tick in ticks])
    for axes in (short, long):
        axes.legend(fontsize=8)
    canvas.suptitle(
        "The linear model: disjoint edits pass the paper's bound of 2", x=0.01, ha="left", fontsize=12
    )
    caption = (
        "Left: dots are simulations with 3 standard errors, lines the exact recursion, dashed lines the "
        "paper's formula. Right: exact, over many generations; only edits that shrink, or never meet, stay "
        "bounded."
    )
    return Figure(save(canvas, folder, "theory"), caption)
