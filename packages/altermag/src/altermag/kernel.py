"""The group of a bilayer without building it: which operations it has is a set of congruences on the shift τ.

Section 2.2. With G the monolayer's operations {R|t} and their signs s, and all congruences modulo the
lattice, x = {R|t} in G with R_zz = +1 maps each layer to itself if some y = {O⁻¹RO|u} in G has s(y) = s(x)
and (1 - R)τ + O u - t = 0;                                       the operation has the sign s(x); x = {O|τ}g,
g = {R|t} in G, h = O R with h_zz = -1, swaps the layers if some y = {hO|u} in G has s(y) = s(g) and (1 + h)τ
+ O t - u = 0;                                       the operation is h, with the sign η s(g). The origin is
first moved to where all translations are multiples of 1/N, N the number of operations: the congruences are
then integers, and their solutions (section 2.3) exact fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from altermag.errors import AltermagError
from altermag.operations import Integers, Operations
from altermag.slabs import Floats

BLOCK = 32768  # shifts at a time: the arrays of a block stay in the cache
Codes = NDArray[np.uint64]


@dataclass(frozen=True)
class Form:
    """The congruence a τ1 + b τ2 + c = 0, d τ2 + e = 0 modulo 1, in Hermite form; coefficients 0 where
    absent.

    rank 2: a, d > 0, points. rank 1: d = 0, parallel lines. rank 0: a = b = d = 0, always.
    """

    a: int
    b: int
    c: Fraction
    d: int
    e: Fraction

    @property
    def rank(self) -> int:
        """0, 1 or 2."""
        return 2 if self.d else int(self.a != 0 or self.b != 0)

    def holds(self, shift: tuple[Fraction, Fraction]) -> bool:
        """Whether an exact shift, about the rational origin, satisfies it."""
        first = self.a * shift[0] + self.b * shift[1] + self.c
        return first.denominator == 1 and (self.d * shift[1] + self.e).denominator == 1


class PlainForm(NamedTuple):
    """A form in plain numbers, with the residual that it may have for a tolerance of 1 Å (its square for rank
    2)."""

    rank: int
    a: int
    b: int
    c: float
    d: int
    e: float
    limit: float


@dataclass(frozen=True)
class Congruences:
    """The operations that bilayers of one monolayer, operator and order can have, and when they have them.

    Operation i has rotations[i] (3, 3) in the lattice's basis, signs[i] and translations[i] (2,), to which
    the shift is added if it swaps the layers (R_zz = -1); it is there if any form of owners[i] (indices into
    `forms`) holds. `offset` (2,) turns a shift into one about the rational origin.
    """

    plane: Floats
    offset: Floats
    rotations: Integers
    signs: Integers
    translations: Floats
    owners: tuple[tuple[int, ...], ...]
    forms: tuple[Form, ...]

    def codes(self, shifts: Floats, tolerance: float) -> Codes:
        """Return for every shift (N, 2) the forms that hold, as bits (N,) of an unsigned integer.

        A form holds where its residual, by which the operation would miss the atoms, is at most `tolerance`
        Å.
        """
        found = np.empty(len(shifts), dtype=np.uint64)
        for start in range(0, len(shifts), BLOCK):
            block = shifts[start : start + BLOCK]
            x, y = block[:, 0] + self.offset[0], block[:, 1] + self.offset[1]
            bits = np.zeros(len(block), dtype=np.uint64)
            for i, form in enumerate(self._plain):
                bits |= self._near(form, x, y, tolerance).astype(np.uint64) << np.uint64(i)
            found[start : start + BLOCK] = bits
        return found

    def code(self, shift: tuple[float, float], tolerance: float) -> int:
        """Return the bits of the forms that hold at one shift: `codes` without its arrays."""
        x, y = shift[0] + float(self.offset[0]), shift[1] + float(self.offset[1])
        return sum(1 << i for i, form in enumerate(self._plain) if self._near(form, x, y, tolerance))

    def exact_code(self, shift: tuple[Fraction, Fraction]) -> int:
        """Return the bits of the forms that an exact shift about the rational origin satisfies."""
        return sum(1 << i for i, form in enumerate(self.forms) if form.holds(shift))

    def operations(self, code: int, shift: tuple[float, float] = (0.0, 0.0)) -> Operations:
        """Return the operations that hold, about the mid-plane and the in-plane origin of the bottom layer.

        A code tells no translations: those of the operations that swap the layers need the `shift`.
        """
        known = self._held.get(code)
        if known is None:
            known = self._held[code] = self._without_shift(code)
        unshifted, swaps = known
        translations = unshifted.translations + swaps * (*shift, 0.0)
        return Operations(unshifted.rotations, translations, unshifted.signs)

    def is_group(self, code: int) -> bool:
        """Whether the operations are closed: not so for a shift just outside the tolerance of one form."""
        known = self._closed.get(code)
        if known is None:
            known = self._closed[code] = _closed(self.operations(code))
        return known

    def _without_shift(self, code: int) -> tuple[Operations, Floats]:
        """Return the operations at the shift 0, and by how much (n, 1) of a shift each translation grows."""
        there = [i for i, forms in enumerate(self.owners) if any(code >> form & 1 for form in forms)]
        rotations = self.rotations[there]
        translations = np.zeros((len(there), 3))
        translations[:, :2] = self.translations[there]
        swaps = (rotations[:, 2, 2] < 0).astype(float)[:, None]
        return Operations(rotations, translations, self.signs[there]), swaps

    @cached_property
    def _held(self) -> dict[int, tuple[Operations, Floats]]:
        return {}

    @cached_property
    def _closed(self) -> dict[int, bool]:
        return {}

    @cached_property
    def _plain(self) -> tuple[PlainForm, ...]:
        inverse = np.linalg.inv(self.plane)
        found = []
        for form in self.forms:
            # rank 1: A is 1 minus a reflection: at a distance δ from the line the operation misses by 2δ.
            # rank 2: A is 1 minus a rotation: at δ from the point the operation misses by √(det A) δ.
            limit = float(np.linalg.norm(inverse @ [form.a, form.b])) / 2
            if form.rank == 2:
                limit = 1 / (form.a * form.d)
            found.append(PlainForm(form.rank, form.a, form.b, float(form.c), form.d, float(form.e), limit))
        return tuple(found)

    @cached_property
    def _metric(self) -> tuple[float, float, float]:
        (xx, xy), (_, yy) = (self.plane @ self.plane.T).tolist()
        return xx, xy, yy

    def _near(self, form: PlainForm, x: Any, y: Any, tolerance: float) -> Any:
        """Whether a form holds at shifts about the rational origin: numbers, or arrays (N,)."""
        rank, a, b, c, d, e, limit = form
        if rank == 0:
            return x == x  # everywhere
        first = _residual(a, x, b, y, c)
        if rank == 1:
            return abs(first) <= tolerance * limit
        second = _residual(0, x, d, y, e) / d
        first = (first - b * second) / a
        xx, xy, yy = self._metric
        return xx * first**2 + 2 * xy * first * second + yy * second**2 <= tolerance**2 * limit


def congruences(operations: Operations, operator: Integers, eta: int, plane: Floats) -> Congruences:
    """Return the congruences of all bilayers of a monolayer.

    `operations` are the monolayer's with signs, `operator` (3, 3) is O in the lattice's basis, `eta` the sign
    of the top layer's moments, `plane` (2, 2) the lattice in Å. Raises `AltermagError` where the operations
    are no group, or more than 64 congruences differ.
    """
    translations, n, origin = rational_translations(operations)
    flat, unit = operator[:2, :2], np.eye(2, dtype=np.int64)
    inverse = np.rint(np.linalg.inv(operator)).astype(np.int64)
    partners: dict[tuple[int, ...], list[int]] = {}
    for i, (rotation, sign) in enumerate(zip(operations.rotations, operations.signs, strict=True)):
        partners.setdefault((*map(int, rotation.ravel()), int(sign)), []).append(i)
    forms: dict[Form, int] = {}
    owners: dict[tuple[int, ...], set[int]] = {}
    moves: list[Floats] = []

    def add(rotation: Integers, sign: int, a: Integers, numerators: Integers, translation: Floats) -> None:
        form = hermite_form(a, [Fraction(int(value), n) for value in numerators])
        if form is not None:
            key = (*map(int, rotation.ravel()), sign)
            if key not in owners:  # in a primitive cell one translation belongs to a rotation and sign
                moves.append(translation)
            owners.setdefault(key, set()).add(forms.setdefault(form, len(forms)))

    for i, (rotation, sign) in enumerate(zip(operations.rotations, operations.signs.tolist(), strict=True)):
        if rotation[2, 2] == 1:
            for j in partners.get((*map(int, (inverse @ rotation @ operator).ravel()), sign), []):
                difference = flat @ translations[j] - translations[i]
                add(rotation, sign, unit - rotation[:2, :2], difference, operations.translations[i, :2])
        swap = operator @ rotation
        if swap[2, 2] == -1:
            for j in partners.get((*map(int, (swap @ operator).ravel()), sign), []):
                difference = flat @ translations[i] - translations[j]
                moved = flat @ operations.translations[i, :2]
                add(swap, eta * sign, unit + swap[:2, :2], difference, moved)
    if len(forms) > 64:
        raise AltermagError(f"{len(forms)} different conditions on the shift; a code has room for 64")
    return Congruences(
        plane=plane,
        offset=(flat - unit) @ origin,
        rotations=np.array([key[:9] for key in owners], dtype=np.int64).reshape(-1, 3, 3),
        signs=np.array([key[9] for key in owners], dtype=np.int64),
        translations=np.array(moves).reshape(-1, 2),
        owners=tuple(tuple(sorted(found)) for found in owners.values()),
        forms=tuple(forms),
    )


def rational_translations(operations: Operations) -> tuple[Integers, int, Floats]:
    """Return in-plane translations (n, 2) as integers over N about a new origin, N, and that origin in
    fractions.

    With T the sum of all N translations, N t = T - R T modulo the lattice; about the origin T/N every
    translation is a multiple of 1/N. Raises `AltermagError` if they are not, to a quarter of it: then the
    operations are no group.
    """
    n = len(operations)
    origin = operations.translations[:, :2].sum(0) / n
    moved = operations.translations[:, :2] + operations.rotations[:, :2, :2] @ origin - origin
    numerators = np.rint(moved * n).astype(np.int64)
    if np.abs(moved * n - numerators).max() > 0.25:
        raise AltermagError("the monolayer's operations are no group at this symprec; use a smaller one")
    return numerators % n, n, origin


def hermite_form(matrix: Integers, constants: Sequence[Fraction]) -> Form | None:
    """Return the canonical form of A τ + b = 0 modulo 1, None if nothing satisfies it.

    Row operations with integers do not change the solutions; two congruences with the same solutions get one
    form.
    """
    first = [Fraction(int(value)) for value in matrix[0]] + [constants[0]]
    second = [Fraction(int(value)) for value in matrix[1]] + [constants[1]]
    for column in (0, 1):
        while second[column]:
            times = first[column] // second[column]
            first, second = second, [p - times * q for p, q in zip(first, second, strict=True)]
        if first[column]:
            break
    if second[1] < 0:
        second = [-value for value in second]
    leading = first[0] or first[1]
    if leading < 0:
        first = [-value for value in first]
    if second[1]:
        times = first[1] // second[1]
        first = [p - times * q for p, q in zip(first, second, strict=True)]
    if not second[1] and second[2].denominator != 1:
        return None
    if not leading and first[2].denominator != 1:
        return None
    return Form(int(first[0]), int(first[1]), first[2] % 1, int(second[1]), second[2] % 1)


def solutions(form: Form) -> list[tuple[Fraction, Fraction]]:
    """Return the points in [0, 1)² that satisfy a form of rank 2: |det A| of them."""
    found = []
    for k in range(form.d):
        y = (k - form.e) / form.d
        found += [((m - form.c - form.b * y) / form.a % 1, y % 1) for m in range(form.a)]
    return found


def _closed(found: Operations) -> bool:
    rows = {(*map(int, r.ravel()), int(s)) for r, s in zip(found.rotations, found.signs, strict=True)}
    products = np.einsum("aij,bjk->abik", found.rotations, found.rotations).reshape(-1, 9)
    signs = np.outer(found.signs, found.signs).ravel()
    return {(*map(int, r), int(s)) for r, s in zip(products, signs, strict=True)} <= rows


def _residual(a: int, x: Any, b: int, y: Any, c: float) -> Any:
    """Return a x + b y + c minus the nearest integer."""
    value = y * b if a == 0 else x * a if b == 0 else x * a + y * b
    if c:
        value = value + c
    # `round` takes a tenth of the time for one number, and halves go to the even one in both.
    return value - (round(value) if isinstance(value, float) else np.rint(value))
