"""What a computed stacking says: splittings, where symmetry forbids them, and the polarisation (2.9)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from altermag.classification import DEFAULT_MAG_TOL, DEFAULT_SYMPREC
from altermag.errors import AltermagError
from altermag.io import Layered
from altermag.operations import spin_operations

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PC_PER_M = 1602.176634
"""1 e/Å in pC/m."""
GENERIC = (0.3, 0.1)
NAMED = ((0, 0), (1 / 2, 0), (0, 1 / 2), (1 / 2, 1 / 2), (1 / 3, 1 / 3), (1 / 4, 0), (0.2, 0.2))
"""Γ, the zone's boundary, and points on the lines of a hexagonal or rectangular zone; fractions of b1, b2."""
SAME_K = 1e-6
INDUCED = 0.05
"""Of the largest moment: up to it an atom has what its neighbours induce, and is no part of the order."""


@dataclass(frozen=True, eq=False)
class DFTResult:
    """A finished calculation of one magnetic order.

    Energies in eV, moments in μB, `dipole_z` in e·Å (NaN where the engine gave none), `k_points` (Nk, 2) in
    fractions of b1, b2, `eigenvalues` (2, Nk, n), up first, each sorted. `inputs` is all that the run
    depended on.
    """

    engine: str
    inputs: Mapping[str, Any]
    lattice: Floats
    energy: float
    converged: bool
    fermi_level: float
    gap: float
    total_moment: float
    site_moments: Floats
    dipole_z: float
    k_points: Floats
    eigenvalues: Floats
    seconds: float = 0.0

    @property
    def area(self) -> float:
        """The cell's area in Å²."""
        return float(np.linalg.norm(np.cross(self.lattice[0], self.lattice[1])))

    @property
    def polarisation(self) -> float:
        """Dipole along z over the area, in pC/m."""
        return self.dipole_z / self.area * PC_PER_M

    def splitting(self) -> Floats:
        """Return E_up - E_down of every band, (Nk, n) in eV. Raises `AltermagError` if not converged."""
        if not self.converged:
            raise AltermagError("the calculation did not converge; its bands say nothing")
        return self.eigenvalues[0] - self.eigenvalues[1]

    def within(self, window: float) -> NDArray[np.bool_]:
        """Return which bands lie within `window` eV of the Fermi level, (Nk, n)."""
        return np.abs(self.eigenvalues.mean(0) - self.fermi_level) <= window

    def largest_splitting(self, window: float) -> Floats:
        """Return max |Δ_n(k)| in eV over the bands within `window` eV of the Fermi level, (Nk,)."""
        return np.where(self.within(window), np.abs(self.splitting()), 0.0).max(1)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON, which monty's decoder makes an object of again."""
        named = {"@module": type(self).__module__, "@class": type(self).__name__}
        return named | {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DFTResult:
        """Return the result that `as_dict` gave. Raises `AltermagError` where an entry is missing."""
        known = {entry.name for entry in fields(cls)}
        missing = sorted(known - values.keys())
        if missing:
            raise AltermagError(f"this is not a result of a calculation: it has no {', '.join(missing)}")
        arrays = ("lattice", "site_moments", "k_points", "eigenvalues")
        given = {name: value for name, value in values.items() if name in known}
        return cls(**given | {name: np.array(values[name], dtype=float) for name in arrays})

    def save(self, path: str | PathLike[str]) -> None:
        """Write the result as JSON, whole or not at all."""
        write_whole(Path(path), json.dumps(self.as_dict()))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> DFTResult:
        """Return the result in a file. Raises `AltermagError` if it is not one."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise AltermagError(f"{path} is not a result of a calculation: {error}") from error


@dataclass(frozen=True)
class SplittingCheck:
    """What the splittings of a result say about the symmetry of its structure, in meV.

    `forced_zeros` is the largest |Δ| where a spin-flip operation maps k to ±k, `generic` the largest
    elsewhere, `reflection` the largest |Δ_n(σk) + Δ_n(k)| over the spin-flip operations σ that map one
    point to another.
    """

    forced_zeros: float
    generic: float
    reflection: float
    n_forced: int
    n_pairs: int
    zeros: NDArray[np.bool_] = field(repr=False)


def in_plane_rotations(
    layered: Layered, *, symprec: float | None = None, mag_tol: float | None = None
) -> tuple[Integers, Integers]:
    """Return the in-plane parts, (·, 2, 2), of operations that keep the spins and of those that flip them.

    `symprec` in Å and `mag_tol` are by default those of the layer, else 1e-3 and 0.02, as in `classify`.
    """
    found = spin_operations(
        layered.lattice,
        layered.frac_coords,
        layered.species,
        layered.magmoms,
        symprec=getattr(layered, "symprec", DEFAULT_SYMPREC) if symprec is None else symprec,
        mag_tol=getattr(layered, "mag_tol", DEFAULT_MAG_TOL) if mag_tol is None else mag_tol,
        planar=True,
    )
    plane = found.rotations[:, :2, :2]
    return np.unique(plane[found.signs == 1], axis=0), np.unique(plane[found.signs == -1], axis=0)


def check_points(layered: Layered, generic: Iterable[tuple[float, float]] = (GENERIC,)) -> Floats:
    """Return points that test the symmetry, (Nk, 2): named ones and the images of generic ones, each once.

    The symmetry is searched with the layer's own tolerances.
    """
    keeps, flips = in_plane_rotations(layered)
    points = [np.array(point, dtype=float) for point in NAMED]
    points += [_image(rotation, np.array(point)) for point in generic for rotation in (*keeps, *flips)]
    unique: list[Floats] = []
    for point in points:
        if not any(_same(point, other) for other in unique):
            unique.append(point)
    return np.array(unique)


def check_splitting(result: DFTResult, flips: Integers, window: float = 3.0) -> SplittingCheck:
    """Return how well a result keeps what the in-plane parts of the spin-flip operations, (F, 2, 2), demand.

    Bands count within `window` eV of the Fermi level. Raises `AltermagError` if the result did not converge.
    """
    zeros = np.array([_is_forced(point, flips) for point in result.k_points])
    largest = 1e3 * result.largest_splitting(window)
    splitting, near = 1e3 * result.splitting(), result.within(window)
    residuals = [
        np.where(near[i] & near[j], np.abs(splitting[i] + splitting[j]), 0.0).max()
        for i, point in enumerate(result.k_points)
        for j, other in enumerate(result.k_points)
        if i < j and any(_same(_image(flip, point), sign * other) for flip in flips for sign in (1, -1))
    ]
    return SplittingCheck(
        forced_zeros=float(largest[zeros].max(initial=0.0)),
        generic=float(largest[~zeros].max(initial=0.0)),
        reflection=float(max(residuals, default=0.0)),
        n_forced=int(zeros.sum()),
        n_pairs=len(residuals),
        zeros=zeros,
    )


def check_order(requested: ArrayLike, found: ArrayLike, smallest: float = 0.05) -> str:
    """Return how the moments of a calculation differ in sign from those asked for, or nothing.

    The order is that of the atoms with more than 5% of the largest moment asked for: what the others have is
    induced. A moment below `smallest` μB, and below half of a smaller one that was asked for, counts as lost.
    """
    wanted, moments = np.asarray(requested, dtype=float), np.asarray(found, dtype=float)
    size = np.abs(wanted)
    magnetic = size > INDUCED * size.max(initial=0.0)
    signs = np.where(np.abs(moments) < np.minimum(smallest, size / 2), 0, np.sign(moments))
    wrong = magnetic & (signs != np.sign(wanted))
    if not wrong.any():
        return ""
    shown = ", ".join(f"atom {i}: {wanted[i]:+.2f} became {moments[i]:+.2f}" for i in np.flatnonzero(wrong))
    return f"SCF left the requested order ({shown} μB)"


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all: a reader sees the old text or the new."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _image(rotation: Integers, point: Floats) -> Floats:
    """R k in fractions of b1, b2: the inverse transpose of R in fractions of a1, a2."""
    return np.linalg.inv(rotation).T @ point


def _same(one: Floats, other: Floats) -> bool:
    difference = one - other
    return bool(np.abs(difference - np.rint(difference)).max() < SAME_K)


def _is_forced(point: Floats, flips: Integers) -> bool:
    return any(_same(_image(flip, point), sign * point) for flip in flips for sign in (1, -1))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
