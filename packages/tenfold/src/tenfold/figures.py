"""Figures in one style: dark ink on an opaque white plate, legible wherever the file is shown.

The report and a README show the same file on light and on dark pages, so a figure brings its own background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from cycler import cycler

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from tenfold.claims import Claim
    from tenfold.estimates import Estimate

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#6b6b6b")
"""Okabe and Ito's colours that show on white, with a wine and a grey: distinct to colour-blind readers."""

INK, MUTED, HAIRLINE = "#1f1e1b", "#57544d", "#e4e1d9"

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
    "font.size": 10.5,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "white",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.color": MUTED,
    "ytick.labelsize": 9.5,
    # Letters as outlines, which look the same with any fonts; the same drawing gives the same bytes.
    "svg.fonttype": "path",
    "svg.hashsalt": "tenfold",
}


@dataclass(frozen=True)
class Figure:
    """A figure of the report: the file that `save` returned, and a caption that can be read without it."""

    path: Path
    caption: str


@contextmanager
def style() -> Iterator[None]:
    """Give the figures that are made inside the `with` the common style."""
    with mpl.rc_context(STYLE):
        yield


def save(figure: Canvas, folder: Path, name: str) -> Path:
    """Write `figure` as `folder/name.svg`, for pages, and `folder/name.png`, and return the path of the SVG.

    `figure` is a `matplotlib.figure.Figure`, made inside `style()` and without pyplot, so that nothing is
    left open. Raises `OSError` naming the file if it cannot be written.
    """
    path = Path(folder) / f"{name}.svg"
    with style():
        figure.savefig(path, metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=200)
    return path


def title(claim: Claim, metrics: Mapping[str, Estimate], yes: str, no: str, unknown: str) -> str:
    """Return what a figure says of its claim: `yes` where it holds, `no` where not, else `unknown`."""
    return {True: yes, False: no, None: unknown}[claim.holds(metrics)]
