"""Figures: the class of every shift, bands of both spins, the splitting over the zone, Kerr spectra.

Each function returns a matplotlib figure and saves it if a path is given; the format is the path's ending.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from altermag.errors import AltermagError, MissingExtraError
from altermag.tb.model import Model
from altermag.zones import brillouin_zone

try:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Polygon
except ImportError as error:
    raise MissingExtraError("matplotlib is needed to draw figures: pip install 'altermag[plot]'") from error

if TYPE_CHECKING:
    from altermag.kpath import KPath
    from altermag.mapping import StackingMap

SPINS: tuple[dict[str, Any], ...] = (
    {"color": "#d55e00", "linestyle": "-"},
    {"color": "#0072b2", "linestyle": (0, (3, 2))},
)
DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markeredgecolor": "white",
    "markersize": 6.5,
    "linestyle": "none",
}
KIND_COLOURS = {
    "altermagnet": "#0072b2",
    "compensated-ferrimagnet": "#e69f00",
    "antiferromagnet": "#6b6b6b",
    "ferrimagnet": "#cc79a7",
    "ferromagnet": "#d55e00",
    "nonmagnetic": "#e4e1d9",
}
"""Okabe and Ito's colours, distinct to colour-blind readers."""


def plot_stacking_map(
    classes: StackingMap, lattice: ArrayLike, save: str | PathLike[str] | None = None
) -> Figure:
    """The class of every shift over the cell of the monolayer, `lattice` [2, 2] or [3, 3] in Å.

    An n x n grid of shifts is drawn as tiles, any other set as points. A class with fewer shifts than a line
    of the grid has, which as tiles would not be seen, is marked by diamonds as well.
    """
    kinds = [kind for kind in KIND_COLOURS if np.any(classes.kind == kind)]
    number = np.array([kinds.index(kind) for kind in classes.kind], dtype=float)
    colours: dict[str, Any] = {
        "cmap": ListedColormap([KIND_COLOURS[kind] for kind in kinds]),
        "vmin": -0.5,
        "vmax": len(kinds) - 0.5,
    }
    plane = np.asarray(lattice, dtype=float)[:2, :2]
    handles: dict[str, Artist] = {kind: Patch(color=KIND_COLOURS[kind], label=kind) for kind in kinds}
    figure, axes = _sheet((5.6, 4.6))
    n = round(np.sqrt(len(number)))
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
    if n > 1 and len(grid) == len(number) and np.allclose(classes.shifts * n, grid):
        edges = (np.stack(np.meshgrid(*2 * [np.arange(n + 1)], indexing="ij"), axis=-1) - 0.5) / n @ plane
        axes.pcolormesh(edges[..., 0], edges[..., 1], number.reshape(n, n), rasterized=True, **colours)
        for kind in kinds:
            few = classes.shifts[classes.kind == kind]
            if len(few) < n:
                look = DIAMOND | {"color": KIND_COLOURS[kind], "label": kind}
                handles[kind] = axes.plot(*(few @ plane).T, clip_on=False, **look)[0]
    else:
        x, y = (classes.shifts @ plane).T
        axes.scatter(x, y, c=number, s=12, **colours)
    axes.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal")
    figure.legend(
        handles=list(handles.values()),
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return _saved(figure, save)


def plot_bands(model: Model, path: KPath, save: str | PathLike[str] | None = None) -> Figure:
    """Energies along a path, and below them the splitting of every band, which is small beside the energies.

    Spin up is a full line, down a broken one. A spinor model has one panel, of one colour.
    """
    energies = model.bands(path.k_points)
    breaks = (
        np.flatnonzero(np.diff(path.distances) <= 0) + 1
    )  # where the path jumps, two points share a place
    x = np.insert(path.distances, breaks, np.nan)
    if model.zeeman is None:
        figure, upper = _sheet((6.4, 4.2))
        panels = [upper]
        upper.plot(x, np.insert(energies, breaks, np.nan, axis=0), color="black", linewidth=1)
    else:
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        panels = list(figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)))
        for name, values, look in zip(("up", "down"), energies, SPINS, strict=True):
            lines = panels[0].plot(x, np.insert(values, breaks, np.nan, axis=0), linewidth=1.2, **look)
            lines[0].set_label(name)
        panels[0].legend(frameon=False)
        delta = 1e3 * (energies[0] - energies[1])
        panels[1].plot(x, np.insert(delta, breaks, np.nan, axis=0), color="black", linewidth=0.8)
        panels[1].set_ylabel("splitting (meV)")
        if np.abs(delta).max() < 1e-6:  # rounding: shown as the zero that it is
            panels[1].set_ylim(-1, 1)
    panels[0].set_ylabel("energy (eV)")
    for axes in panels:
        for _, distance in path.ticks:
            axes.axvline(distance, color="#e4e1d9", linewidth=0.8, zorder=0)
        axes.set_xticks([distance for _, distance in path.ticks], [label for label, _ in path.ticks])
        axes.set_xlim(path.distances[0], path.distances[-1])
    return _saved(figure, save)


def plot_splitting(
    model: Model, band: int, save: str | PathLike[str] | None = None, *, points: int = 160
) -> Figure:
    """Δ_n(k) of one `band` of a collinear model over the first Brillouin zone, in meV.

    `points` is the number of k along each axis. Raises `AltermagError` if the model is not collinear or has
    no such band.
    """
    if not 0 <= band < model.n_states:
        raise AltermagError(f"band is {band}; the model has 0 to {model.n_states - 1} of each spin")
    corners = brillouin_zone(model.lattice)
    low, high = corners.min(0), corners.max(0)
    x, y = (np.linspace(low[axis], high[axis], points) for axis in (0, 1))
    k = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) @ model.lattice.T / (2 * np.pi)
    delta = 1e3 * model.splitting(k)[:, band].reshape(points, points)
    figure, axes = _sheet((5.0, 4.2))
    limit = max(float(np.abs(delta).max()), 1e-9)  # below: rounding, shown as nothing
    image = axes.imshow(
        delta,
        extent=(low[0], high[0], low[1], high[1]),
        origin="lower",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
    )
    zone = Polygon(corners, facecolor="none", edgecolor="black", linewidth=0.8)
    axes.add_patch(zone)
    image.set_clip_path(zone)
    axes.set(xlabel="$k_x$ (1/Å)", ylabel="$k_y$ (1/Å)", aspect="equal")
    figure.colorbar(image, ax=axes, label=f"Δ of band {band} (meV)", shrink=0.8)
    return _saved(figure, save)


def plot_kerr(
    energies: ArrayLike,
    angles: ArrayLike | Mapping[str, ArrayLike],
    save: str | PathLike[str] | None = None,
) -> Figure:
    """A Kerr or Faraday spectrum, complex θ + iε in rad as of `altermag.optics`, or some by name; in mrad."""
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    rotation, ellipticity = figure.subplots(2, 1, sharex=True)
    several = isinstance(angles, Mapping)
    for name, values in (angles if isinstance(angles, Mapping) else {"": angles}).items():
        mrad = 1e3 * np.asarray(values)
        rotation.plot(energies, mrad.real, label=name)
        ellipticity.plot(energies, mrad.imag, label=name)
    for axes, label in ((rotation, "rotation (mrad)"), (ellipticity, "ellipticity (mrad)")):
        axes.axhline(0, color="#6b6b6b", linewidth=0.8, zorder=0)
        axes.set_ylabel(label)
    ellipticity.set_xlabel("photon energy (eV)")
    if several:
        rotation.legend(frameon=False)
    return _saved(figure, save)


def _sheet(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _saved(figure: Figure, save: str | PathLike[str] | None) -> Figure:
    if save is not None:
        try:
            figure.savefig(save, dpi=160)
        except (ValueError, OSError) as error:  # an ending that is no format, a folder that is not there
            raise AltermagError(f"the figure cannot be saved to {save}: {error}") from error
    return figure
