"""Seitz symbols of spin operations, and the spin point group as Litvin writes it (¹ keeps, ² flips)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from altermag.operations import Integers, Operations

SUPERSCRIPT = {1: "¹", -1: "²"}
Axis = tuple[int, int, int]


@dataclass(frozen=True)
class SpinOperation:
    """[spin ‖ R | t]: rotation (3 x 3 integers), translation (fractions), and whether it flips the spins."""

    rotation: tuple[tuple[int, int, int], ...]
    translation: tuple[float, float, float]
    flip: bool

    @property
    def seitz(self) -> str:
        """The operation as text: `[C2||2_100|0,0,0]` flips the spins, `[E||3+_001|1/3,2/3,0]` does not."""
        parts = ",".join(_fraction(value) for value in self.translation)
        return f"[{'C2' if self.flip else 'E'}||{seitz_rotation(np.array(self.rotation))}|{parts}]"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SpinOperation:
        """Return the operation that `to_dict` wrote."""
        first, second, third = (tuple(row) for row in data["rotation"])
        x, y, z = data["translation"]
        return cls((first, second, third), (x, y, z), data["flip"])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {
            "rotation": [list(row) for row in self.rotation],
            "translation": list(self.translation),
            "flip": self.flip,
            "seitz": self.seitz,
        }


def spin_operation_list(operations: Operations) -> tuple[SpinOperation, ...]:
    """Return the operations one by one, translations in [0, 1)."""
    found = []
    for rotation, translation, sign in zip(
        operations.rotations.tolist(), operations.translations.tolist(), operations.signs, strict=True
    ):
        x, y, z = (0.0 if abs(t - round(t)) < 1e-9 else t % 1.0 for t in translation)
        first, second, third = (tuple(row) for row in rotation)
        found.append(SpinOperation((first, second, third), (x, y, z), bool(sign < 0)))
    return tuple(found)


def seitz_rotation(rotation: Integers) -> str:
    """Return the symbol of an integer matrix (3, 3): order, sense and axis, such as `-4+_001`, `m_110`."""
    order, proper, axis = rotation_type(_flat(rotation))
    if order == 1:
        return "1" if proper else "-1"
    name = str(order) if proper else ("m" if order == 2 else f"-{order}")
    if order > 2:
        other = next(v for v in np.eye(3, dtype=np.int64) if any(_cross(v.tolist(), axis)))
        turned = rotation * (1 if proper else -1) @ other
        name += "+" if np.linalg.det(np.array([axis, other, turned])) > 0 else "-"
    return f"{name}_{''.join(map(str, axis))}"


@lru_cache(maxsize=4096)  # the integer matrices that occur are few
def rotation_type(flat: tuple[int, ...]) -> tuple[int, bool, Axis]:
    """Return order n, whether it is proper, and the axis of an integer matrix, its nine entries row by row.

    An improper operation is the n-fold rotation times the inversion; n = 2 is then a mirror and the axis its
    normal. The axis is three coprime integers, the first that is not 0 positive; for n = 1 it means nothing.
    """
    rotation = np.array(flat, dtype=np.int64).reshape(3, 3)
    proper = round(np.linalg.det(rotation)) == 1
    rotation = rotation if proper else -rotation
    order = {3: 1, -1: 2, 0: 3, 1: 4, 2: 6}[int(np.trace(rotation))]
    # The mean over the powers of a rotation projects on its axis.
    total, power = np.zeros((3, 3), dtype=np.int64), np.eye(3, dtype=np.int64)
    for _ in range(order):
        total, power = total + power, power @ rotation
    return order, proper, _axis(next(column for column in total.T if column.any()))


def spin_point_group(operations: Operations) -> str:
    """Return the spin point group, such as `¹3²2` for bilayer AB' and `²4/¹m²m¹m` for rutile.

    Where a translation flips the spins, so that every rotation occurs with both signs, ` ²1` is added.
    """
    signs: dict[tuple[int, ...], set[int]] = {}
    for rotation, sign in zip(operations.rotations, operations.signs.tolist(), strict=True):
        signs.setdefault(_flat(rotation), set()).add(sign)
    return _spin_point_group(tuple(sorted((flat, max(both)) for flat, both in signs.items()))) + (
        " ²1" if any(len(both) > 1 for both in signs.values()) else ""
    )


@lru_cache(maxsize=4096)
def _spin_point_group(signed: tuple[tuple[tuple[int, ...], int], ...]) -> str:
    along: dict[Axis, dict[tuple[int, bool], int]] = {}
    for flat, sign in signed:
        order, proper, axis = rotation_type(flat)
        if order > 1:
            along.setdefault(axis, {})[order, proper] = sign
    if not along:
        inversion = dict(signed).get((-1, 0, 0, 0, -1, 0, 0, 0, -1))
        return "¹1" if inversion is None else f"{SUPERSCRIPT[inversion]}-1"
    # A position of the symbol stands for a class of equivalent axes; its representative is the shortest.
    classes = {
        frozenset(
            _axis(np.array(flat, dtype=np.int64).reshape(3, 3) @ np.array(axis, dtype=np.int64))
            for flat, _ in signed
        )
        for axis in along
    }
    cubic = any(len(axes) == 4 for axes in classes)
    short = cubic or (len(signed) == 8 and len(classes) == 3 and not _above_two(along))
    first = {min(axes, key=_length): axes for axes in classes}
    names = {axis: _position(along[axis], short=short, alone=len(signed) == 4) for axis in first}
    mirrors = any("m" in name for name in names.values())

    def place(axis: Axis) -> tuple[Any, ...]:
        if cubic:
            return (len(first[axis]),)
        principal = any(order > 2 for order, _ in along[axis])
        last = len(signed) == 4 and mirrors and "m" not in names[axis]  # mm2
        return not principal, last, _length(axis)

    return "".join(names[axis] for axis in sorted(first, key=place))


def _position(operations: Mapping[tuple[int, bool], int], *, short: bool, alone: bool) -> str:
    """Return what the symbol says of one axis: `²4/¹m`, `¹3`, `²m`.

    `operations` are the signs by order and properness; `short` leaves 2 out of 2/m and 4 out of 4/m, as mmm
    and m-3m do, and `alone` says that the group has four operations, so that 2/m is a group, not a side
    position.
    """
    proper = max((order for order, is_proper in operations if is_proper), default=1)
    improper = max((order for order, is_proper in operations if not is_proper), default=1)
    if improper > max(proper, 2) or improper == proper == 3:  # -4, -6, -3
        return f"{SUPERSCRIPT[operations[improper, False]]}-{improper}"
    mirror = f"{SUPERSCRIPT[operations[2, False]]}m" if (2, False) in operations else ""
    if proper == 1 or (mirror and (short or (proper == 2 and not alone))):
        return mirror
    name = f"{SUPERSCRIPT[operations[proper, True]]}{proper}"
    return f"{name}/{mirror}" if mirror else name


def _above_two(along: Mapping[Axis, Mapping[tuple[int, bool], int]]) -> bool:
    return any(order > 2 for operations in along.values() for order, _ in operations)


def _length(axis: Axis) -> tuple[int, ...]:
    x, y, z = axis
    return abs(x) + abs(y) + abs(z), -x, -y, -z


def _axis(vector: Integers) -> Axis:
    """Return the coprime integers along a vector, the first that is not 0 positive."""
    vector = vector // np.gcd.reduce(vector)
    x, y, z = (vector * np.sign(vector[np.flatnonzero(vector)[0]])).tolist()
    return x, y, z


def _flat(rotation: Integers) -> tuple[int, ...]:
    return tuple(rotation.ravel().tolist())


def _cross(a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _fraction(value: float) -> str:
    near = Fraction(value).limit_denominator(24)
    return str(near) if abs(float(near) - value) < 1e-4 else f"{value:.4f}"
