"""The figures of the report: maps of all shifts, bands, splittings over the zone, Kerr spectra, GPAW."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from altermag.dft.results import DFTResult
from altermag.plot import DIAMOND
from altermag.reproduce.computed import NICKEL_WINDOW, PLATINUM_WINDOW
from altermag.reproduce.models import named
from tenfold import Estimate, Figure, Records
from tenfold.figures import INK, PALETTE, save, style

if TYPE_CHECKING:
    from altermag.reproduce.experiment import ExperimentConfig

Floats = NDArray[np.float64]
Parts = dict[str, dict[str, dict[str, Any]]]

KINDS = {
    "altermagnet": PALETTE[0],
    "antiferromagnet": INK,
    "compensated-ferrimagnet": PALETTE[4],
}
POINTS = {
    "bridge": (1 / 2, 1 / 2),
    "AA'": (0, 0),
    "AB'": (1 / 3, 2 / 3),
    "BA'": (2 / 3, 1 / 3),
    "AC'+": (1 / 3, 0),
    "AC'-": (2 / 3, 0),
}


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw what the run's records allow into `folder`."""
    parts: Parts = {}
    for trial, result in records.results().items():
        parts.setdefault(trial.stage, {})[trial.arm] = result
    drawn = []
    with style():
        drawn += [shift_maps(parts["map"]["map"], folder)]
        drawn += [bands(parts["models"]["models"], folder), zone_maps(parts["models"]["models"], folder)]
        drawn += [kerr(parts["kerr"]["kerr"], folder)]
        computed = {
            arm: DFTResult.from_dict(entry["result"])
            for stage in ("nickel", "platinum")
            for arm, entry in parts.get(stage, {}).items()
            if "result" in entry
        }
        if computed:
            drawn.append(splittings(computed, folder))
        if len([arm for arm in computed if not arm.startswith("NiCl2")]) > 1:
            drawn.append(energies(computed, folder))
    return drawn


def shift_maps(found: dict[str, Any], folder: Path) -> Figure:
    """The class of every shift, and the largest splitting of the model."""
    canvas = Canvas(figsize=(9.6, 3.9))
    left, right = canvas.subplots(1, 2)
    number = {kind: place for place, kind in enumerate(KINDS)}
    kinds = np.array([number[kind] for kind in found["kinds"]])
    colours = ListedColormap(list(KINDS.values()))
    _over_cell(left, np.array(found["shifts"]), kinds, colours, BoundaryNorm(np.arange(4) - 0.5, 3))
    degenerate = np.array(found["shifts"])[np.array(found["kinds"]) == "antiferromagnet"]
    handles: dict[str, Artist] = {kind: Patch(color=colour, label=kind) for kind, colour in KINDS.items()}
    handles["antiferromagnet"] = Line2D([], [], label="antiferromagnet", color=INK, **DIAMOND)
    left.legend(
        handles=list(handles.values()),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=1,
    )
    left.set_title("class of each shift")
    largest = 1e3 * np.array(found["largest"])
    mesh = _over_cell(right, np.array(found["coarse"]), largest, "viridis", None)
    canvas.colorbar(mesh, ax=right, label="largest splitting (meV, model)")
    right.set_title("a model that knows no symmetry")
    # Single shifts, far smaller than a line: as tiles they would not be seen.
    for axes, colour, single in ((left, INK, _with_far_edges(degenerate)), (right, "white", degenerate)):
        for name, shift in POINTS.items():
            x, y = _cartesian(np.array([shift]))[0]
            axes.plot(x, y, "o", color="white", markeredgecolor=INK, markersize=4, clip_on=False)
            axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", color=colour)
        axes.plot(*_cartesian(single).T, color=INK, clip_on=False, **DIAMOND)
    caption = (
        "Reversed bilayer PtBr3 over all shifts of the upper layer, one cell. Left: its class, by the fast"
        " kernel. Altermagnets lie on lines and at their crossings; where the lines end in AA' or a bridge"
        " the spins are degenerate (diamonds). Right: the largest splitting of the one-orbital model at"
        " generic k; zero at four shifts only."
    )
    return Figure(save(canvas, folder, "shifts"), caption)


def bands(found: dict[str, Any], folder: Path) -> Figure:
    """Bands of AB' on the standard path and on the generic one."""
    canvas = Canvas(figsize=(9.6, 3.6))
    pair = canvas.subplots(1, 2, sharey=True)
    for axes, (title, path) in zip(pair, found["paths"].items(), strict=True):
        x, energy = np.array(path["x"]), np.array(path["bands"])
        energy[:, 1:][:, np.diff(x) == 0] = np.nan  # the path jumps: no line
        axes.plot(x, energy[0], color=PALETTE[1], linewidth=1.4)
        axes.plot(x, energy[1], color=PALETTE[0], linewidth=1.4, linestyle=(0, (3, 2)))
        axes.set_xticks([position for _, position in path["ticks"]], [label for label, _ in path["ticks"]])
        axes.set_xlim(x[0], x[-1])
        axes.set_title(f"{title} path")
    pair[0].set_ylabel("energy (eV, model)")
    caption = (
        "Valence bands of the model of AB' PtBr3, spin up (orange) and down (blue, dashed). On the"
        " standard path, all of whose lines are nodal, an altermagnet looks like an antiferromagnet; off "
        "it the spins part."
    )
    return Figure(save(canvas, folder, "bands"), caption)


def zone_maps(found: dict[str, Any], folder: Path) -> Figure:
    """The splitting of a valence band over the zone, of two pairs of partners."""
    canvas = Canvas(figsize=(9.6, 8.0))
    for axes, (name, values) in zip(canvas.subplots(2, 2).ravel(), found["maps"].items(), strict=True):
        delta = 1e3 * np.array(values)
        n = round(np.sqrt(len(delta)))
        steps = np.arange(n) / n - 0.5 + (n % 2) / (2 * n)
        points = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        reciprocal = 2 * np.pi * np.linalg.inv(named(name).lattice[:2, :2]).T
        size = np.abs(delta).max()
        grid = (points @ reciprocal).reshape(n, n, 2)
        colours = {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -size, size)}
        # As pixels also in the SVG: a path for every point makes megabytes of it.
        mesh = axes.pcolormesh(grid[..., 0], grid[..., 1], delta.reshape(n, n), rasterized=True, **colours)
        axes.set(aspect="equal", title=name, xlabel="$k_x$ (1/Å)", ylabel="$k_y$ (1/Å)")
        axes.grid(False)
        canvas.colorbar(mesh, ax=axes, label="up minus down (meV, model)")
    caption = (
        "Spin splitting of a valence band of the model over one reciprocal cell. Above: AB' and "
        "its mirror image BA', twelve sectors of alternating sign (i-wave). Below: AC' of either "
        "polarisation, with a splitting at Γ. In each pair one is the negative of the other at every k."
    )
    return Figure(save(canvas, folder, "zone"), caption)


def kerr(found: dict[str, Any], folder: Path) -> Figure:
    """Kerr rotation and ellipticity of AC' of either sign of the polarisation and of the Néel vector."""
    canvas = Canvas(figsize=(9.6, 3.6))
    pair = canvas.subplots(1, 2, sharex=True)
    energy = np.array(found["energies"])
    for number, (label, spectrum) in enumerate(found["spectra"].items()):
        dashes = (0, (3, 2)) if label.startswith("AC'+ N-") else "-"
        for axes, part in zip(pair, spectrum["kerr"], strict=True):
            axes.plot(
                energy,
                1e3 * np.array(part),
                color=PALETTE[number],
                linestyle=dashes,
                label=label,
                linewidth=1.5,
            )
    pair[0].set(xlabel="photon energy (eV)", ylabel="Kerr rotation (mrad, model)")
    pair[1].set(xlabel="photon energy (eV)", ylabel="Kerr ellipticity (mrad, model)")
    pair[1].legend(fontsize=8)
    caption = (
        "Polar Kerr spectra of the p-orbital model, spins along z. Reversing the polarisation (AC'-) or "
        "the Néel vector (N-) turns both signs, so the two curves coincide; AA' and AB' give nothing."
    )
    return Figure(save(canvas, folder, "kerr"), caption)


def splittings(computed: dict[str, DFTResult], folder: Path) -> Figure:
    """The largest splitting at every point of every calculation."""
    antiparallel = {arm: result for arm, result in computed.items() if not arm.endswith(" fm")}
    canvas = Canvas(figsize=(9.6, 0.6 + 2.0 * len(antiparallel)))
    rows = np.atleast_1d(canvas.subplots(len(antiparallel), 1))
    for axes, (arm, result) in zip(rows, antiparallel.items(), strict=True):
        window = NICKEL_WINDOW if arm.startswith("NiCl2") else PLATINUM_WINDOW
        largest = 1e3 * result.largest_splitting(window)
        labels = [f"({x:.3g}, {y:.3g})" for x, y in result.k_points]
        axes.bar(range(len(largest)), largest, color=PALETTE[0])
        axes.axhline(1.5, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(labels)), labels, fontsize=6.5, rotation=25)
        axes.set(title=f"{arm}, within {window:g} eV of the Fermi level", ylabel="meV")
    caption = (
        "GPAW: the largest |up minus down| at each k (fractions of b1, b2). Dotted: the noise up to which a "
        "splitting counts as zero."
    )
    return Figure(save(canvas, folder, "computed"), caption)


def energies(computed: dict[str, DFTResult], folder: Path) -> Figure:
    """Energies of the computed stackings of PtBr3 relative to the lowest, and their polarisation."""
    found = {arm: result for arm, result in computed.items() if not arm.startswith("NiCl2")}
    lowest = min(result.energy for result in found.values())
    canvas = Canvas(figsize=(9.6, 3.2))
    left, right = canvas.subplots(1, 2)
    places = range(len(found))
    left.barh(places, [1e3 * (result.energy - lowest) for result in found.values()], color=PALETTE[2])
    right.barh(places, [result.polarisation for result in found.values()], color=PALETTE[3])
    left.set_yticks(places, list(found))
    right.set_yticks(places, ["" for _ in found])
    left.set(xlabel="energy above the lowest (meV a cell)")
    right.set(xlabel="$P_z$ (pC/m)")
    caption = (
        "GPAW: energies and polarisation of the computed stackings of PtBr3 at one distance of the layers,"
        " with antiparallel (afm) and parallel (fm) moments. Reported; there is no target."
    )
    return Figure(save(canvas, folder, "energies"), caption)


def _cartesian(shifts: Floats) -> Floats:
    return shifts @ (named("AB'").lattice[:2, :2] / 6.8)


def _with_far_edges(shifts: Floats) -> Floats:
    """Shifts in [0, 1)², those on an edge of the cell also on the opposite one."""
    images = np.concatenate([shifts + step for step in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return images[(images <= 1).all(1)]


def _over_cell(axes: Axes, shifts: Floats, values: Floats, colours: Any, norm: Any) -> Any:
    """A map over the cell: a rhombus for every shift of an n by n grid."""
    n = round(np.sqrt(len(shifts)))
    order = np.lexsort((shifts[:, 1], shifts[:, 0]))
    edges = np.arange(n + 1) / n - 0.5 / n
    corners = _cartesian(np.stack(np.meshgrid(edges, edges, indexing="ij"), axis=-1).reshape(-1, 2))
    grid = corners.reshape(n + 1, n + 1, 2)
    mesh = axes.pcolormesh(
        grid[..., 0], grid[..., 1], values[order].reshape(n, n), cmap=colours, norm=norm, rasterized=True
    )
    axes.set_aspect("equal")
    axes.set_axis_off()
    return mesh
