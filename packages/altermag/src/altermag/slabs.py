"""One frame for everything that is periodic in a plane: x ∥ a1, z = the normal, y = z × x, mid-plane in the
middle.

Section 2.1. Any vacuum axis, any rotated or left-handed cell and layers wrapped across the cell's edge are
brought to this frame; a1 and a2 stay the vectors that the user gave, so that a shift in fractions keeps its
meaning, and the normal is a1 × a2.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

from altermag.errors import AltermagError, AltermagWarning

Floats = NDArray[np.float64]
MIN_VACUUM = 6.0  # Å; less empty space than this is taken for a bulk crystal unless the axis is named
MIN_CONTACT = 0.5  # Å; no two nuclei of a crystal come that near
MAX_CANTING = 0.05  # second singular value of the moments over the first, up to which they count as collinear
AXES = "abc"


def checked_cell(lattice: ArrayLike, frac_coords: ArrayLike, species: Sequence[str]) -> tuple[Floats, Floats]:
    """Return lattice (3, 3) in Å and fractional coordinates (n, 3) as float64.

    Raises `AltermagError` for wrong shapes, numbers that are not finite, no atoms, or unknown element
    symbols.
    """
    rows, frac = np.array(lattice, dtype=float), np.array(frac_coords, dtype=float)
    if rows.shape != (3, 3):
        raise AltermagError(f"the lattice has shape {rows.shape}; needed: three row vectors in Å, (3, 3)")
    if not len(species):
        raise AltermagError("the structure has no atoms")
    if frac.shape != (len(species), 3):
        raise AltermagError(f"{len(species)} species, but fractional coordinates of shape {frac.shape}")
    if not (np.isfinite(rows).all() and np.isfinite(frac).all()):
        raise AltermagError("the lattice or a coordinate is not a finite number")
    unknown = sorted({name for name in species if name not in atomic_numbers})
    if unknown:
        raise AltermagError(f"unknown element: {', '.join(map(str, unknown))}; needed: symbols such as 'Pt'")
    return rows, frac


def site_moments(species: Sequence[str], magmoms: ArrayLike | Mapping[str, float] | None) -> Floats:
    """Return one moment a site in μB, (n,) or (n, 3), from numbers or from a mapping of elements.

    Raises `AltermagError` where there are none, the length differs or a named element is absent.
    """
    if magmoms is None:
        raise AltermagError(
            'the structure carries no moments; give them, such as magmoms={"Pt": 1.0} (--magmoms Pt=1)'
        )
    if isinstance(magmoms, Mapping):
        absent = sorted(set(magmoms) - set(species))
        if absent:
            raise AltermagError(
                f"a moment is given for {', '.join(absent)}; there is only {_listed(species)}"
            )
        magmoms = [float(magmoms.get(name, 0.0)) for name in species]
    moments = np.array(magmoms, dtype=float)
    if moments.shape not in {(len(species),), (len(species), 3)}:
        raise AltermagError(f"{len(species)} atoms, but moments of shape {moments.shape}")
    if not np.isfinite(moments).all():
        raise AltermagError("a moment is not a finite number")
    return moments


def check_elements(named: Iterable[Any], what: str, species: Sequence[str] | None = None) -> None:
    """Raise `AltermagError` if `what` names something that is no element, or none of `species`."""
    names = set(named)
    unknown = sorted(str(name) for name in names if name not in atomic_numbers)
    if unknown:
        raise AltermagError(f"{what} names {', '.join(unknown)}, which is no chemical element")
    absent = sorted(names - set(species)) if species is not None else []
    if absent:
        raise AltermagError(f"{what} names {', '.join(absent)}, which the structure does not have")


def on_common_axis(moments: Floats) -> tuple[Floats, float]:
    """Return scalar moments (n,), the components along the common axis, and how far from collinear they are.

    The axis is the first singular vector, its largest component positive; the second number is the ratio of
    the second singular value to the first, 0 for collinear moments.
    """
    if moments.ndim == 1:
        return moments, 0.0
    _, values, axes = np.linalg.svd(moments)
    if values[0] == 0:
        return np.zeros(len(moments)), 0.0
    axis = axes[0] * np.sign(axes[0][np.argmax(np.abs(axes[0]))])
    return moments @ axis, float(values[1] / values[0]) if len(values) > 1 else 0.0


def collinear(moments: Floats) -> Floats:
    """Return scalar moments (n,) of (n,) or (n, 3); raises `AltermagError` if they are not collinear."""
    scalars, canting = on_common_axis(moments)
    if canting > MAX_CANTING:
        raise AltermagError(
            f"the moments are not collinear (second singular value {canting:.0%} of the first, at most "
            f"{MAX_CANTING:.0%}); the classes of collinear magnets do not apply"
        )
    return scalars


def to_slab(
    lattice: Floats,
    frac: Floats,
    *,
    vacuum_axis: int | None = None,
    whole: bool = False,
    vacuum: float = 15.0,
) -> tuple[Floats, Floats]:
    """Return the same layer in the package's frame: lattice (3, 3), fractional coordinates (n, 3).

    The third vector is (0, 0, c) with at least `vacuum` Å of empty space and the layer's mid-plane at c/2.
    With `whole` the layer is already in one piece along `vacuum_axis` and is not cut. Raises `AltermagError`
    for structures without vacuum, or with it along several axes, where `vacuum_axis` is not named.
    """
    axis, gap, cut = _vacuum(lattice, frac, vacuum_axis)
    in_one_piece = frac.copy()
    if not whole:
        in_one_piece[:, axis] = (frac[:, axis] - cut) % 1.0
        if np.ptp(frac[:, axis] % 1.0) > np.ptp(in_one_piece[:, axis]) + 1e-6:
            message = (
                f"the layer is wrapped across the edge of the cell along {AXES[axis]}; it was put together"
            )
            warnings.warn(message, AltermagWarning, stacklevel=3)
    a1, a2 = lattice[(axis + 1) % 3], lattice[(axis + 2) % 3]
    normal = np.cross(a1, a2)
    normal /= np.linalg.norm(normal)
    x = a1 / np.linalg.norm(a1)
    frame = np.array([x, np.cross(normal, x), normal])
    cartesian = in_one_piece @ lattice @ frame.T
    height = cartesian[:, 2]
    thickness = float(np.ptp(height))
    old = abs(float(lattice[axis] @ normal))
    c = old if gap >= vacuum and old - thickness >= vacuum else thickness + max(vacuum, 20.0)
    plane = np.array([a1, a2]) @ frame.T
    slab = np.array([[plane[0, 0], 0, 0], [plane[1, 0], plane[1, 1], 0], [0, 0, c]])
    inside = np.empty_like(frac)
    inside[:, :2] = wrapped(cartesian[:, :2] @ np.linalg.inv(slab[:2, :2]))
    inside[:, 2] = 0.5 + (height - (height.max() + height.min()) / 2) / c
    return slab, inside


def wrapped(values: Floats) -> Floats:
    """Return the values modulo 1 in [0, 1), rounding errors just below 1 counted as 0."""
    inside = values - np.floor(values + 1e-9)
    return np.where(inside < 1e-12, 0.0, inside)


def shortest_contact(
    lattice: Floats, frac: Floats, periodic: tuple[bool, bool, bool]
) -> tuple[float, int, int]:
    """Return the smallest distance in Å between two different atoms or images, and the two indices.

    Distances between an atom and its own images are left out.
    """
    if len(frac) < 2:
        return np.inf, 0, 0
    first, second = np.triu_indices(len(frac), 1)
    difference = frac[first] - frac[second]
    difference -= np.where(periodic, np.round(difference), 0.0)
    images = np.stack(np.meshgrid(*[[-1, 0, 1] if wraps else [0] for wraps in periodic], indexing="ij"), -1)
    vectors = (difference[:, None, :] + images.reshape(-1, 3)) @ lattice
    distance = np.sqrt((vectors**2).sum(-1)).min(axis=1)
    nearest = int(np.argmin(distance))
    return float(distance[nearest]), int(first[nearest]), int(second[nearest])


def check_contacts(
    lattice: Floats, frac: Floats, species: Sequence[str], periodic: tuple[bool, bool, bool], symprec: float
) -> None:
    """Raise `AltermagError` if two atoms share a place, or if `symprec` would make two atoms one."""
    distance, i, j = shortest_contact(lattice, frac, periodic)
    if distance < MIN_CONTACT:
        raise AltermagError(
            f"atoms {i} ({species[i]}) and {j} ({species[j]}) are {distance:.3f} Å apart: a duplicate, or a "
            "cell in other units than Å?"
        )
    if not 0 < symprec < distance / 2:
        raise AltermagError(
            f"symprec={symprec} must be positive and below half of the shortest distance, {distance / 2:.3f} "
            "Å"
        )


def _vacuum(lattice: Floats, frac: Floats, axis: int | None) -> tuple[int, float, float]:
    """Return the vacuum axis, its empty space in Å, and where to cut (fraction)."""
    if axis is not None and axis not in (0, 1, 2):
        raise AltermagError(f"vacuum_axis={axis}; needed: 0, 1 or 2")
    volume = abs(np.linalg.det(lattice))
    if volume < 1e-6:
        raise AltermagError("the lattice vectors are linearly dependent")
    gaps = []
    for i in range(3):
        height = volume / np.linalg.norm(np.cross(lattice[(i + 1) % 3], lattice[(i + 2) % 3]))
        places = np.sort(frac[:, i] % 1.0)
        steps = np.diff(places, append=places[0] + 1)
        widest = int(np.argmax(steps))
        gaps.append((float(steps[widest] * height), float(places[widest] + steps[widest] / 2)))
    if axis is None:
        empty = [i for i in range(3) if gaps[i][0] >= MIN_VACUUM]
        if not empty:
            i = max(range(3), key=lambda i: gaps[i][0])
            raise AltermagError(
                f"no vacuum: the widest gap is {gaps[i][0]:.2f} Å, along {AXES[i]} (needed: {MIN_VACUUM:g} "
                f"Å). A bulk crystal is classified with dim=3 (--dim 3); a layered one can be cut with "
                f"vacuum_axis={i} (--vacuum-axis {i} of classify)"
            )
        if len(empty) > 1:
            along = " and ".join(f"{AXES[i]} ({gaps[i][0]:.1f} Å)" for i in empty)
            raise AltermagError(
                f"empty space along {along}: a chain or a molecule, not a layer; if it is one, name "
                "vacuum_axis"
            )
        axis = empty[0]
    return axis, *gaps[axis]


def _listed(species: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(species))
