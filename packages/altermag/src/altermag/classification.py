"""The magnetic class of a structure without spin-orbit coupling, in the plane or in space (section 2.4).

A spin-flip operation {R|t} says E_s(k) = E_{-s}(±Rk): bands are degenerate at every k exactly if one of them
has R = ±1. For a layer only the in-plane block of R counts, since k has no third component: a mirror z → -z
or an axis C2z that flips the spins makes a degenerate antiferromagnet, which checkers for bulk crystals call
an altermagnet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from altermag.bilayer_group import bilayer_operations
from altermag.cells import primitive_cell, rotation_count
from altermag.errors import AltermagError
from altermag.hall import hall_components
from altermag.io import Crystal, from_ase, from_pymatgen, read
from altermag.judging import judge
from altermag.monolayer import PLANE, Monolayer
from altermag.operations import (
    Group,
    Integers,
    Operations,
    layer_group,
    relative_moments,
    space_group,
    spin_operations,
)
from altermag.slabs import (
    MAX_CANTING,
    Floats,
    check_contacts,
    checked_cell,
    collinear,
    on_common_axis,
    site_moments,
    to_slab,
)
from altermag.spin_groups import SpinOperation, spin_operation_list, spin_point_group
from altermag.stacking import Bilayer
from altermag.waves import nodal_directions, nodal_reflections, nodal_segments, wave

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

DEFAULT_SYMPREC, DEFAULT_MAG_TOL = 1e-3, 0.02


@dataclass(frozen=True)
class Classification:
    """What `classify` found.

    `kind` is one of `altermag.judging.KINDS` ("noncollinear" only where that was allowed); `reason` says why
    the spins are degenerate ("translation", "P", and in the plane "Mz", "C2z"), or in words what decided.
    `wave` ("d", "g", "i") is that of the dimension asked for, `wave_3d` that of the same structure judged in
    space; None where there is none. `n_nodal_lines` counts the nodal lines through Γ that symmetry forces
    (dim=3: planes), `nodal_directions` are their angles from x in degrees. `chiral`, `polar_z` and
    `polar_inplane` are those of the group of all operations, spin-keeping and spin-flipping. `lattice`,
    `frac_coords`, `species`, `magmoms` are the structure as judged: in the package's frame for dim=2, and in
    the primitive cell where the given one hides rotations. `layer_group` and `space_group` are looked for
    when they are asked for.
    """

    kind: str
    reason: str
    dim: int
    wave: str | None
    wave_3d: str | None
    n_nodal_lines: int
    nodal_directions: tuple[float, ...]
    keep_ops: tuple[SpinOperation, ...]
    flip_ops: tuple[SpinOperation, ...]
    spin_point_group: str
    chiral: bool
    polar_z: bool
    polar_inplane: bool
    symprec: float
    mag_tol: float
    lattice: tuple[tuple[float, ...], ...]
    frac_coords: tuple[tuple[float, ...], ...]
    species: tuple[str, ...]
    magmoms: tuple[float, ...]

    def nodal_lines(self) -> Floats:
        """Return the lines in the zone where symmetry forces the splitting to zero, through Γ and at its
        edge.

        Shape (n, 2, 2): the two ends in fractions of b1 and b2. Raises `AltermagError` unless dim=2; for a
        degenerate antiferromagnet, whose splitting vanishes everywhere, there are none to single out.
        """
        if self.dim != 2:
            raise AltermagError("nodal lines in the zone are those of a layer: classify with dim=2")
        if self.kind != "altermagnet":
            return np.empty((0, 2, 2))
        reflections = nodal_reflections(*_blocks(self.operations, 2))
        return nodal_segments(reflections, np.array(self.lattice)[:2, :2])

    def hall_vector(self, neel: ArrayLike = (0, 0, 1)) -> set[str]:
        """Return which of x, y, z the Hall vector may have with spin-orbit coupling and moments along `neel`
        (3,).

        Cartesian, in the frame of `lattice`; z is the polar Kerr effect and the anomalous Hall effect of the
        sheet.
        """
        return hall_components(
            np.array(self.lattice),
            np.array(self.frac_coords),
            self.species,
            np.array(self.magmoms),
            neel,
            symprec=self.symprec,
            mag_tol=self.mag_tol,
            planar=self.dim == 2,
        )

    @cached_property
    def layer_group(self) -> Group | None:
        """The layer group of the positions, moments left aside; None unless dim=2."""
        return layer_group(*self._positions) if self.dim == 2 else None

    @cached_property
    def space_group(self) -> Group | None:
        """The space group of the positions, moments left aside; None unless dim=3."""
        return space_group(*self._positions) if self.dim == 3 else None

    @property
    def _positions(self) -> tuple[Floats, Floats, tuple[str, ...], float]:
        return np.array(self.lattice), np.array(self.frac_coords), self.species, self.symprec

    @property
    def operations(self) -> Operations:
        """All operations as arrays, the keeping ones first."""
        both = self.keep_ops + self.flip_ops
        return Operations(
            np.array([op.rotation for op in both], dtype=np.int64).reshape(-1, 3, 3),
            np.array([op.translation for op in both], dtype=float).reshape(-1, 3),
            np.array([-1 if op.flip else 1 for op in both], dtype=np.int64),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data with the versions that made them; `from_dict` takes it back."""
        from importlib.metadata import version

        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("keep_ops", "flip_ops"):
            data[name] = [operation.to_dict() for operation in data[name]]
        for name in ("layer_group", "space_group"):
            group = getattr(self, name)
            data[name] = group and group._asdict()
        for name in ("nodal_directions", "species", "magmoms"):
            data[name] = list(data[name])
        for name in ("lattice", "frac_coords"):
            data[name] = [list(row) for row in data[name]]
        return {
            "@module": "altermag.classification",
            "@class": "Classification",
            "@version": version("altermag"),
            "spglib": version("spglib"),
            **data,
        }

    as_dict = to_dict  # the name that monty and pymatgen look for

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Classification:
        """Return the classification that `to_dict` wrote."""
        fields = {name: data[name] for name in cls.__dataclass_fields__}
        for name in ("keep_ops", "flip_ops"):
            fields[name] = tuple(map(SpinOperation.from_dict, fields[name]))
        for name in ("nodal_directions", "species", "magmoms"):
            fields[name] = tuple(fields[name])
        for name in ("lattice", "frac_coords"):
            fields[name] = _rows(fields[name])
        return cls(**fields)


def classify(
    obj: Bilayer | Monolayer | Structure | Atoms | str | PathLike[str] | tuple[Any, ...],
    magmoms: ArrayLike | Mapping[str, float] | None = None,
    *,
    dim: int = 2,
    symprec: float | None = None,
    mag_tol: float | None = None,
    vacuum_axis: int | None = None,
    allow_noncollinear: bool = False,
) -> Classification:
    """Return the magnetic class of a structure, as a layer (dim=2) or as a crystal (dim=3).

    `obj` is a bilayer, a monolayer, a pymatgen structure, ASE atoms, a file, or (lattice, fractions, numbers
    or symbols[, moments]). `magmoms` replaces its moments: (n,), (n, 3), or by element. `symprec` in Å and
    `mag_tol` (relative to the largest moment) are by default those of the bilayer, else 1e-3 and 0.02.
    Noncollinear moments raise `AltermagError` unless `allow_noncollinear`; so do missing moments, and a layer
    without vacuum.
    """
    if dim not in (2, 3):
        raise AltermagError(f"dim={dim}; needed: 2 for a layer or 3 for a crystal")
    symprec = symprec if symprec is not None else getattr(obj, "symprec", DEFAULT_SYMPREC)
    mag_tol = mag_tol if mag_tol is not None else getattr(obj, "mag_tol", DEFAULT_MAG_TOL)
    if not 0 < mag_tol < 1:
        raise AltermagError(f"mag_tol={mag_tol}; needed: a fraction of the largest moment, between 0 and 1")
    if isinstance(obj, Bilayer) and dim == 2 and magmoms is None:
        # `stack` has checked it, and its operations follow from those of the monolayer.
        operations = bilayer_operations(obj) if (symprec, mag_tol) == (obj.symprec, obj.mag_tol) else None
        if operations is not None:
            cell = (obj.lattice, obj.frac_coords, obj.species, obj.magmoms, operations)
            return _classification(*cell, dim=dim, symprec=symprec, mag_tol=mag_tol)
    crystal = _crystal(obj)
    lattice, frac = checked_cell(crystal.lattice, crystal.frac_coords, crystal.species)
    vectors = site_moments(crystal.species, crystal.magmoms if magmoms is None else magmoms)
    canted = on_common_axis(vectors)[1] > MAX_CANTING
    moments = on_common_axis(vectors)[0] if canted and allow_noncollinear else collinear(vectors)
    # Bilayers and monolayers are in the package's frame already.
    if dim == 2 and not isinstance(obj, (Bilayer, Monolayer)):
        axis = crystal.vacuum_axis if vacuum_axis is None else vacuum_axis
        lattice, frac = to_slab(lattice, frac, vacuum_axis=axis, whole=crystal.vacuum_axis is not None)
    check_contacts(lattice, frac, crystal.species, PLANE if dim == 2 else (True, True, True), symprec)
    cell = _with_all_rotations(
        lattice, frac, crystal.species, moments, symprec=symprec, mag_tol=mag_tol, planar=dim == 2
    )
    return _classification(*cell, dim=dim, symprec=symprec, mag_tol=mag_tol, canted=canted)


def symprec_scan(
    obj: Any, symprecs: Iterable[float] = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1), **options: Any
) -> list[tuple[float, Classification]]:
    """Return the class at every tolerance in Å; those at which atoms would merge are left out.

    `options` are those of `classify`. Slightly distorted (experimental, relaxed) structures change class with
    the tolerance, and a single answer hides that.
    """
    found = []
    for symprec in symprecs:
        try:
            found.append((symprec, classify(obj, symprec=symprec, **options)))
        except AltermagError as error:
            if "symprec" not in str(error):
                raise
    return found


def _classification(
    lattice: Floats,
    frac: Floats,
    species: tuple[str, ...],
    moments: Floats,
    operations: Operations,
    *,
    dim: int,
    symprec: float,
    mag_tol: float,
    canted: bool = False,
) -> Classification:
    arrays = (operations.rotations, operations.signs, lattice, relative_moments(moments, mag_tol))
    told = _told_by_rotations(*(np.ascontiguousarray(array).tobytes() for array in arrays), mag_tol, dim)
    if canted:
        told = told | {"kind": "noncollinear", "reason": "the moments have no common axis"}
        told |= _in_k("noncollinear", operations, lattice, dim)
    return Classification(
        dim=dim,
        symprec=symprec,
        mag_tol=mag_tol,
        lattice=_rows(lattice),
        frac_coords=_rows(frac),
        species=species,
        magmoms=tuple(moments.tolist()),
        **_listed(operations),
        **told,
    )


@lru_cache(maxsize=1024)
def _told_by_rotations(
    rotations: bytes, signs: bytes, lattice: bytes, moments: bytes, mag_tol: float, dim: int
) -> dict[str, Any]:
    """Return all that does not depend on where the atoms are: many stackings differ in nothing else.

    The arguments are the arrays of `Operations`, the lattice and the relative moments, as bytes.
    """
    rows = np.frombuffer(rotations, dtype=np.int64).reshape(-1, 3, 3)
    operations = Operations(rows, np.zeros((len(rows), 3)), np.frombuffer(signs, dtype=np.int64))
    cell = np.frombuffer(lattice).reshape(3, 3)
    kind, reason = judge(operations, np.frombuffer(moments), mag_tol, dim)
    return {
        "kind": kind,
        "reason": reason,
        "spin_point_group": spin_point_group(operations),
        **_in_k(kind, operations, cell, dim),
        **vector_symmetry(operations, cell),
    }


def _with_all_rotations(
    lattice: Floats, frac: Floats, species: tuple[str, ...], moments: Floats, **search: Any
) -> tuple[Floats, Floats, tuple[str, ...], Floats, Operations]:
    """Return the structure and its operations, in the primitive cell where the given one hides rotations.

    A supercell is searched only for operations that map its own lattice onto itself: a 2 x 1 cell of a
    hexagonal crystal has lost the three-fold axis.
    """
    operations = spin_operations(lattice, frac, species, moments, **search)
    small = primitive_cell(lattice, frac, operations, search["symprec"], planar=search["planar"])
    if small is None:
        return lattice, frac, species, moments, operations
    cell, inside, kept = small
    fewer = tuple(species[i] for i in kept)
    all_operations = spin_operations(cell, inside, fewer, moments[kept], **search)
    if rotation_count(all_operations) == rotation_count(operations):
        return lattice, frac, species, moments, operations
    return cell, inside, fewer, moments[kept], all_operations


def vector_symmetry(operations: Operations, lattice: Floats) -> dict[str, Any]:
    """Return `chiral` (no improper operation), `polar_z` and `polar_inplane` (a polar vector may have it)."""
    projector = lattice.T @ operations.rotations.mean(0) @ np.linalg.inv(lattice.T)
    return {
        "chiral": bool((np.linalg.det(operations.rotations) > 0).all()),
        "polar_z": bool(np.abs(projector[2]).max() > 1e-6),
        "polar_inplane": bool(np.abs(projector[:2]).max() > 1e-6),
    }


def _listed(operations: Operations) -> dict[str, Any]:
    listed = spin_operation_list(operations)
    return {
        "keep_ops": tuple(op for op in listed if not op.flip),
        "flip_ops": tuple(op for op in listed if op.flip),
    }


def _in_k(kind: str, operations: Operations, lattice: Floats, dim: int) -> dict[str, Any]:
    """Return the wave and the nodes; none where the class has no alternating splitting."""
    asked, space = _blocks(operations, dim), _blocks(operations, 3)
    alternating = kind == "altermagnet"
    reflections = nodal_reflections(*asked) if alternating else []
    return {
        "wave": wave(*asked) if alternating else None,
        "wave_3d": wave(*space) if kind in ("altermagnet", "antiferromagnet") else None,
        "n_nodal_lines": len(reflections),
        "nodal_directions": nodal_directions(reflections, lattice[:2, :2]) if dim == 2 else (),
    }


def _blocks(operations: Operations, dim: int) -> tuple[Integers, Integers]:
    return operations.rotations[:, :dim, :dim], operations.signs


def _crystal(obj: Any) -> Crystal:
    """Return the crystal of whatever `classify` takes."""
    if isinstance(obj, (Bilayer, Monolayer)):
        return Crystal(obj.lattice, obj.frac_coords, obj.species, obj.magmoms, 2)
    if isinstance(obj, (str, PathLike)):
        return read(obj)
    if isinstance(obj, Atoms):
        return from_ase(obj)
    if isinstance(obj, tuple) and len(obj) in (3, 4):
        names = tuple(_symbol(species) for species in obj[2])
        return Crystal(np.asarray(obj[0]), np.asarray(obj[1]), names, obj[3] if len(obj) == 4 else None)
    if hasattr(obj, "lattice") and hasattr(obj, "site_properties"):
        return from_pymatgen(obj)
    raise AltermagError(
        f"cannot classify a {type(obj).__name__}; needed: a Bilayer, a Monolayer, a pymatgen Structure, ASE "
        "Atoms, a path, or a tuple (lattice, fractions, species[, moments])"
    )


def _symbol(species: Any) -> str:
    if isinstance(species, (int, np.integer)) and 0 < species < len(chemical_symbols):
        return chemical_symbols[species]
    return str(species)


def _rows(matrix: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, matrix.tolist() if hasattr(matrix, "tolist") else matrix))
