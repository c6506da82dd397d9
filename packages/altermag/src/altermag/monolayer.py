"""A magnetic monolayer in the package's frame, its layer group, its operations with signs (2.1, 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from altermag.errors import AltermagError
from altermag.operations import Group, Integers, Operations, layer_group, spin_operations
from altermag.slabs import (
    MIN_CONTACT,
    Floats,
    check_contacts,
    checked_cell,
    collinear,
    site_moments,
    to_slab,
    wrapped,
)

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core.structure import Structure

PLANE = (True, True, False)


@dataclass(frozen=True, eq=False)
class Monolayer:
    """A layer: x ∥ a1, z its normal a1 × a2, mid-plane at half of the third vector, which is vacuum.

    `lattice` (3, 3) in Å, rows are vectors; `frac_coords` (n, 3); `species` n element symbols; `magmoms` (n,)
    in μB along the common axis; `symprec` in Å and `mag_tol` (relative to the largest moment) are those of
    the symmetry. Made by `from_arrays`, `from_atoms`, `from_structure` or `from_file`.
    """

    lattice: Floats
    frac_coords: Floats
    species: tuple[str, ...]
    magmoms: Floats
    symprec: float = 1e-3
    mag_tol: float = 0.02

    @classmethod
    def from_arrays(
        cls,
        lattice: ArrayLike,
        frac_coords: ArrayLike,
        species: Sequence[str],
        magmoms: ArrayLike | Mapping[str, float],
        vacuum_axis: int | None = None,
        *,
        symprec: float = 1e-3,
        mag_tol: float = 0.02,
        whole: bool = False,
    ) -> Monolayer:
        """Return the monolayer of a cell: lattice (3, 3) in Å, fractional coordinates (n, 3), n symbols,
        moments.

        Any vacuum axis, rotated, left-handed or supercell is accepted; the in-plane vectors stay the user's.
        Moments are (n,), (n, 3) if collinear, or a mapping of elements, in μB. With `whole` the layer is in
        one piece along `vacuum_axis` and is not cut at its widest gap. Raises `AltermagError` for whatever
        does not fit.
        """
        rows, frac = checked_cell(lattice, frac_coords, species)
        if whole and vacuum_axis is None:
            raise AltermagError("whole=True needs vacuum_axis")
        moments = collinear(site_moments(species, magmoms))
        if not moments.any():
            raise AltermagError("all moments are zero; a magnetic monolayer needs at least one that is not")
        slab, inside = to_slab(rows, frac, vacuum_axis=vacuum_axis, whole=whole)
        check_contacts(slab, inside, species, PLANE, symprec)
        return cls(slab, inside, tuple(species), moments, symprec, mag_tol)

    @classmethod
    def from_atoms(
        cls, atoms: Atoms, magmoms: ArrayLike | Mapping[str, float] | None = None, **options: Any
    ) -> Monolayer:
        """Return the monolayer of ASE atoms; without `magmoms` their initial magnetic moments are taken.

        Where exactly one direction is not periodic it is the vacuum, and the layer is taken as it lies.
        """
        from altermag.io import from_ase

        return cls._from(from_ase(atoms), magmoms, options)

    @classmethod
    def from_structure(
        cls, structure: Structure, magmoms: ArrayLike | Mapping[str, float] | None = None, **options: Any
    ) -> Monolayer:
        """Return the monolayer of a pymatgen structure; without `magmoms` its site property "magmom"."""
        from altermag.io import from_pymatgen

        return cls._from(from_pymatgen(structure), magmoms, options)

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        magmoms: ArrayLike | Mapping[str, float] | None = None,
        **options: Any,
    ) -> Monolayer:
        """Return the monolayer of a .cif, .mcif, .json, POSCAR or what ASE reads (see `altermag.io.read`)."""
        from altermag.io import read

        return cls._from(read(path), magmoms, options)

    @classmethod
    def _from(cls, crystal: Any, magmoms: Any, options: dict[str, Any]) -> Monolayer:
        moments = crystal.magmoms if magmoms is None else magmoms
        options = {"vacuum_axis": crystal.vacuum_axis, "whole": crystal.vacuum_axis is not None} | options
        return cls.from_arrays(crystal.lattice, crystal.frac_coords, crystal.species, moments, **options)

    @property
    def structure(self) -> Structure:
        """The monolayer as a pymatgen structure, the moments as the site property "magmom"."""
        from altermag.io import to_pymatgen

        return to_pymatgen(self)

    @property
    def atoms(self) -> Atoms:
        """The monolayer as ASE atoms, periodic in the plane, with initial magnetic moments."""
        from altermag.io import to_ase

        return to_ase(self)

    @property
    def heights(self) -> Floats:
        """Height of every atom over the mid-plane in Å, shape (n,)."""
        return (self.frac_coords[:, 2] - 0.5) * self.lattice[2, 2]

    @property
    def thickness(self) -> float:
        """Distance of the outermost atoms along z in Å."""
        return float(np.ptp(self.heights))

    @cached_property
    def layer_group(self) -> Group:
        """The layer group of the positions, `number` and `symbol`; moments are left aside."""
        return layer_group(self.lattice, self.frac_coords, self.species, self.symprec)

    @cached_property
    def operations(self) -> Operations:
        """The layer group with signs: the operations that keep (+1) or flip (-1) every moment."""
        return spin_operations(
            self.lattice,
            self.frac_coords,
            self.species,
            self.magmoms,
            symprec=self.symprec,
            mag_tol=self.mag_tol,
            planar=True,
        )

    @property
    def primitive(self) -> Monolayer:
        """The same layer in a cell without translations that keep the moments; itself if there are none."""
        return self._reduction[0]

    @property
    def to_primitive(self) -> Floats:
        """Matrix (2, 2) that turns in-plane fractions (rows) of this cell into the primitive cell's."""
        return self._reduction[1]

    @cached_property
    def _reduction(self) -> tuple[Monolayer, Floats]:
        basis = primitive_basis(self.operations)
        if abs(np.linalg.det(basis) - 1) < 1e-6:
            return self, np.eye(2)
        lattice = self.lattice.copy()
        lattice[:2, :2] = reduced(basis @ self.lattice[:2, :2])
        combination = np.rint(lattice[:2, :2] @ np.linalg.inv(basis @ self.lattice[:2, :2]))
        change: Floats = combination @ basis
        inside = self.frac_coords.copy()
        inside[:, :2] = wrapped(inside[:, :2] @ np.linalg.inv(change))
        keep = _one_of_each(inside, lattice, self.symprec)
        primitive = Monolayer.from_arrays(
            lattice,
            inside[keep],
            [self.species[i] for i in keep],
            self.magmoms[keep],
            2,
            symprec=self.symprec,
            mag_tol=self.mag_tol,
            whole=True,
        )
        return primitive, np.asarray(np.linalg.inv(change))


def primitive_basis(operations: Operations) -> Floats:
    """Return the vectors (2, 2), in fractions of the cell, of the translations that keep the moments."""
    pure = (operations.rotations == np.eye(3, dtype=int)).all((1, 2)) & (operations.signs == 1)
    count = int(pure.sum())
    # A group of `count` translations modulo the cell: each, times count, is a vector of the cell's lattice.
    whole = np.rint(operations.translations[pure, :2] * count).astype(np.int64)
    return hermite(np.vstack([whole, count * np.eye(2, dtype=np.int64)])) / count


def hermite(vectors: Integers) -> Integers:
    """Return the upper triangular basis (2, 2) of the lattice that integer vectors (m, 2) span."""
    first = np.zeros(2, dtype=np.int64)
    rest = 0
    for vector in vectors:
        row = vector.copy()
        while row[0]:
            first, row = row, first - (first[0] // row[0]) * row
        rest = gcd(rest, int(row[1]))
    first = first * (1 if first[0] > 0 else -1)
    return np.array([[first[0], first[1] % rest], [0, rest]])


def reduced(plane: Floats) -> Floats:
    """Return a Lagrange-reduced right-handed basis (2, 2), at an obtuse angle, of the same lattice (rows)."""
    a, b = plane
    if a @ a > b @ b:
        a, b = b, a
    while True:
        b = b - np.rint(a @ b / (a @ a)) * a
        if b @ b >= a @ a - 1e-9:
            break
        a, b = b, a
    if a @ b > 1e-9:
        b = -b
    return np.array([a, b]) if a[0] * b[1] - a[1] * b[0] > 0 else np.array([b, a])


def _one_of_each(frac: Floats, lattice: Floats, symprec: float) -> list[int]:
    """Return the indices of the atoms that are not a lattice translation of an earlier one."""
    kept: list[int] = []
    for i, place in enumerate(frac):
        difference = frac[kept] - place
        difference[:, :2] -= np.rint(difference[:, :2])
        apart = np.linalg.norm(difference @ lattice, axis=1)
        if not (apart < max(symprec, MIN_CONTACT / 2)).any():
            kept.append(i)
    return kept
