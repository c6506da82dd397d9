"""Primitive cells: the translations that keep every moment, and a reduced basis of them."""

from __future__ import annotations

import numpy as np
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from altermag.operations import Integers, Operations
from altermag.slabs import MIN_CONTACT, Floats, wrapped


def primitive_basis(operations: Operations) -> Floats:
    """Return the basis (3, 3), in fractions of the cell, of the translations that keep the moments."""
    pure = _pure(operations)
    count = int(pure.sum())
    # They form a group of `count` elements modulo the cell: each, times count, is a vector of the cell's
    # lattice.
    whole = np.rint(operations.translations[pure] * count).astype(np.int64)
    return hermite(np.vstack([whole, count * np.eye(3, dtype=np.int64)])) / count


def hermite(vectors: Integers) -> Integers:
    """Return an upper triangular basis (d, d) of the lattice that integer vectors (m, d) span."""
    rows = [[int(value) for value in vector] for vector in vectors]
    basis = []
    for column in range(vectors.shape[1]):
        filled = [row for row in rows if row[column]]
        while len(filled) > 1:  # Euclid: subtract the smallest from the others until one is left
            pivot = min(filled, key=lambda row: abs(row[column]))
            for row in filled:
                if row is not pivot:
                    times = row[column] // pivot[column]
                    row[:] = [value - times * p for value, p in zip(row, pivot, strict=True)]
            filled = [row for row in rows if row[column]]
        basis.append(filled[0])
        rows = [row for row in rows if row is not filled[0]]
    return np.array(basis)


def primitive_cell(
    lattice: Floats, frac_coords: Floats, operations: Operations, symprec: float, *, planar: bool
) -> tuple[Floats, Floats, list[int]] | None:
    """Return lattice, fractions and the indices of the atoms of the primitive cell; None if the cell is it.

    With `planar` the third vector stays as it is.
    """
    if int(_pure(operations).sum()) == 1:
        return None
    small = primitive_basis(operations) @ lattice
    if planar:
        small[2] = lattice[2]
        small[:2] = reduced(small[:2, :2]) @ np.eye(2, 3)
    else:
        small, _ = minkowski_reduce(small)
    inside = frac_coords @ lattice @ np.linalg.inv(small)
    inside[:, : 2 if planar else 3] = wrapped(inside[:, : 2 if planar else 3])
    kept: list[int] = []
    for i, place in enumerate(inside):
        difference = inside[kept] - place
        difference -= np.rint(difference)
        if not (np.linalg.norm(difference @ small, axis=1) < max(symprec, MIN_CONTACT / 2)).any():
            kept.append(i)
    return small, inside[kept], kept


def reduced(plane: Floats) -> Floats:
    """Return a reduced right-handed basis (2, 2), at no acute angle, of the same in-plane lattice."""
    cell = np.eye(3)
    cell[:2, :2] = plane
    a, b = minkowski_reduce(cell, (True, True, False))[0][:2, :2]
    if np.linalg.det([a, b]) < 0:
        a, b = b, a
    return np.array([b, -a] if a @ b > 1e-9 * (a @ a) else [a, b])


def rotation_count(operations: Operations) -> int:
    """Return how many different rotations there are, whatever their translations."""
    return len(set(map(tuple, operations.rotations.reshape(-1, 9).tolist())))


def _pure(operations: Operations) -> NDArray[np.bool_]:
    """Return which operations are translations that keep the moments, the identity among them."""
    return (operations.rotations == np.eye(3, dtype=int)).all((1, 2)) & (operations.signs == 1)
