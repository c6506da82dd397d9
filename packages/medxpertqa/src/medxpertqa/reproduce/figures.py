"""The figures of the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas

from tenfold import Estimate, Figure, Records
from tenfold.figures import save, style


def figures(config: Any, metrics: Mapping[str, Estimate], records: Records, folder: Path) -> list[Figure]:
    """Draw the error against the step, a line a seed."""
    with style():
        canvas = Canvas(figsize=(7, 3.6))
        axes = canvas.subplots()
        for index, arm in enumerate(records.arms()):
            for seed, curve in records.curves(arm).items():
                label = arm.replace("_", " ") if seed == config.seeds[0] else None
                axes.semilogy(curve["step"], curve["error"], color=f"C{index}", label=label)
        axes.axhline(config.tolerance, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel="step", ylabel="error, relative to the start")
        axes.legend()
        caption = (
            "The error along the way; a line a seed. Dotted: the tolerance that claim C1 counts steps to."
        )
        return [Figure(save(canvas, folder, "descent"), caption)]
