"""Paths through the zone on which an altermagnet shows its splitting (section 2.5).

The usual path Γ-M-K-Γ of bilayer AB' lies wholly on nodal lines. The generic path goes through k*, the middle
of the irreducible wedge, and through its image k*' under a spin-flip operation, where the splitting is the
opposite.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from ase.cell import Cell
from ase.dft.kpoints import BandPath, parse_path_string
from numpy.typing import NDArray

from altermag.cells import reduced
from altermag.classification import Classification, classify
from altermag.errors import AltermagError, AltermagWarning
from altermag.monolayer import Monolayer
from altermag.slabs import Floats
from altermag.stacking import Bilayer
from altermag.zones import brillouin_zone, centroid, clip, reciprocal

Layer = Bilayer | Monolayer
SPACING = 0.02  # 1/Å between points
ON_LATTICE = 1e-4  # how near to whole numbers an operation of the lattice is in its basis


@dataclass(frozen=True, eq=False)
class KPath:
    """A path: `k_points` (N, 2) in fractions of b1 and b2, `distances` (N,) along it in 1/Å.

    `ticks` are (label, distance); where the path jumps, both labels share one, as "M|K". `special_points`
    gives the fractions (2,) of every label.
    """

    k_points: Floats
    distances: Floats
    ticks: tuple[tuple[str, float], ...]
    special_points: dict[str, tuple[float, float]]

    def bandpath(self, lattice: Floats) -> BandPath:
        """Return the path as ASE's `BandPath` of a cell (3, 3); k* and k*' are called W1 and W2 there."""
        names = {"Γ": "G", "k*": "W1", "k*'": "W2"}
        labels = [label for ticks, _ in self.ticks for label in ticks.replace("|", " , ").split()]
        return BandPath(
            Cell.new(lattice),
            kpts=np.c_[self.k_points, np.zeros(len(self.k_points))],
            special_points={names.get(k, k): np.array([*v, 0.0]) for k, v in self.special_points.items()},
            path="".join(names.get(label, label) for label in labels),
        )


def generic_path(layer: Layer, spacing: float = SPACING) -> KPath:
    """Return Γ-k*-M | K-k*'-Γ: k* in the middle of the irreducible wedge, M and K the wedge's corners.

    Corners that are no special point of the lattice are called P and Q; without spin-flip operations k*' is
    k*. In a supercell that hides rotations of the layer k* is off the middle, so that no nodal line of theirs
    is folded onto it.
    """
    found = classify(layer)
    plane = layer.lattice[:2, :2]
    keeps, flips = _cartesian(found, plane)
    wedge = irreducible_wedge(plane, _different([*keeps, *flips]))
    hidden = abs(np.linalg.det(np.array(found.lattice)[:2, :2])) < 0.9 * abs(np.linalg.det(plane))
    star = _off_lines(wedge) if hidden else centroid(wedge)
    outer = wedge[np.linalg.norm(wedge, axis=1) > 1e-6 * np.abs(wedge).max()]
    last = outer[-1] if np.linalg.norm(outer[0] + outer[-1]) > 1e-6 else outer[len(outer) // 2]
    corners = sorted([outer[0], last], key=lambda k: round(float(np.linalg.norm(k)), 9))
    names = _labels(layer, corners)
    image = min((h @ star for h in flips), key=lambda k: float(np.linalg.norm(k - star)), default=star)
    gamma = np.zeros(2)
    pieces = [
        [("Γ", gamma), ("k*", star), (names[0], corners[0])],
        [(names[1], corners[1]), ("k*'", image), ("Γ", gamma)],
    ]
    return _path(pieces, plane, spacing)


def standard_path(layer: Layer, spacing: float = SPACING) -> KPath:
    """Return ASE's path for the layer's two-dimensional lattice, such as Γ-M-K-Γ.

    Warns (`AltermagWarning`) where symmetry makes the splitting of an altermagnet vanish all along it.
    """
    plane = layer.lattice[:2, :2]
    b = reciprocal(plane)
    ase_path = Cell.new(layer.lattice).bandpath(npoints=0, pbc=(True, True, False))
    points = {name: np.asarray(k)[:2] @ b for name, k in ase_path.special_points.items()}
    pieces = [
        [("Γ" if name == "G" else name, points[name]) for name in names] for names in _split(ase_path.path)
    ]
    path = _path(pieces, plane, spacing)
    found = classify(layer)
    if found.kind == "altermagnet" and forced_zeros(found, path.k_points, layer).all():
        warnings.warn(
            "symmetry makes the splitting vanish all along the standard path, so that this altermagnet looks "
            "degenerate on it; use the generic path",
            AltermagWarning,
            stacklevel=2,
        )
    return path


def ring(layer: Layer, radius: float = 0.5, n: int = 96) -> Floats:
    """Return n points (n, 2), in fractions of b1 and b2, of a circle about Γ, the first along x.

    `radius` is relative to the largest circle inside the zone. Raises `AltermagError` unless 0 < radius <= 1.
    """
    if not 0 < radius <= 1:
        raise AltermagError(f"radius={radius}; needed: a part of the zone's inner circle, in (0, 1]")
    plane = layer.lattice[:2, :2]
    zone = brillouin_zone(plane)
    inner = np.linalg.norm((zone + np.roll(zone, -1, axis=0)) / 2, axis=1).min()
    angles = 2 * np.pi * np.arange(n) / n
    return radius * inner * np.stack([np.cos(angles), np.sin(angles)], 1) @ np.linalg.inv(reciprocal(plane))


def forced_zeros(found: Classification, k_points: Floats, layer: Layer) -> NDArray[np.bool_]:
    """Return at which k (N, 2), in fractions, a spin-flip operation or its inverse in k makes Δ vanish.

    In a supercell those operations count that map its own lattice onto itself.
    """
    plane = layer.lattice[:2, :2]
    b = reciprocal(plane)
    zero = np.zeros(len(k_points), dtype=bool)
    for flip in _cartesian(found, plane)[1]:
        moved = (k_points @ b) @ flip.T @ np.linalg.inv(b) - k_points
        zero |= (np.abs(moved - np.rint(moved)) < 1e-6).all(1)
    return zero


def irreducible_wedge(plane: Floats, group: Sequence[Floats]) -> Floats:
    """Return the corners (m, 2) in 1/Å of a part of the zone whose images under the group fill it."""
    angle = 2 * np.pi / len(group)
    start = float(np.arctan2(*reciprocal(plane)[0][::-1]))
    mirrors = [np.arctan2(g[1, 0], g[0, 0]) / 2 for g in group if np.linalg.det(g) < 0]
    if mirrors:
        # A wedge between two neighbouring mirror lines, the first at or after x.
        start = min(float(theta % angle) % angle for theta in np.round(mirrors, 9))
    wedge = brillouin_zone(plane)
    for theta, side in ((start, -1), (start + angle, 1)):
        wedge = clip(wedge, side * np.array([-np.sin(theta), np.cos(theta)]), 0.0)
    turned = (np.arctan2(wedge[:, 1], wedge[:, 0]) - start + 1e-9) % (2 * np.pi)
    turned[np.linalg.norm(wedge, axis=1) < 1e-9] = -1  # Γ first, then by angle
    return wedge[np.argsort(turned)]


def _off_lines(polygon: Floats) -> Floats:
    """Return a point (2,) inside a polygon (m, 2) that is on no line with rational coefficients.

    Nodal lines have such in b1 and b2; square roots of different primes have no rational relation.
    """
    weights = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19][: len(polygon)])
    return weights @ polygon / weights.sum()


def _cartesian(found: Classification, own: Floats) -> tuple[list[Floats], list[Floats]]:
    """Return the in-plane Cartesian matrices (2, 2) that keep and that flip the spins, with -1 adjoined.

    Only those that map the lattice `own` (2, 2) onto itself: where `found` is of the primitive cell, the
    others carry a k of the supercell's zone to one that is folded elsewhere.
    """
    plane = np.array(found.lattice)[:2, :2]
    inverse = np.linalg.inv(plane.T)
    keeps, flips = (
        _different([sign * np.array(op.rotation)[:2, :2] for op in operations for sign in (1, -1)])
        for operations in (found.keep_ops, found.flip_ops)
    )
    return (
        [c for c in (plane.T @ m @ inverse for m in keeps) if _maps(c, own)],
        [c for c in (plane.T @ m @ inverse for m in flips) if _maps(c, own)],
    )


def _maps(matrix: Floats, plane: Floats) -> bool:
    """Whether a Cartesian matrix (2, 2) maps the lattice of the rows of `plane` onto itself."""
    inside = np.linalg.inv(plane.T) @ matrix @ plane.T
    return bool(np.abs(inside - np.rint(inside)).max() < ON_LATTICE)


def _different(matrices: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    return list({tuple((np.round(m, 6) + 0.0).ravel().tolist()): m for m in matrices}.values())


def _labels(layer: Layer, corners: list[Floats]) -> list[str]:
    """Return the names of ASE's special points that a symmetry of the lattice carries to the corners."""
    plane = layer.lattice[:2, :2]
    b = reciprocal(plane)
    known = Cell.new(layer.lattice).bandpath(npoints=0, pbc=(True, True, False)).special_points
    small = reduced(plane)
    metric = small @ small.T
    unit_cells = (np.array(m).reshape(2, 2) for m in product((-1, 0, 1), repeat=4))
    symmetries = [
        small.T @ m @ np.linalg.inv(small.T) for m in unit_cells if np.allclose(m.T @ metric @ m, metric)
    ]
    names = []
    for corner, other in zip(corners, "PQ", strict=True):
        images = np.array([symmetry @ corner for symmetry in symmetries]) @ np.linalg.inv(b)
        for name, k in known.items():
            difference = images - np.asarray(k)[:2]
            if (np.abs(difference - np.rint(difference)) < 1e-5).all(1).any():
                names.append("Γ" if name == "G" else name)
                break
        else:
            names.append(other)
    return names


def _split(path: str) -> list[list[str]]:
    """Return the labels of every piece of an ASE path such as "GMKG" or "GXH1,SC"."""
    return [list(piece) for piece in parse_path_string(path)]


def _path(pieces: list[list[tuple[str, Floats]]], plane: Floats, spacing: float) -> KPath:
    if not spacing > 0:
        raise AltermagError(f"spacing={spacing}; needed: a positive number of 1/Å")
    inverse = np.linalg.inv(reciprocal(plane))
    points: list[Floats] = []
    distances: list[float] = []
    ticks: list[tuple[str, float]] = []
    along = 0.0
    for piece in pieces:
        label, here = piece[0]
        if ticks:
            ticks[-1] = (f"{ticks[-1][0]}|{label}", along)
        else:
            ticks.append((label, along))
        points.append(here)
        distances.append(along)
        for (_, here), (label, there) in pairwise(piece):
            length = float(np.linalg.norm(there - here))
            steps = max(1, int(np.ceil(length / spacing)))
            for step in range(1, steps + 1):
                points.append(here + step / steps * (there - here))
                distances.append(along + step / steps * length)
            along += length
            ticks.append((label, along))
    special = {label: _pair(k @ inverse) for piece in pieces for label, k in piece}
    return KPath(np.array(points) @ inverse, np.array(distances), tuple(ticks), special)


def _pair(k: Floats) -> tuple[float, float]:
    x, y = np.where(np.abs(k) < 1e-12, 0.0, k).tolist()
    return x, y
