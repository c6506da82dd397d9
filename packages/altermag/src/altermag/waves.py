"""The spin splitting's symmetry in k: its wave, the lines where it vanishes, and the operations that say so.

Section 2.5. A collinear magnet without spin-orbit coupling has E_s(k) = E_s(-k), so -1 (which keeps the spin)
is adjoined to the operations; the splitting then transforms with the signs of that group, and the wave is the
lowest degree of a polynomial that does. In the plane and in space the answers differ: the dimension is that
of the matrices.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from altermag.operations import Integers
from altermag.slabs import Floats
from altermag.zones import brillouin_zone, chord, reciprocal

Rows = tuple[tuple[int, ...], ...]
WAVES = {2: "d", 4: "g", 6: "i"}  # no crystallographic group needs more than degree 6


def signed_point_group(rotations: Integers, signs: Integers) -> dict[tuple[int, ...], set[int]]:
    """Return for every matrix ±R, flattened, the signs with which it occurs.

    rotations (n, d, d) with d = 2 (the in-plane blocks) or 3; signs (n,) ±1. A matrix that occurs with both
    signs forces the splitting to vanish.
    """
    found: dict[tuple[int, ...], set[int]] = {}
    flat = rotations.reshape(len(rotations), -1)
    for row, sign in zip(np.vstack([flat, -flat]).tolist(), [*signs.tolist()] * 2, strict=True):
        found.setdefault(tuple(row), set()).add(sign)
    return found


def wave(rotations: Integers, signs: Integers) -> str | None:
    """Return the wave "d", "g" or "i" of signed rotations (n, d, d), None where the splitting has none.

    The degree is the smallest even one in which the projector P f = |G|⁻¹ Σ s(g) f(R⁻¹k) leaves a homogeneous
    polynomial. Its rank is Σ s(g) χ(g) / |G| with χ the character of the symmetric power, whose generating
    numbers follow from traces of powers (Newton); so the test is exact, in integers.
    """
    return _wave(_key(rotations), tuple(signs.tolist()))


@lru_cache(maxsize=4096)  # few different groups occur, and many structures have the same
def _wave(rows: Rows, sign_of: tuple[int, ...]) -> str | None:
    dim = math.isqrt(len(rows[0]))
    group = signed_point_group(np.array(rows).reshape(-1, dim, dim), np.array(sign_of))
    if any(len(both) > 1 for both in group.values()) or not any(-1 in sign for sign in group.values()):
        return None
    characters = symmetric_characters(np.array(list(group)).reshape(-1, dim, dim), max(WAVES))
    kept = np.array([sign for (sign,) in group.values()])
    return next((name for degree, name in WAVES.items() if kept @ characters[degree]), None)


def symmetric_characters(matrices: Integers, degree: int) -> Integers:
    """Return the traces (degree + 1, n) of n matrices on homogeneous polynomials of degree 0, 1, ..."""
    traces, power = [], matrices
    for _ in range(degree):
        traces.append(np.trace(power, axis1=1, axis2=2))
        power = power @ matrices
    complete = [np.ones(len(matrices), dtype=np.int64)]
    for n in range(1, degree + 1):
        complete.append(sum(traces[i - 1] * complete[n - i] for i in range(1, n + 1)) // n)
    return np.array(complete)


def nodal_reflections(rotations: Integers, signs: Integers) -> list[Integers]:
    """Return the distinct reflections (d, d) that flip the spin, -1 adjoined: each fixes a line of nodes."""
    return list(_nodal_reflections(_key(rotations), tuple(signs.tolist())))


@lru_cache(maxsize=4096)
def _nodal_reflections(rows: Rows, sign_of: tuple[int, ...]) -> tuple[Integers, ...]:
    dim = math.isqrt(len(rows[0]))
    group = signed_point_group(np.array(rows).reshape(-1, dim, dim), np.array(sign_of))
    matrices = [np.array(flat).reshape(dim, dim) for flat, sign in group.items() if sign == {-1}]
    # A rotoinversion has determinant -1 as well; a reflection has one eigenvalue -1 and the others 1.
    return tuple(m for m in matrices if np.trace(m) == dim - 2 and round(np.linalg.det(m)) == -1)


def _key(rotations: Integers) -> Rows:
    return tuple(map(tuple, rotations.reshape(len(rotations), -1).tolist()))


def nodal_directions(reflections: list[Integers], plane: Floats) -> tuple[float, ...]:
    """Return the directions of the nodal lines through Γ in degrees from x, in [0, 180), ascending."""
    angles = []
    inverse = np.linalg.inv(plane.T)
    for reflection in reflections:
        cartesian = plane.T @ reflection @ inverse
        angle = np.degrees(np.arctan2(cartesian[1, 0], cartesian[0, 0])) / 2
        angles.append(round(float(angle) % 180, 6) % 180)
    return tuple(sorted(angles))


def nodal_families(reflections: list[Integers]) -> list[tuple[Integers, int]]:
    """Return (v, g) for every reflection: the splitting vanishes where g v·k is an integer, k in fractions.

    These are all k with (h - 1)k in the reciprocal lattice: lines through Γ and lines of the zone's boundary.
    """
    families: dict[tuple[int, int], int] = {}
    for reflection in reflections:
        in_k = np.rint(np.linalg.inv(reflection).T).astype(np.int64)
        rows = in_k - np.eye(2, dtype=np.int64)
        row = rows[0] if rows[0].any() else rows[1]
        v = row // np.gcd.reduce(row)
        v = v if tuple(v) > (0, 0) else -v
        multiples = rows @ v // (v @ v)
        families[int(v[0]), int(v[1])] = int(np.gcd.reduce(multiples))
    return [(np.array(v), g) for v, g in families.items()]


def nodal_segments(reflections: list[Integers], plane: Floats) -> Floats:
    """Return the nodal lines in the Brillouin zone: ends (n, 2, 2) in fractions of b1 and b2."""
    zone = brillouin_zone(plane)
    b = reciprocal(plane)
    segments = []
    for v, g in nodal_families(reflections):
        # v·k with k in fractions is (v B⁻ᵀ)·k with k in 1/Å, where the rows of B are b1 and b2.
        normal = np.linalg.inv(b) @ v
        limit = int(np.floor(g * np.abs(zone @ normal).max() + 1e-9))
        lines = [chord(zone, normal, m / g) for m in range(-limit, limit + 1)]
        segments += [line @ np.linalg.inv(b) for line in lines if line is not None]
    return np.array(segments).reshape(-1, 2, 2)
