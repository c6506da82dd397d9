"""Stack a monolayer on its copy: operators, shifts, and the bilayer B(O, τ, d, η) of section 2.1.

The bottom layer is S shifted by -d/2, the top layer {O|τ}S shifted by +d/2. Operators other than `mirror` and
`identity` act about the in-plane origin of the monolayer's coordinates, so τ means another bilayer if that
moves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import ArrayLike

from altermag.errors import AltermagError
from altermag.monolayer import Monolayer
from altermag.operations import Integers
from altermag.slabs import Floats, wrapped

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core.structure import Structure

    from altermag.partners import Partner

OPERATORS = ("mirror", "identity", "inversion", "c2z", "c2:<angle>", "c4z", "s4z")
CLASH = 0.7  # of the sum of covalent radii: two layers that come nearer than this overlap
ON_LATTICE = 1e-3  # relative to the longest in-plane vector: how well an operator must map the lattice


@dataclass(frozen=True, eq=False)
class Bilayer:
    """Two layers, the bottom one first: arrays as in `Monolayer`, and how they were stacked.

    `layer_of_atom` (2n,) is 0 at the bottom and 1 at the top; `operator` (3, 3) is the Cartesian O and
    `shift` (2,) the in-plane τ in fractions; `distance` separates the mid-planes in Å; `order` is "afm", "fm"
    or "custom".
    """

    monolayer: Monolayer
    op: str
    operator: Floats
    shift: tuple[float, float]
    distance: float
    order: str
    lattice: Floats
    frac_coords: Floats
    species: tuple[str, ...]
    magmoms: Floats
    layer_of_atom: Integers

    @property
    def symprec(self) -> float:
        """Tolerance of the symmetry search in Å, the monolayer's."""
        return self.monolayer.symprec

    @property
    def mag_tol(self) -> float:
        """Tolerance of the moments relative to the largest, the monolayer's."""
        return self.monolayer.mag_tol

    @property
    def vacuum(self) -> float:
        """Empty space between the images along z in Å."""
        return float(self.lattice[2, 2] - np.ptp(self.frac_coords[:, 2]) * self.lattice[2, 2])

    @property
    def gap(self) -> float:
        """Clear distance along z between the outermost atoms of the two layers in Å."""
        return self.distance - self.monolayer.thickness

    @property
    def structure(self) -> Structure:
        """The bilayer as a pymatgen structure, the moments as the site property "magmom"."""
        from altermag.io import to_pymatgen

        return to_pymatgen(self)

    @property
    def atoms(self) -> Atoms:
        """The bilayer as ASE atoms, periodic in the plane, with initial magnetic moments."""
        from altermag.io import to_ase

        return to_ase(self)

    def mirror_partner(self) -> Bilayer:
        """Return the mirror image (z → -z) with the order's own signs: the bottom layer's moments stay.

        For antiparallel layers its splitting is the negative at every k (section 2.6); for the operator
        `mirror` it is the same monolayer at the shift -τ.
        """
        below = self.monolayer
        if self.op != "mirror":
            below = _transformed(below, np.diag([1.0, 1.0, -1.0]) @ self.operator)
        half = len(self.magmoms) // 2
        order = -np.r_[self.magmoms[half:], self.magmoms[:half]] if self.order == "custom" else self.order
        inverse = "mirror" if self.op == "mirror" else self.operator.T
        shift = (-self.shift[0], -self.shift[1])
        return stack(below, inverse, shift, distance=self.distance, order=order, vacuum=self.vacuum)

    def reverse_neel(self) -> Bilayer:
        """Return the same bilayer with every moment reversed."""
        below = replace(self.monolayer, magmoms=-self.monolayer.magmoms)
        return replace(self, monolayer=below, magmoms=-self.magmoms)

    def partners(self) -> list[Partner]:
        """Return the stackings of this monolayer whose splitting is the negative at the same k."""
        from altermag.partners import find_partners

        return find_partners(self)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data: the structure as `altermag.io.read` takes it, and how it was stacked."""
        from altermag.io import crystal_dict

        return crystal_dict(self.lattice, self.frac_coords, self.species, self.magmoms) | {
            "op": self.op,
            "operator": self.operator.tolist(),
            "shift": list(self.shift),
            "distance": self.distance,
            "order": self.order,
            "layer_of_atom": self.layer_of_atom.tolist(),
        }


def stack(
    mono: Monolayer,
    op: str | ArrayLike,
    shift: Sequence[float | str | Fraction],
    *,
    distance: float | None = None,
    gap: float | None = None,
    order: str | ArrayLike = "afm",
    vacuum: float = 20.0,
) -> Bilayer:
    """Return the bilayer of `mono` and its copy under `op`, shifted by `shift` (fractions of a1 and a2).

    `op` is one of `OPERATORS` or an orthogonal matrix (3, 3) that maps the in-plane lattice onto itself.
    Exactly one of `distance` (between mid-planes) and `gap` (between outermost atoms) is given, in Å. `order`
    is "afm" (top moments reversed), "fm", or all 2n moments, bottom layer first. Raises `AltermagError` for
    an operator that does not map the lattice, a shift that is not two finite numbers, or layers that overlap.
    """
    name, operator = resolve_operator(op, mono.lattice[:2, :2])
    tau = parse_shift(shift)
    separation = _separation(mono, distance, gap)
    if not (math.isfinite(vacuum) and vacuum > 0):
        raise AltermagError(f"vacuum={vacuum}; needed: a positive number of Å")
    top = operate(mono, operator, tau)
    moments, kind = _moments(mono, order)
    c = separation + mono.thickness + vacuum
    lattice = mono.lattice.copy()
    lattice[2, 2] = c
    heights = np.r_[mono.heights - separation / 2, operator[2, 2] * mono.heights + separation / 2]
    frac = np.c_[np.vstack([wrapped(mono.frac_coords[:, :2]), top]), 0.5 + heights / c]
    _check_overlap(mono, lattice, frac)
    return Bilayer(
        monolayer=mono,
        op=name,
        operator=operator,
        shift=tau,
        distance=separation,
        order=kind,
        lattice=lattice,
        frac_coords=frac,
        species=mono.species * 2,
        magmoms=moments,
        layer_of_atom=np.repeat([0, 1], len(mono.species)),
    )


def parse_shift(shift: Sequence[float | str | Fraction]) -> tuple[float, float]:
    """Return the shift as two floats; strings such as "1/3" are read exactly.

    Raises `AltermagError` unless there are exactly two finite numbers.
    """
    parts: Iterable[float | str | Fraction] = shift.split(",") if isinstance(shift, str) else shift
    try:
        numbers = [float(Fraction(part.strip()) if isinstance(part, str) else part) for part in parts]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise AltermagError(
            f"shift={shift!r} is not two numbers such as (1/3, 2/3) or '1/3,2/3' ({error})"
        ) from error
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise AltermagError(f"shift={shift!r}; needed: two finite in-plane fractions")
    return numbers[0], numbers[1]


def resolve_operator(op: str | ArrayLike, plane: Floats) -> tuple[str, Floats]:
    """Return the name and the Cartesian matrix (3, 3) of an operator that maps the lattice (2, 2)."""
    if isinstance(op, str):
        name, matrix = op, named_operator(op)
    else:
        name, matrix = "custom", np.array(op, dtype=float)
        if matrix.shape != (3, 3) or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6):
            raise AltermagError("an operator is an orthogonal matrix (3, 3)")
        if np.abs(matrix[2, :2]).max() > 1e-6:
            raise AltermagError("the operator mixes z with the plane; needed: z → z or z → -z")
    residual = _lattice_residual(matrix[:2, :2], plane)
    if residual > ON_LATTICE * np.linalg.norm(plane, axis=1).max():
        raise AltermagError(
            f"the operator {name} does not map the lattice onto itself (off by {residual:.2f} Å); "
            f"{_allowed(plane)}"
        )
    return name, matrix


def fractional_operator(operator: Floats, plane: Floats) -> Integers:
    """Return the integer matrix (3, 3) of an operator in the lattice's basis (acting on column fractions)."""
    inside = np.zeros((3, 3), dtype=np.int64)
    inside[:2, :2] = np.rint(np.linalg.inv(plane.T) @ operator[:2, :2] @ plane.T)
    inside[2, 2] = round(operator[2, 2])
    return inside


def operate(mono: Monolayer, operator: Floats, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """Return the in-plane fractions (n, 2) of {O|τ}S."""
    inside = fractional_operator(operator, mono.lattice[:2, :2])[:2, :2]
    return wrapped(mono.frac_coords[:, :2] @ inside.T + np.array(shift))


def named_operator(name: str) -> Floats:
    """Return the Cartesian matrix (3, 3) of one of `OPERATORS`; raises `AltermagError` for another name."""
    simple = {
        "mirror": np.diag([1.0, 1.0, -1.0]),
        "identity": np.eye(3),
        "inversion": -np.eye(3),
        "c2z": np.diag([-1.0, -1.0, 1.0]),
        "c4z": np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
        "s4z": np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]),
    }
    if name in simple:
        return simple[name]
    axis = re.fullmatch(r"c2:(-?\d+(?:\.\d+)?)", name)
    if axis is None:
        raise AltermagError(
            f"unknown operator {name!r}; there are {', '.join(OPERATORS)}, or a matrix (3, 3)"
        )
    doubled = 2 * math.radians(float(axis[1]))
    cos, sin = math.cos(doubled), math.sin(doubled)
    return np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])


def _lattice_residual(matrix: Floats, plane: Floats) -> float:
    """Return how far in Å the images of a1 and a2 are from lattice vectors."""
    images = plane @ matrix.T @ np.linalg.inv(plane)
    return float(np.linalg.norm((images - np.rint(images)) @ plane, axis=1).max())


def _allowed(plane: Floats) -> str:
    """Say which in-plane axes and which rotations about z the lattice has."""
    limit = ON_LATTICE * np.linalg.norm(plane, axis=1).max()
    vectors = np.array([(i, j) for i in range(-3, 4) for j in range(-3, 4) if (i, j) != (0, 0)]) @ plane
    along = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 180
    angles = sorted({round(float(angle), 3) % 180 for angle in np.r_[along, (along + 90) % 180]})
    axes = [f"{a:g}" for a in angles if _lattice_residual(named_operator(f"c2:{a}")[:2, :2], plane) < limit]
    quarter = _lattice_residual(named_operator("c4z")[:2, :2], plane) < limit
    say_axes = (
        f"in-plane axes c2:<angle> are possible at {', '.join(axes)}°" if axes else "it has no in-plane axes"
    )
    return f"{say_axes}, and it has {'a' if quarter else 'no'} four-fold axis"


def _separation(mono: Monolayer, distance: float | None, gap: float | None) -> float:
    if (distance is None) == (gap is None):
        raise AltermagError(
            "give exactly one of distance (between mid-planes) and gap (between outermost atoms)"
        )
    separation = distance if distance is not None else mono.thickness + (gap or 0.0)
    if not (math.isfinite(separation) and separation > 0):
        raise AltermagError(
            f"the layers' mid-planes would be {separation} Å apart; needed: a positive number"
        )
    return float(separation)


def _moments(mono: Monolayer, order: str | ArrayLike) -> tuple[Floats, str]:
    if isinstance(order, str):
        if order not in ("afm", "fm"):
            raise AltermagError(f"order={order!r}; needed: 'afm', 'fm', or the moments of all atoms")
        return np.r_[mono.magmoms, (-1 if order == "afm" else 1) * mono.magmoms], order
    moments = np.array(order, dtype=float)
    if moments.shape != (2 * len(mono.species),) or not np.isfinite(moments).all():
        raise AltermagError(
            f"order has shape {moments.shape}; needed: {2 * len(mono.species)} finite moments, bottom layer "
            "first"
        )
    return moments, "custom"


def _check_overlap(mono: Monolayer, lattice: Floats, frac: Floats) -> None:
    """Raise `AltermagError` if an atom of one layer is nearer to one of the other than `CLASH` allows."""
    n = len(mono.species)
    difference = frac[n:, None] - frac[None, :n]
    difference[..., :2] -= np.rint(difference[..., :2])
    images = np.array([(i, j, 0) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    distances = np.linalg.norm((difference[..., None, :] + images) @ lattice, axis=-1).min(-1)
    radii = covalent_radii[[atomic_numbers[name] for name in mono.species]]
    excess = distances - CLASH * (radii[:, None] + radii[None, :])
    if (excess < 0).any():
        i, j = np.unravel_index(np.argmin(excess), excess.shape)
        raise AltermagError(
            f"the layers overlap: {mono.species[j]} below and {mono.species[i]} above are "
            f"{distances[i, j]:.2f} Å apart; use a larger distance or gap"
        )


def _transformed(mono: Monolayer, operator: Floats) -> Monolayer:
    """Return the monolayer O S, in the same cell."""
    frac = np.c_[operate(mono, operator), 0.5 + operator[2, 2] * (mono.frac_coords[:, 2] - 0.5)]
    return Monolayer(mono.lattice, frac, mono.species, mono.magmoms, mono.symprec, mono.mag_tol)
