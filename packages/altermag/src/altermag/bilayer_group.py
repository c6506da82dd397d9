"""The operations of a bilayer from those of its monolayer, so that spglib searches once a monolayer (2.2).

Every operation of two layers that do not interlock keeps each of them or swaps them, and the kernel knows all
of both kinds. `altermag.classification` asks spglib in its place wherever that does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from altermag.kernel import Congruences, congruences
from altermag.monolayer import Monolayer
from altermag.operations import Operations
from altermag.slabs import Floats
from altermag.stacking import Bilayer, fractional_operator

AS_STACKED = 1e-9  # fractions: farther than this from where `stack` puts it, an atom was moved


def bilayer_operations(bilayer: Bilayer) -> Operations | None:
    """Return the operations of a bilayer, at its own tolerances.

    None where the monolayer does not tell them: other moments than `stack` gives, atoms that were moved
    since, layers that interlock, a monolayer that is a supercell, a shift at the edge of the tolerance.
    """
    mono, symprec = bilayer.monolayer, bilayer.symprec
    if bilayer.order not in ("afm", "fm") or mono.primitive is not mono:
        return None
    family = _family(mono, bilayer.operator.tobytes(), -1 if bilayer.order == "afm" else 1)
    if bilayer.distance - family.thickness <= 2 * symprec or not family.made(bilayer):
        return None
    found = family.congruences
    code = found.code(bilayer.shift, symprec)
    return found.operations(code, bilayer.shift) if found.is_group(code) else None


@dataclass(frozen=True, eq=False)
class _Family:
    """What the bilayers of a monolayer, operator and order have in common.

    `places` (2n, 3) are the atoms of both layers before the top one is shifted and they are taken apart: in
    the plane in fractions, along z in Å from the mid-plane.
    """

    congruences: Congruences
    plane: Floats
    species: tuple[str, ...]
    moments: Floats
    places: Floats
    thickness: float

    def made(self, bilayer: Bilayer) -> bool:
        """Whether a bilayer of the family is as `stack` made it."""
        if bilayer.species != self.species or not (bilayer.magmoms == self.moments).all():
            return False
        lattice, n = bilayer.lattice, len(self.species) // 2
        if not (lattice[:2] == self.plane).all():
            return False
        c = float(lattice[2, 2])
        half = bilayer.distance / 2 / c
        places = self.places * (1, 1, 1 / c)
        places[:n] += (0, 0, 0.5 - half)
        places[n:] += (*bilayer.shift, 0.5 + half)
        places -= bilayer.frac_coords
        return bool((abs(places - np.rint(places)) < AS_STACKED).all())


@lru_cache(maxsize=64)
def _family(mono: Monolayer, operator: bytes, eta: int) -> _Family:
    plane = mono.lattice[:2, :2]
    inside = fractional_operator(np.frombuffer(operator).reshape(3, 3), plane)
    layer = np.c_[mono.frac_coords[:, :2], mono.heights]
    return _Family(
        congruences=congruences(mono.operations, inside, eta, plane),
        plane=mono.lattice[:2].copy(),
        species=mono.species * 2,
        moments=np.r_[mono.magmoms, eta * mono.magmoms],
        places=np.vstack([layer, layer @ inside.T]),
        thickness=mono.thickness,
    )
