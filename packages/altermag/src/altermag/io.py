"""Read and write what the field uses: pymatgen, ASE, CIF, magCIF, POSCAR, JSON (section 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from altermag.errors import AltermagError, MissingExtraError
from altermag.slabs import Floats

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


class Crystal(NamedTuple):
    """A structure as it was given: nothing normalised. `magmoms` (n,) or (n, 3), None where there are none.

    `vacuum_axis` is the one direction that is said not to be periodic, else None.
    """

    lattice: Floats
    frac_coords: Floats
    species: tuple[str, ...]
    magmoms: Floats | None
    vacuum_axis: int | None = None


class Layered(Protocol):
    """What a monolayer and a bilayer have in common."""

    @property
    def lattice(self) -> Floats:
        """Row vectors (3, 3) in Å."""

    @property
    def frac_coords(self) -> Floats:
        """Fractions (n, 3)."""

    @property
    def species(self) -> tuple[str, ...]:
        """Element symbols, n of them."""

    @property
    def magmoms(self) -> Floats:
        """Moments (n,) in μB."""


def read(path: str | PathLike[str]) -> Crystal:
    """Return the crystal of a file.

    .mcif is read by pymatgen (extra `pymatgen`) with its moments in Cartesian components, .json is this
    package's or pymatgen's, and everything else is read by ASE. Raises `AltermagError` for a missing or
    unreadable file, several occupants of a site, or a magCIF without moments.
    """
    file = Path(path)
    if not file.is_file():
        raise AltermagError(f"{file}: {'a folder, not a structure' if file.is_dir() else 'no such file'}")
    if file.suffix == ".mcif":
        return _read_mcif(file)
    if file.suffix == ".json":
        return _read_json(file)
    import ase.io  # all its formats: slow to import, and only files need it

    try:
        atoms = ase.io.read(file)
    except Exception as error:  # ASE's readers raise whatever they stumble over
        raise AltermagError(
            f"{file}: not a structure that ASE can read ({type(error).__name__}{error and f': {error}'})"
        ) from error
    assert isinstance(atoms, Atoms)
    return from_ase(atoms)._replace(vacuum_axis=None)


def from_ase(atoms: Atoms) -> Crystal:
    """Return the crystal of ASE atoms; moments are None where all initial magnetic moments are zero."""
    _whole_sites(
        occupancy
        for occupants in atoms.info.get("occupancy", {}).values()
        for occupancy in occupants.values()
    )
    periodic = np.asarray(atoms.pbc)
    if periodic.sum() < 2:
        raise AltermagError(
            f"the atoms are periodic along {int(periodic.sum())} directions (pbc={periodic.tolist()}): a "
            "layer needs two, as atoms.pbc = (True, True, False)"
        )
    lattice = np.asarray(atoms.cell.complete())
    moments = np.asarray(atoms.get_initial_magnetic_moments(), dtype=float)
    frac = atoms.get_positions() @ np.linalg.inv(lattice)
    vacuum_axis = None if periodic.all() else int(np.argmin(periodic))
    symbols = tuple(atoms.get_chemical_symbols())
    return Crystal(lattice, frac, symbols, moments if moments.any() else None, vacuum_axis)


def from_pymatgen(structure: Structure) -> Crystal:
    """Return the crystal of a pymatgen structure; moments: site property "magmom", or the species' spins."""
    if not structure.is_ordered:
        raise AltermagError("a site is partially occupied; choose an ordered structure first")
    symbols = tuple(site.specie.symbol for site in structure)
    return Crystal(
        np.array(structure.lattice.matrix), np.array(structure.frac_coords), symbols, _moments(structure)
    )


def _moments(structure: Structure) -> Floats | None:
    """Return the moments (n,), or (n, 3) in Cartesian components where one is a vector."""
    given = structure.site_properties.get("magmom")
    if given is None:
        spins = [getattr(site.specie, "spin", None) for site in structure]
        return None if all(spin is None for spin in spins) else np.array([spin or 0.0 for spin in spins])
    # pymatgen's Magmom knows its own axes; a plain number is along z where others are vectors.
    values = [
        np.asarray(0.0 if moment is None else getattr(moment, "global_moment", moment), float)
        for moment in given
    ]
    if not any(value.ndim for value in values):
        return np.array(values)
    return np.array([value if value.ndim else [0.0, 0.0, float(value)] for value in values])


def to_pymatgen(layered: Layered) -> Structure:
    """Return a pymatgen structure with the moments as the site property "magmom"."""
    try:
        from pymatgen.core.lattice import Lattice
        from pymatgen.core.structure import Structure
    except ImportError as error:
        raise MissingExtraError(
            "pymatgen is needed for Structure objects: pip install 'altermag[pymatgen]'"
        ) from error
    return Structure(
        Lattice(layered.lattice, pbc=(True, True, False)),
        list(layered.species),
        layered.frac_coords,
        site_properties={"magmom": layered.magmoms.tolist()},
    )


def to_ase(layered: Layered) -> Atoms:
    """Return ASE atoms, periodic in the plane only, with the moments as initial magnetic moments."""
    return Atoms(
        symbols=list(layered.species),
        scaled_positions=layered.frac_coords,
        cell=layered.lattice,
        pbc=(True, True, False),
        magmoms=layered.magmoms,
    )


def crystal_dict(
    lattice: ArrayLike, frac_coords: ArrayLike, species: Sequence[str], magmoms: ArrayLike
) -> dict[str, Any]:
    """Return the JSON form of a structure, as `read` takes it back."""
    return {
        "lattice": np.asarray(lattice).tolist(),
        "frac_coords": np.asarray(frac_coords).tolist(),
        "species": list(species),
        "magmoms": np.asarray(magmoms).tolist(),
    }


def _read_json(file: Path) -> Crystal:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AltermagError(f"{file}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise AltermagError(f"{file}: not an object; needed: lattice, frac_coords, species, magmoms")
    if content.get("@class") == "Structure":
        try:
            from pymatgen.core.structure import Structure
        except ImportError as error:
            raise MissingExtraError(
                f"pymatgen is needed to read {file}: pip install 'altermag[pymatgen]'"
            ) from error
        return from_pymatgen(Structure.from_dict(content))
    missing = [key for key in ("lattice", "frac_coords", "species") if key not in content]
    if missing:
        raise AltermagError(
            f"{file}: no {', '.join(missing)}; needed: lattice, frac_coords, species, magmoms"
        )
    try:
        moments = None if content.get("magmoms") is None else np.array(content["magmoms"], dtype=float)
        lattice, frac = np.array(content["lattice"], float), np.array(content["frac_coords"], float)
    except (TypeError, ValueError) as error:
        raise AltermagError(f"{file}: lattice, frac_coords and magmoms must be numbers ({error})") from error
    return Crystal(lattice, frac, tuple(content["species"]), moments)


def _read_mcif(file: Path) -> Crystal:
    try:
        from pymatgen.io.cif import CifParser
    except ImportError as error:
        raise MissingExtraError(
            "pymatgen is needed to read magCIF files: pip install 'altermag[pymatgen]'"
        ) from error
    try:
        (structure, *_) = CifParser(file).parse_structures(primitive=False)
    except Exception as error:  # the parser raises whatever it stumbles over
        message = f"{file}: pymatgen cannot read it ({type(error).__name__}: {error})"
        raise AltermagError(message) from error
    crystal = from_pymatgen(structure)
    if crystal.magmoms is None or not crystal.magmoms.any():
        raise AltermagError(f"{file}: a magCIF without moments")
    return crystal


def _whole_sites(occupancies: Any) -> None:
    if any(occupancy < 1 for occupancy in occupancies):
        raise AltermagError("a site is partially occupied; choose an ordered structure first")
