"""How far apart the layers lie and what it costs to slide one: scans of the distance, and the barrier (2.9).

Both take any calculator of ASE, made by a function of the path of its log: `gpaw.calculator_of("lcao-dzp")`,
with `with_d3` for the dispersion that semilocal functionals lack, or a force field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from altermag.dft.folders import RESULT, own_folder
from altermag.dft.results import write_whole
from altermag.errors import AltermagError
from altermag.io import crystal_dict
from altermag.stacking import Bilayer, stack

if TYPE_CHECKING:
    from ase import Atoms

MakeCalculator = Callable[[Path], Any]
"""Gives a fresh calculator of ASE that writes its log to the path."""
IMAGES = "images.traj"


@dataclass(frozen=True)
class CalculatorMaker:
    """A function that makes calculators, and in `inputs` all that their energies depend on, as text."""

    make: MakeCalculator
    inputs: str

    def __call__(self, log: Path) -> Any:
        """Return a fresh calculator that writes its log to the path."""
        return self.make(log)


@dataclass(frozen=True)
class DistanceScan:
    """Energies in eV a cell of rigid layers at distances of their mid-planes in Å, ascending."""

    distances: tuple[float, ...]
    energies: tuple[float, ...]

    @property
    def best(self) -> float:
        """The distance at the minimum of a parabola through the lowest point and its two neighbours.

        Raises `AltermagError` where the lowest is at an end of the scan.
        """
        lowest = int(np.argmin(self.energies))
        if not 0 < lowest < len(self.distances) - 1:
            raise AltermagError(
                f"the lowest energy is at the {'first' if lowest == 0 else 'last'} distance, "
                f"{self.distances[lowest]:g} Å: scan farther"
            )
        near = slice(lowest - 1, lowest + 2)
        curvature, slope, _ = np.polyfit(self.distances[near], self.energies[near], 2)
        return float(-slope / (2 * curvature))


@dataclass(frozen=True)
class SlidingPath:
    """A path between two stackings: shifts of the top layer in fractions of a1 and a2, distances in Å, and
    energies in eV a cell, relative to the start; `converged` says whether the forces came below the limit."""

    shifts: tuple[tuple[float, float], ...]
    distances: tuple[float, ...]
    energies: tuple[float, ...]
    converged: bool

    @property
    def barrier(self) -> float:
        """The highest energy on the path in eV a cell. Raises `AltermagError` if it did not converge."""
        if not self.converged:
            raise AltermagError("the path did not converge; its highest energy is no barrier")
        return max(self.energies)


def distance_scan(
    bilayer: Bilayer,
    distances: ArrayLike,
    calculator: MakeCalculator,
    out: str | PathLike[str] = "distances",
    inputs: str = "",
) -> DistanceScan:
    """Return the energies of a bilayer's rigid layers at several distances of their mid-planes.

    Distances that were computed before are read again from the folder `out`. `inputs` says in words what the
    calculator is: a folder is that of one bilayer and one such text. By default it is the calculator's own,
    which those of `gpaw.calculator_of` have. Raises `AltermagError` where neither is there, for layers that
    overlap, and a folder in use or of another scan.
    """
    wanted = sorted(float(distance) for distance in np.atleast_1d(np.asarray(distances, dtype=float)))
    placed = {distance: _at(bilayer, distance) for distance in wanted}
    folder, told = Path(out), _inputs(calculator, inputs)
    with own_folder(folder, {"bilayer": _structure(bilayer), "calculator": told}):
        done = folder / RESULT
        known = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
        for distance, moved in placed.items():
            if f"{distance:.6f}" not in known:
                known[f"{distance:.6f}"] = _energy(moved, calculator(folder / f"d{distance:.4f}.txt"))
                write_whole(done, json.dumps(known, indent=1))
    return DistanceScan(tuple(wanted), tuple(known[f"{distance:.6f}"] for distance in wanted))


def sliding_path(
    start: Bilayer,
    shift: Sequence[float],
    calculator: MakeCalculator,
    out: str | PathLike[str] = "slide",
    inputs: str = "",
    *,
    distance: float | None = None,
    images: int = 5,
    fmax: float = 0.05,
    steps: int = 200,
) -> SlidingPath:
    """Return the path of least energy from a bilayer to the same one slid to another shift (climbing NEB).

    The top layer starts on the straight line from the shift of `start` to `shift`, which is not taken modulo
    1: from (1/3, 0) to (2/3, 0) goes over (1/2, 0), to (-1/3, 0) over (0, 0). `distance` is that of the end,
    by default that of the start. `images` lie between the ends, whose atoms stay where they are: relax them
    before. `fmax` in eV/Å; after `steps` the path is returned as not converged. A path that was interrupted
    goes on from `out`. Raises what `distance_scan` raises, and `AltermagError` for no image.
    """
    if images < 1:
        raise AltermagError(f"images={images}; needed: at least one between the ends")
    end = stack(
        start.monolayer,
        start.op if start.op != "custom" else start.operator,
        shift,
        distance=start.distance if distance is None else distance,
        order=start.magmoms if start.order == "custom" else start.order,
    )
    options = {"shift": list(end.shift), "distance": end.distance, "images": images, "fmax": fmax}
    folder, told = Path(out), _inputs(calculator, inputs)
    with own_folder(folder, {"bilayer": _structure(start), "calculator": told, **options}):
        done = folder / RESULT
        if done.exists():
            return _path(json.loads(done.read_text(encoding="utf-8")))
        found = _relaxed_band(start, end, calculator, folder, images=images, fmax=fmax, steps=steps)
        if found.converged:
            write_whole(done, json.dumps(asdict(found), indent=1))
        return found


def with_d3(calculator: MakeCalculator, method: str = "PBE") -> MakeCalculator:
    """Return a calculator with Grimme's D3 dispersion added, damping of Becke and Johnson.

    `method` is the functional whose parameters are taken. If the calculator says its `inputs`, the returned
    one says them with the dispersion. Raises `ImportError` without the package `dftd3`.
    """
    try:
        from dftd3.ase import DFTD3
    except ImportError as error:
        raise ImportError("dftd3 is needed for the D3 dispersion: pip install dftd3") from error
    from ase.calculators.mixing import SumCalculator

    bare = getattr(calculator, "inputs", "")
    return CalculatorMaker(
        lambda log: SumCalculator([calculator(log), DFTD3(method=method, damping="d3bj")]),
        bare and f"{bare} + D3(BJ) of {method}",
    )


def _inputs(calculator: MakeCalculator, given: str) -> str:
    told = given or getattr(calculator, "inputs", "")
    if not told:
        raise AltermagError(
            "give inputs, words that say what the calculator is (such as inputs='MACE-MP-0 medium'): "
            "they tell the energies of one calculator from those of another in the same folder"
        )
    return str(told)


def _relaxed_band(
    start: Bilayer,
    end: Bilayer,
    calculator: MakeCalculator,
    folder: Path,
    *,
    images: int,
    fmax: float,
    steps: int,
) -> SlidingPath:
    from ase.io import Trajectory, read
    from ase.mep import NEB
    from ase.optimize import FIRE

    band = [_between(start, end, i / (images + 1)) for i in range(images + 2)]
    kept = folder / IMAGES
    if kept.exists():
        for atoms, before in zip(band, read(kept, index=":"), strict=True):
            atoms.positions[:] = before.positions
    for i, atoms in enumerate(band):
        atoms.calc = calculator(folder / f"image{i}.txt")
    ends = [float(atoms.get_potential_energy()) for atoms in (band[0], band[-1])]

    def keep() -> None:
        partial = folder / f".{IMAGES}.partial"
        with Trajectory(partial, "w") as file:
            for atoms in band:
                file.write(atoms)
        partial.replace(kept)

    relaxation = FIRE(NEB(band, climb=True, method="improvedtangent"), logfile=str(folder / "neb.txt"))
    relaxation.attach(keep)
    converged = bool(relaxation.run(fmax=fmax, steps=steps))
    energies = [ends[0], *(float(atoms.get_potential_energy()) for atoms in band[1:-1]), ends[1]]
    places = [_place(start, band[0], atoms) for atoms in band]
    return SlidingPath(
        shifts=tuple(place[:2] for place in places),
        distances=tuple(place[2] for place in places),
        energies=tuple(energy - ends[0] for energy in energies),
        converged=converged,
    )


def _at(bilayer: Bilayer, distance: float) -> Bilayer:
    """Return the bilayer with its layers at another distance, in the same cell."""
    op = bilayer.op if bilayer.op != "custom" else bilayer.operator
    order = bilayer.magmoms if bilayer.order == "custom" else bilayer.order
    moved = stack(bilayer.monolayer, op, bilayer.shift, distance=distance, order=order)
    c = bilayer.lattice[2, 2]
    if c < distance + bilayer.monolayer.thickness:
        raise AltermagError(f"layers {distance:g} Å apart do not fit the cell of {c:g} Å: give more vacuum")
    frac = moved.frac_coords.copy()
    frac[:, 2] = 0.5 + (frac[:, 2] - 0.5) * moved.lattice[2, 2] / c
    return replace(moved, lattice=bilayer.lattice, frac_coords=frac)


def _between(start: Bilayer, end: Bilayer, part: float) -> Atoms:
    """Return the atoms of the start with the top layer moved a part of the way along the straight line."""
    atoms = start.atoms
    top = start.layer_of_atom == 1
    plane = (np.array(end.shift) - np.array(start.shift)) @ start.lattice[:2, :2]
    atoms.positions[top, :2] += part * plane
    atoms.positions[:, 2] += part * (end.distance - start.distance) * np.where(top, 0.5, -0.5)
    return atoms


def _place(start: Bilayer, first: Atoms, atoms: Atoms) -> tuple[float, float, float]:
    """Return shift and distance of an image: how far the middles of the layers have come apart."""
    moved = atoms.positions - first.positions
    top = start.layer_of_atom == 1
    apart = moved[top].mean(0) - moved[~top].mean(0)
    x, y = np.array(start.shift) + apart[:2] @ np.linalg.inv(start.lattice[:2, :2])
    return float(x), float(y), float(start.distance + apart[2])


def _energy(bilayer: Bilayer, calculator: Any) -> float:
    atoms = bilayer.atoms
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def _structure(bilayer: Bilayer) -> dict[str, Any]:
    """Return what a folder is of, to 1e-8."""
    lattice, frac = (np.round(x, 8) + 0.0 for x in (bilayer.lattice, bilayer.frac_coords))
    return crystal_dict(lattice, frac, bilayer.species, bilayer.magmoms)


def _path(values: dict[str, Any]) -> SlidingPath:
    shifts = tuple((float(x), float(y)) for x, y in values["shifts"])
    return SlidingPath(shifts, tuple(values["distances"]), tuple(values["energies"]), values["converged"])
