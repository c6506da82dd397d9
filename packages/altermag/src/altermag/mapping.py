"""The class of every stacking of a monolayer: 10⁶ shifts in well under a second, no cell built (2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from altermag.errors import AltermagError
from altermag.judging import judge
from altermag.kernel import Congruences, congruences
from altermag.monolayer import Monolayer
from altermag.operations import Integers, Operations, relative_moments
from altermag.slabs import Floats
from altermag.stacking import fractional_operator, resolve_operator
from altermag.waves import nodal_reflections, wave

if TYPE_CHECKING:
    from altermag.special import SpecialPosition

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class Stratum:
    """What all shifts with the same operations are; fields as in `Classification`."""

    kind: str
    reason: str
    wave: str | None
    n_nodal_lines: int
    polar_z: bool
    chiral: bool
    n_keep: int
    n_flip: int


@dataclass(frozen=True)
class Family:
    """All bilayers of one monolayer, operator and order: their congruences, in the primitive cell.

    `to_primitive` (2, 2) turns shifts (rows) of the user's cell into the primitive cell's; `operator` (3, 3)
    is O in the primitive basis and `eta` the sign of the top layer's moments.
    """

    monolayer: Monolayer
    op: str
    eta: int
    operator: Integers
    to_primitive: Floats
    congruences: Congruences

    @classmethod
    def of(cls, mono: Monolayer, op: str | ArrayLike, order: str = "afm") -> Family:
        """Return the family; raises `AltermagError` for an operator that the primitive lattice has not."""
        if order not in ("afm", "fm"):
            raise AltermagError(f"order={order!r}; needed: 'afm' or 'fm'")
        plane = np.linalg.inv(mono.to_primitive) @ mono.lattice[:2, :2]
        name, operator = resolve_operator(op, plane)
        inside = fractional_operator(operator, plane)
        eta = -1 if order == "afm" else 1
        found = congruences(mono.primitive.operations, inside, eta, plane)
        return cls(mono, name, eta, inside, mono.to_primitive, found)

    def stratum(self, code: int) -> Stratum:
        """Return what the shifts are at which exactly these forms hold."""
        operations = self.congruences.operations(code)
        moments = self.monolayer.primitive.magmoms
        scaled = relative_moments(np.r_[moments, self.eta * moments], self.monolayer.mag_tol)
        return judged(operations, scaled, self.monolayer.mag_tol)


@dataclass(frozen=True, eq=False)
class StackingMap:
    """The classes of N shifts. `shifts` (N, 2) in fractions of the monolayer's cell.

    `index` (N,) says which of `strata` a shift belongs to; `kind`, `wave` ("" for none), `n_nodal_lines` and
    `polar_z` are arrays (N,) with what it says.
    """

    family: Family
    shifts: Floats
    index: NDArray[np.int64]
    strata: tuple[Stratum, ...]

    @cached_property
    def kind(self) -> Strings:
        """The class of every shift, one of `altermag.judging.KINDS`."""
        return np.array([stratum.kind for stratum in self.strata])[self.index]

    @cached_property
    def wave(self) -> Strings:
        """The in-plane wave of every shift, "" where there is none."""
        return np.array([stratum.wave or "" for stratum in self.strata])[self.index]

    @cached_property
    def n_nodal_lines(self) -> NDArray[np.int64]:
        """The number of nodal lines through Γ that symmetry forces."""
        return np.array([stratum.n_nodal_lines for stratum in self.strata])[self.index]

    @cached_property
    def polar_z(self) -> NDArray[np.bool_]:
        """Whether a polarisation along z is allowed."""
        return np.array([stratum.polar_z for stratum in self.strata])[self.index]

    def counts(self) -> dict[str, int]:
        """Return how many shifts are of each class, the most frequent first."""
        numbers = np.bincount(self.index, minlength=len(self.strata))
        found: dict[str, int] = {}
        for stratum, number in zip(self.strata, numbers.tolist(), strict=True):
            found[stratum.kind] = found.get(stratum.kind, 0) + number
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def special_positions(self) -> list[SpecialPosition]:
        """Return all special points, lines and the generic position of this monolayer and operator."""
        from altermag.special import family_positions

        return family_positions(self.family)

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """Draw the map (extra `plot`) into a file, and return matplotlib's figure."""
        from altermag.plot import plot_stacking_map

        return plot_stacking_map(self, self.family.monolayer.lattice, path)


def stacking_map(
    mono: Monolayer,
    op: str | ArrayLike = "mirror",
    shifts: int | Sequence[Sequence[float]] | Floats = 48,
    *,
    order: str = "afm",
) -> StackingMap:
    """Return the class of every shift: of an n x n grid, or of an array (N, 2) in fractions of the
    monolayer's cell.

    A shift has an operation that maps the atoms within the monolayer's `symprec` (Å), as spglib counts it.
    Raises `AltermagError` for an operator that does not map the lattice onto itself, or shifts of another
    shape or not finite.
    """
    family = Family.of(mono, op, order)
    table = _shifts(shifts)
    found, index = _classes(family.congruences, table @ family.to_primitive, mono.symprec)
    strata = tuple(family.stratum(int(code)) for code in found)
    return StackingMap(family, table, index, strata)


def judged(operations: Operations, moments: Floats, mag_tol: float) -> Stratum:
    """Return the stratum of a layer's operations and relative moments (n,), by the rules of `judging`."""
    kind, reason = judge(operations, moments, mag_tol, 2)
    blocks = operations.rotations[:, :2, :2], operations.signs
    alternating = kind == "altermagnet"
    return Stratum(
        kind=kind,
        reason=reason,
        wave=wave(*blocks) if alternating else None,
        n_nodal_lines=len(nodal_reflections(*blocks)) if alternating else 0,
        polar_z=bool((operations.rotations[:, 2, 2] == 1).all()),
        chiral=bool((np.rint(np.linalg.det(operations.rotations)) == 1).all()),
        n_keep=_count(operations, 1),
        n_flip=_count(operations, -1),
    )


def _count(operations: Operations, sign: int) -> int:
    return int((operations.signs == sign).sum())


def _shifts(shifts: Any) -> Floats:
    if isinstance(shifts, (int, np.integer)):
        if shifts < 1:
            raise AltermagError(f"shifts={shifts}; needed: at least 1 along each vector")
        steps = np.arange(shifts) / shifts
        return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    table = np.array(shifts, dtype=float)
    if table.ndim != 2 or table.shape[1] != 2 or not np.isfinite(table).all():
        raise AltermagError(f"shifts of shape {table.shape}; needed: a number, or finite fractions (N, 2)")
    return table


def _classes(
    found: Congruences, shifts: Floats, symprec: float
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the different codes and, for every shift, which it has.

    A shift just farther than `symprec` from a point can be within it of two lines that cross there, and so
    have the two operations without their product; the tolerance is doubled for it until the operations are a
    group.
    """
    codes = found.codes(shifts, symprec)
    tolerance = symprec
    while True:
        different, index = _unique(codes, len(found.forms))
        is_open = np.array([not found.is_group(int(code)) for code in different])
        if not is_open.any():
            return different, index
        tolerance *= 2
        unsure = is_open[index]
        codes[unsure] = found.codes(shifts[unsure], tolerance)


def _unique(codes: NDArray[np.uint64], bits: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the different codes and the index of each; by counting, not sorting, where they are small."""
    if bits > 20:
        found, index = np.unique(codes, return_inverse=True)
        return found, index.astype(np.int64)
    small = codes.astype(np.int64)
    there = np.flatnonzero(np.bincount(small, minlength=1 << bits))
    place = np.zeros(1 << bits, dtype=np.int64)
    place[there] = np.arange(len(there))
    return there.astype(np.uint64), place[small]
