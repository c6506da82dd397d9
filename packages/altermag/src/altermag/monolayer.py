"""A magnetic monolayer in the package's frame, its layer group, its operations with signs (2.1, 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from altermag.cells import primitive_cell
from altermag.errors import AltermagError
from altermag.operations import Group, Operations, layer_group, spin_operations
from altermag.slabs import (
    Floats,
    check_contacts,
    checked_cell,
    collinear,
    site_moments,
    to_slab,
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
        found = primitive_cell(self.lattice, self.frac_coords, self.operations, self.symprec, planar=True)
        if found is None:
            return self, np.eye(2)
        lattice, frac, kept = found
        primitive = Monolayer.from_arrays(
            lattice,
            frac,
            [self.species[i] for i in kept],
            self.magmoms[kept],
            2,
            symprec=self.symprec,
            mag_tol=self.mag_tol,
            whole=True,
        )
        return primitive, np.asarray(self.lattice[:2, :2] @ np.linalg.inv(lattice[:2, :2]))
