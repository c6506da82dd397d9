"""The collinear spin space group: every operation of a structure that keeps all moments, or flips all of
them.

With scalar moments and `is_axial=False` spglib's magnetic symmetry is exactly this group (section 2.2): spin
and space are decoupled, and an operation is marked by time reversal where it turns every moment over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import spglib
from numpy.typing import NDArray

from altermag.errors import AltermagError
from altermag.slabs import Floats

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Operations:
    """Operations {R|t}: rotations (n, 3, 3) int and translations (n, 3) in the lattice's basis, signs (n,)
    ±1.

    A sign of -1 marks an operation that flips the spins.
    """

    rotations: Integers
    translations: Floats
    signs: Integers

    def __len__(self) -> int:
        return len(self.signs)


class Group(NamedTuple):
    """A layer group (1 to 80) or a space group (1 to 230): its number and its Hermann-Mauguin symbol."""

    number: int
    symbol: str


def element_numbers(species: Sequence[str]) -> list[int]:
    """Return an integer for every atom, the same for the same element, as spglib wants it."""
    order = {name: number for number, name in enumerate(dict.fromkeys(species), start=1)}
    return [order[name] for name in species]


def spin_operations(
    lattice: Floats,
    frac_coords: Floats,
    species: Sequence[str],
    moments: Floats,
    *,
    symprec: float,
    mag_tol: float,
    planar: bool,
) -> Operations:
    """Return the spin space group of scalar moments (n,).

    `symprec` is in Å; `mag_tol` is relative to the largest moment, below which a moment counts as zero. With
    `planar` only operations that do not mix z with the plane are kept. Raises `AltermagError` if spglib finds
    no symmetry.
    """
    scaled = relative_moments(moments, mag_tol)
    cell: Any = (lattice, frac_coords, element_numbers(species), scaled)
    found = from_spglib(
        lambda: spglib.get_magnetic_symmetry(cell, symprec=symprec, mag_symprec=mag_tol, is_axial=False),
        symprec,
    )
    rotations = np.asarray(found["rotations"], dtype=np.int64)
    translations = np.asarray(found["translations"], dtype=float)
    signs = np.where(found["time_reversals"], -1, 1)
    if planar:
        flat = in_plane(rotations, translations)
        rotations, translations, signs = rotations[flat], translations[flat], signs[flat]
    if not scaled.any():  # without moments every operation both keeps and flips them
        keep = signs > 0
        rotations, translations, signs = rotations[keep], translations[keep], signs[keep]
    return Operations(rotations, translations, signs)


def in_plane(rotations: Integers, translations: Floats) -> NDArray[np.bool_]:
    """Return which operations are those of a layer about its mid-plane: z → ±z, and no shift along z."""
    unmixed = (rotations[:, :2, 2] == 0).all(1) & (rotations[:, 2, :2] == 0).all(1)
    # A shift by half of the third vector is a symmetry of the images, not of the layer.
    return unmixed & (np.abs(translations[:, 2] - np.rint(translations[:, 2])) < 0.25)


def layer_group(lattice: Floats, frac_coords: Floats, species: Sequence[str], symprec: float) -> Group:
    """Return the layer group of the positions, moments left aside; the third axis is not periodic."""
    cell: Any = (lattice, frac_coords, element_numbers(species))
    found = from_spglib(
        lambda: spglib.get_symmetry_layerdataset(cell, aperiodic_dir=2, symprec=symprec), symprec
    )
    return Group(found.number, found.international.replace(" ", ""))


def space_group(lattice: Floats, frac_coords: Floats, species: Sequence[str], symprec: float) -> Group:
    """Return the space group of the atoms' positions, moments left aside."""
    cell: Any = (lattice, frac_coords, element_numbers(species))
    found = from_spglib(lambda: spglib.get_symmetry_dataset(cell, symprec=symprec), symprec)
    return Group(found.number, found.international)


def from_spglib(search: Callable[[], Any], symprec: float) -> Any:
    """Return what spglib found; raises `AltermagError` where it found nothing."""
    try:
        found = search()
    except spglib.SpglibError as error:
        raise AltermagError(f"spglib found no symmetry at symprec={symprec} Å: {error}") from error
    if found is None:
        raise AltermagError(f"spglib found no symmetry at symprec={symprec} Å; try a smaller or a larger one")
    return found


def relative_moments(moments: Floats, mag_tol: float) -> Floats:
    """Return the moments over the largest, those below `mag_tol` set to zero; zeros if all are."""
    largest = float(np.abs(moments).max(initial=0.0))
    if largest == 0:
        return np.zeros(len(moments))
    scaled = moments / largest
    scaled[np.abs(scaled) <= mag_tol] = 0.0
    return scaled
