"""Which components of the Hall (Kerr) vector spin-orbit coupling allows, for a given Néel direction (2.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import spglib
from numpy.typing import ArrayLike

from altermag.errors import AltermagError
from altermag.operations import element_numbers, from_spglib, in_plane, relative_moments
from altermag.slabs import Floats

COMPONENTS = "xyz"


def hall_components(
    lattice: Floats,
    frac_coords: Floats,
    species: Sequence[str],
    magmoms: Floats,
    neel: ArrayLike,
    *,
    symprec: float,
    mag_tol: float,
    planar: bool,
) -> set[str]:
    """Return the Cartesian components of the Hall vector that the magnetic group allows, a subset of {x, y,
    z}.

    The moments (n,) lie along `neel` (3,). The vector is axial and odd under time reversal: it is allowed
    where the projector |G|⁻¹ Σ det(R) R (±1) has a row that is not zero. With `planar`, operations that mix z
    with the plane are left out. Raises `AltermagError` for a direction that is not three finite numbers, or
    is zero.
    """
    direction = np.array(neel, dtype=float)
    if direction.shape != (3,) or not np.isfinite(direction).all() or not direction.any():
        raise AltermagError(f"neel={neel!r}; needed: a direction of three numbers, such as (0, 0, 1)")
    vectors = np.outer(relative_moments(magmoms, mag_tol), direction / np.linalg.norm(direction))
    cell: Any = (lattice, frac_coords, element_numbers(species), vectors)
    found = from_spglib(
        lambda: spglib.get_magnetic_symmetry(cell, symprec=symprec, mag_symprec=mag_tol), symprec
    )
    rotations = found["rotations"]
    signs = np.where(found["time_reversals"], -1, 1)
    if planar:
        flat = in_plane(rotations, found["translations"])
        rotations, signs = rotations[flat], signs[flat]
    cartesian = lattice.T @ rotations @ np.linalg.inv(lattice.T)
    projector = (np.linalg.det(cartesian) * signs)[:, None, None] * cartesian
    rows = np.abs(projector.mean(0)).max(1)
    return {name for name, row in zip(COMPONENTS, rows, strict=True) if row > 1e-6}
