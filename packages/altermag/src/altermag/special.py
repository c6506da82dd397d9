"""All special stackings, exactly: points, lines and the generic position, unique up to symmetry (section
2.3).

Every congruence A τ + b = 0 of the kernel is solved in integers and fractions, by its Hermite normal form;
where two lines cross is one more congruence. Nothing is searched for on a grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import gcd

import numpy as np
from numpy.typing import ArrayLike

from altermag.errors import AltermagError
from altermag.kernel import hermite_form, rational_translations, solutions
from altermag.mapping import Family, Stratum
from altermag.monolayer import Monolayer
from altermag.operations import Integers
from altermag.slabs import Floats, wrapped
from altermag.stacking import Bilayer, resolve_operator, stack

Point = tuple[Fraction, Fraction]
DEFAULT_GAP = 3.3  # Å between outermost atoms: van der Waals crystals have 3 to 3.5


@dataclass(frozen=True)
class Line:
    """The shifts with p τ1 + q τ2 = k modulo 1, p and q coprime, the first that is not 0 positive."""

    p: int
    q: int
    k: Fraction

    @classmethod
    def through(cls, p: int, q: int, k: Fraction) -> Line:
        """Return the line with the sign of (p, q) and the fraction k made unique."""
        sign = 1 if (p, q) > (0, 0) else -1
        return cls(sign * p, sign * q, sign * k % 1)

    def contains(self, point: Point) -> bool:
        """Whether a shift is on the line."""
        return (self.p * point[0] + self.q * point[1] - self.k).denominator == 1

    def points(self, max_denominator: int) -> Iterator[Point]:
        """Yield points of the line, the simple fractions along it first."""
        x, y = _bezout(self.p, self.q)
        for part in _simple_fractions(max_denominator):
            yield (self.k * x - part * self.q) % 1, (self.k * y + part * self.p) % 1


@dataclass(frozen=True)
class Action:
    """A rigid motion Q with {O|τ}: B(τ, L) → B(Mτ + c, ±L): Q is `rotation`, M `matrix`, the sign `neel`."""

    rotation: tuple[tuple[int, ...], ...]
    matrix: tuple[tuple[int, int], tuple[int, int]]
    constant: Point
    neel: int

    def __call__(self, point: Point) -> Point:
        """Return the shift of the moved bilayer, about the rational origin."""
        (a, b), (c, d) = self.matrix
        return (a * point[0] + b * point[1] + self.constant[0]) % 1, (
            c * point[0] + d * point[1] + self.constant[1]
        ) % 1


@dataclass(frozen=True)
class SpecialPosition:
    """A class of equivalent stackings: `dimension` 0 for a point, 1 for points of lines, 2 for the generic
    one.

    `shift` (2,) represents it, in fractions of the primitive cell; `equivalent` are all shifts that symmetry
    makes the same stacking or its mirror image, `shift` among them, and `multiplicity` is their number.
    """

    dimension: int
    shift: tuple[float, float]
    equivalent: tuple[tuple[float, float], ...]
    stratum: Stratum

    @property
    def multiplicity(self) -> int:
        """The number of equivalent shifts in the primitive cell."""
        return len(self.equivalent)


def special_positions(
    mono: Monolayer, op: str | ArrayLike = "mirror", *, order: str = "afm", max_denominator: int = 6
) -> list[SpecialPosition]:
    """Return the special points, then the lines, then the generic position, each once up to symmetry.

    Lines and the generic position are represented by a simple fraction with denominators up to
    `max_denominator` along them. Raises `AltermagError` if there is none that is not special itself.
    """
    return family_positions(Family.of(mono, op, order), max_denominator)


def family_positions(family: Family, max_denominator: int = 6) -> list[SpecialPosition]:
    """Return the special positions of a family of bilayers; see `special_positions`."""
    if max_denominator < 1:
        raise AltermagError(f"max_denominator={max_denominator}; needed: at least 1")
    found = family.congruences
    lines = _lines(family)
    generic = sum(1 << i for i, form in enumerate(found.forms) if form.rank == 0)
    line_codes = {line: _line_code(family, line) for line in lines}
    points: dict[Point, int] = {}
    for point in _candidates(family, lines):
        code = found.exact_code(point)
        if code not in {generic, *(c for line, c in line_codes.items() if line.contains(point))}:
            points[point] = code
    moves = actions(family)
    positions = [
        _position(family, 0, point, points[point], moves) for point in _first_of_orbits(points, moves)
    ]
    left = sorted(lines, key=lambda line: (line.k.denominator, line.k, abs(line.p) + abs(line.q), line.p))
    while left:
        code = line_codes[left[0]]
        point = _representative(family, left[0].points(max_denominator), code)
        positions.append(_position(family, 1, point, code, moves))
        images = [point, *(move(point) for move in moves)]
        left = [line for line in left if not any(line.contains(image) for image in images)]
    point = _representative(family, _plane_points(max_denominator), generic)
    return [*positions, _position(family, 2, point, generic, moves)]


def enumerate_stackings(
    mono: Monolayer,
    ops: Sequence[str | ArrayLike] = ("mirror",),
    max_denominator: int = 6,
    *,
    distance: float | None = None,
    gap: float | None = None,
    order: str = "afm",
    vacuum: float = 20.0,
) -> list[Bilayer]:
    """Return one bilayer of every special position, unique up to symmetry; for each operator the generic one
    last.

    They are built of the primitive cell. Without `distance` and `gap` the gap is 3.3 Å. Errors as in `stack`
    and `special_positions`.
    """
    if distance is None and gap is None:
        gap = DEFAULT_GAP
    found = []
    for op in ops:
        family = Family.of(mono, op, order)
        name = _operator_of_primitive(family, op)
        for position in family_positions(family, max_denominator):
            found.append(
                stack(
                    mono.primitive,
                    name,
                    position.shift,
                    distance=distance,
                    gap=gap,
                    order=order,
                    vacuum=vacuum,
                )
            )
    return found


def actions(family: Family) -> list[Action]:
    """Return the rigid motions that turn the family's bilayers into one another (sections 2.3, 2.6).

    x = {R|t} in G without turning over, with y = {O⁻¹RO|u} in G of the same sign: τ → Rτ + t - O u, L → s(x)
    L; x = y{O|τ}⁻¹ swapping the layers, y = {R|t} and w = {O⁻¹RO⁻¹|u} of the same sign: τ → -RO⁻¹τ + t - O u,
    L → η s(y) L.
    """
    operations = family.monolayer.primitive.operations
    translations, n, _ = rational_translations(operations)
    operator = family.operator
    inverse = np.rint(np.linalg.inv(operator)).astype(np.int64)
    flat = operator[:2, :2]
    signs = operations.signs.tolist()
    places: dict[tuple[int, ...], list[int]] = {}
    for i, rotation in enumerate(operations.rotations):
        places.setdefault((*map(int, rotation.ravel()), signs[i]), []).append(i)
    found: dict[Action, None] = {}
    for i, rotation in enumerate(operations.rotations):
        swap = rotation @ inverse
        cases = []
        if rotation[2, 2] == 1:
            cases.append((rotation, inverse @ rotation @ operator, rotation[:2, :2], signs[i]))
        if swap[2, 2] == -1:
            cases.append((swap, inverse @ swap, -swap[:2, :2], family.eta * signs[i]))
        for motion, wanted, matrix, neel in cases:
            for j in places.get((*map(int, wanted.ravel()), signs[i]), []):
                moved = translations[i] - flat @ translations[j]
                constant = Fraction(int(moved[0]), n) % 1, Fraction(int(moved[1]), n) % 1
                found[Action(_tuples(motion), _pairs(matrix), constant, int(neel))] = None
    return list(found)


def to_user(family: Family, point: Point) -> tuple[float, float]:
    """Return the shift in fractions of the primitive cell, of one about the rational origin."""
    x, y = wrapped(np.array([float(point[0]), float(point[1])]) - family.congruences.offset).tolist()
    return x, y


def _lines(family: Family) -> list[Line]:
    found: dict[Line, None] = {}
    for form in family.congruences.forms:
        if form.rank == 1:
            g = gcd(form.a, form.b)
            for m in range(g):
                found[Line.through(form.a // g, form.b // g, (m - form.c) / g)] = None
    return list(found)


def _line_code(family: Family, line: Line) -> int:
    """Return the forms that hold all along a line."""
    code = 0
    for i, form in enumerate(family.congruences.forms):
        g = gcd(form.a, form.b)
        if form.rank == 0:
            code |= 1 << i
        elif form.rank == 1 and (form.a, form.b) == (g * line.p, g * line.q):
            code |= int((g * line.k + form.c).denominator == 1) << i
    return code


def _candidates(family: Family, lines: list[Line]) -> list[Point]:
    """Return all points where a congruence of rank 2 holds or two lines cross."""
    found: dict[Point, None] = {}
    for form in family.congruences.forms:
        if form.rank == 2:
            found.update(dict.fromkeys(solutions(form)))
    for one, other in combinations(lines, 2):
        matrix = np.array([[one.p, one.q], [other.p, other.q]])
        if one.p * other.q != one.q * other.p:
            crossing = hermite_form(matrix, [-one.k, -other.k])
            assert crossing is not None  # rank 2 always has solutions
            found.update(dict.fromkeys(solutions(crossing)))
    return list(found)


def _position(
    family: Family, dimension: int, point: Point, code: int, moves: list[Action]
) -> SpecialPosition:
    orbit = sorted({point, *(move(point) for move in moves)}, key=_simplicity)
    shifts = tuple(to_user(family, image) for image in orbit)
    return SpecialPosition(dimension, shifts[0], shifts, family.stratum(code))


def _first_of_orbits(points: dict[Point, int], moves: list[Action]) -> list[Point]:
    """Return one point of every orbit, the one with the simplest fractions, simple ones first."""
    left = dict.fromkeys(sorted(points, key=_simplicity))
    firsts = []
    while left:
        point = next(iter(left))
        firsts.append(point)
        for image in [point, *(move(point) for move in moves)]:
            left.pop(image, None)
    return firsts


def _representative(family: Family, points: Iterator[Point], code: int) -> Point:
    for point in points:
        if family.congruences.exact_code(point) == code:
            return point
    raise AltermagError("every simple fraction along a line of stackings is special; raise max_denominator")


def _simplicity(point: Point) -> tuple[int, int, bool, Fraction, Fraction]:
    """Sort key: small denominators, then few components, along a1 before a2, then small values."""
    x, y = point
    return max(x.denominator, y.denominator), bool(x) + bool(y), bool(y), x, y


def _simple_fractions(max_denominator: int) -> list[Fraction]:
    found = {Fraction(i, d) for d in range(1, max_denominator + 1) for i in range(d)}
    return sorted(found, key=lambda value: (value.denominator, value))


def _plane_points(max_denominator: int) -> Iterator[Point]:
    parts = _simple_fractions(max_denominator)
    yield from sorted(((x, y) for x in parts for y in parts), key=_simplicity)


def _bezout(p: int, q: int) -> tuple[int, int]:
    """Return x, y with p x + q y = 1, for coprime p and q."""
    (a, x, y), (b, u, v) = (p, 1, 0), (q, 0, 1)
    while b:
        times = a // b
        (a, x, y), (b, u, v) = (b, u, v), (a - times * b, x - times * u, y - times * v)
    return x * a, y * a  # a is 1 or -1


def _operator_of_primitive(family: Family, op: str | ArrayLike) -> str | Floats:
    """Return the operator in the primitive cell's frame: its name where that means the same."""
    plane = family.monolayer.primitive.lattice[:2, :2]
    matrix = np.eye(3)
    matrix[:2, :2] = plane.T @ family.operator[:2, :2] @ np.linalg.inv(plane.T)
    matrix[2, 2] = family.operator[2, 2]
    if isinstance(op, str):
        try:
            same = np.allclose(resolve_operator(op, plane)[1], matrix, atol=1e-6)
        except AltermagError:
            same = False
        if same:
            return op
    return matrix


def _tuples(matrix: Integers) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def _pairs(matrix: Integers) -> tuple[tuple[int, int], tuple[int, int]]:
    (a, b), (c, d) = matrix.tolist()
    return (a, b), (c, d)
