"""Partners of a bilayer: stackings with the opposite spin splitting at the same k (section 2.6).

A rigid motion Q with {O|τ} turns B(τ, L) into B(τ', ±L) and Δ(k) into Δ(Q⁻¹k). Where Q is ±1 in the plane, k
stays (with Δ(k) = Δ(-k)), and so, since reversing L reverses Δ, one of B(τ', L) and B(τ', -L) has the
splitting -Δ(k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altermag.mapping import Family, stacking_map
from altermag.slabs import Floats, wrapped
from altermag.special import actions
from altermag.stacking import Bilayer


@dataclass(frozen=True)
class Partner:
    """A bilayer of the same monolayer and operator with Δ → `sign` Δ at every k.

    `label` is "chirality" (the other enantiomer), "polarisation" (the polarisation along z reversed), both
    joined by " and ", "stacking" (neither), or "Néel reversal". `shift` (2,) is in fractions of the
    monolayer's cell; `neel` is
    -1 where the moments are reversed too; `operation` names Q: "1", "Mz", "P" or "C2z".
    """

    label: str
    shift: tuple[float, float]
    sign: int
    neel: int
    operation: str


def find_partners(bilayer: Bilayer) -> list[Partner]:
    """Return the partners of a bilayer, those with the same Néel vector first; empty where Δ vanishes
    everywhere.

    With moments given one by one (`order="custom"`) only the reversal of all moments is returned.
    """
    reversal = Partner("Néel reversal", bilayer.shift, -1, -1, "1")
    if bilayer.order == "custom":
        return [reversal]
    op = bilayer.op if bilayer.op != "custom" else bilayer.operator
    family = Family.of(bilayer.monolayer, op, bilayer.order)
    found = stacking_map(bilayer.monolayer, op, [bilayer.shift], order=bilayer.order)
    (stratum,) = found.strata
    if stratum.kind == "antiferromagnet":
        return []
    here = np.array(bilayer.shift)
    back = np.linalg.inv(family.to_primitive)
    offset = family.congruences.offset
    partners: dict[Partner, None] = {}
    for action in actions(family):
        flat = np.array(action.rotation)
        if not (np.abs(flat[:2, :2]) == np.eye(2)).all() or flat[0, 0] != flat[1, 1]:
            continue
        constant = np.array([float(part) for part in action.constant])
        moved = np.array(action.matrix) @ (here @ family.to_primitive + offset) + constant - offset
        shift = wrapped(moved @ back)
        name = {(1, 1): "1", (1, -1): "Mz", (-1, -1): "P", (-1, 1): "C2z"}[int(flat[0, 0]), int(flat[2, 2])]
        if _same(shift, here, bilayer.monolayer.lattice[:2, :2], bilayer.symprec):
            continue
        labels = [
            label
            for label, applies in (
                ("chirality", stratum.chiral and np.linalg.det(flat) < 0),
                ("polarisation", stratum.polar_z and flat[2, 2] == -1),
            )
            if applies
        ]
        partner = Partner(
            " and ".join(labels) or "stacking", (float(shift[0]), float(shift[1])), -1, -action.neel, name
        )
        partners[partner] = None
    return [*sorted(partners, key=lambda partner: -partner.neel), reversal]


def _same(one: Floats, other: Floats, plane: Floats, symprec: float) -> bool:
    difference = one - other
    return bool(np.linalg.norm((difference - np.rint(difference)) @ plane) <= symprec)
