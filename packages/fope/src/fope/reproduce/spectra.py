"""Two figures that need no training: which channels are clipped, and what a nonlinearity does to a wave."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas

from fope import kept_frequencies
from fope.analysis import spectrum_damage
from tenfold import Figure
from tenfold.figures import PALETTE, save


def spectrum(head_dim: int, train_length: int, folder: Path, theta: float = 10_000.0) -> Figure:
    """A bar a channel pair: its period, and whether it completes a cycle within the training length."""
    pairs = head_dim // 2
    periods = 2 * math.pi * theta ** (2 * np.arange(pairs) / head_dim)
    kept = len(kept_frequencies(head_dim, theta, train_length))
    canvas = Canvas(figsize=(7.5, 3.6), layout="constrained")
    axes = canvas.subplots()
    axes.bar(range(kept), periods[:kept], color=PALETTE[0], label=f"kept: {kept} of {pairs}")
    axes.bar(range(kept, pairs), periods[kept:], color=PALETTE[1], alpha=0.6, label="clipped to frequency 0")
    axes.axhline(train_length, color="black", linestyle=":", linewidth=1.2)
    axes.set(xlabel="channel pair j", ylabel="period (tokens)", yscale="log")
    axes.legend()
    axes.set_title(f"Channels with a full cycle in L = {train_length}")
    caption = (
        f"Periods of the rotary channels (θ = {theta:g}, head_dim {head_dim}); dotted: the training length."
    )
    return Figure(save(canvas, folder, "spectrum"), caption)


def toy(folder: Path) -> Figure:
    """The paper's Fig. 3 in small: two waves go through a ReLU, and many come out."""
    damage = spectrum_damage()
    canvas = Canvas(figsize=(7.5, 3.4), layout="constrained")
    axes = canvas.subplots()
    frequencies = np.arange(len(damage.before))
    axes.bar(frequencies, damage.before, width=2.4, color=PALETTE[1], alpha=0.55, label="two waves")
    axes.bar(frequencies[1:], damage.after[1:], width=1.0, color=PALETTE[0], label="after a ReLU")
    axes.set(xlabel="cycles within the window", ylabel="amplitude", xlim=(0, 80))
    axes.legend()
    axes.set_title(f"A nonlinearity makes new frequencies: {100 * damage.leaked:.0f}% of the energy")
    caption = (
        "Two waves in one channel (8 and 21 cycles) before and after a ReLU, without the mean: harmonics, "
        "sums and differences appear, which a single wave cannot carry. A toy; nothing is trained."
    )
    return Figure(save(canvas, folder, "toy"), caption)
