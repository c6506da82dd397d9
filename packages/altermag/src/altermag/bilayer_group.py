"""The operations of a bilayer from those of its monolayer, so that spglib searches once a monolayer (2.2).

Every operation of two layers that do not interlock keeps each of them or swaps them, and the kernel knows all
of both kinds. `altermag.classification` asks spglib in its place wherever that does not hold.
"""

from __future__ import annotations

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
    if bilayer.order not in ("afm", "fm") or bilayer.gap <= 2 * symprec or mono.primitive is not mono:
        return None
    eta = -1 if bilayer.order == "afm" else 1
    found = _congruences(mono, bilayer.operator.tobytes(), eta)
    if not _as_stacked(bilayer, eta):
        return None
    code = found.code(bilayer.shift, symprec)
    return found.operations(code, bilayer.shift) if found.is_group(code) else None


@lru_cache(maxsize=64)
def _congruences(mono: Monolayer, operator: bytes, eta: int) -> Congruences:
    plane = mono.lattice[:2, :2]
    inside = fractional_operator(np.frombuffer(operator).reshape(3, 3), plane)
    return congruences(mono.operations, inside, eta, plane)


def _as_stacked(bilayer: Bilayer, eta: int) -> bool:
    mono, n = bilayer.monolayer, len(bilayer.monolayer.species)
    if (
        not (bilayer.magmoms[:n] == mono.magmoms).all()
        or not (bilayer.magmoms[n:] == eta * mono.magmoms).all()
    ):
        return False
    lattice = bilayer.lattice
    if not (lattice[:2] == mono.lattice[:2]).all():
        return False
    places = np.concatenate([mono.frac_coords, _image(bilayer)])
    places[:, 2] = (places[:, 2] - 0.5) * mono.lattice[2, 2] / lattice[2, 2] + 0.5
    half = bilayer.distance / 2 / lattice[2, 2]
    places[:n, 2] -= half
    places[n:, 2] += half
    difference = bilayer.frac_coords - places
    return bool((np.abs(difference - np.rint(difference)) < AS_STACKED).all())


def _image(bilayer: Bilayer) -> Floats:
    """Return the fractions (n, 3) of the top layer before it is lifted."""
    inside = fractional_operator(bilayer.operator, bilayer.monolayer.lattice[:2, :2])
    image = (bilayer.monolayer.frac_coords - [0, 0, 0.5]) @ inside.T + [*bilayer.shift, 0.5]
    return np.asarray(image)
