"""The rules of section 2.4: from the operations that keep and flip the spins to the magnetic class."""

from __future__ import annotations

import numpy as np

from altermag.operations import Integers, Operations
from altermag.slabs import Floats

KINDS = (
    "nonmagnetic",
    "ferromagnet",
    "ferrimagnet",
    "compensated-ferrimagnet",
    "antiferromagnet",
    "altermagnet",
)
# What R = ±1 in the plane is in space, by (in-plane sign, z sign); the first that occurs is named.
PLANAR_REASONS = {(1, 1): "translation", (-1, -1): "P", (1, -1): "Mz", (-1, 1): "C2z"}


def judge(operations: Operations, moments: Floats, mag_tol: float, dim: int) -> tuple[str, str]:
    """Return the kind (one of `KINDS`) and the reason.

    `moments` (n,) are relative to the largest, with those that count as zero set to zero. In words: without
    moments nonmagnetic; without spin-flip operations a ferromagnet, ferrimagnet or, with no net moment, a
    compensated ferrimagnet; with one that is ±1 on k (in the plane for dim=2) an antiferromagnet; else an
    altermagnet.
    """
    if not moments.any():
        return "nonmagnetic", "no moments"
    flips = operations.rotations[operations.signs < 0]
    if not len(flips):
        return _without_flips(moments, mag_tol)
    reason = degeneracy(flips, dim)
    if reason is not None:
        return "antiferromagnet", reason
    return "altermagnet", f"{len(flips)} spin-flip operations, none of them ±1 on k"


def degeneracy(flips: Integers, dim: int) -> str | None:
    """Return which of the spin-flip rotations (n, 3, 3) makes the spins degenerate at every k, or None."""
    unit = np.eye(3, dtype=int)
    if dim == 3:
        reasons = {"translation": unit, "P": -unit}
    else:
        reasons = {name: np.diag([plane, plane, z]) for (plane, z), name in PLANAR_REASONS.items()}
    return next((name for name, r in reasons.items() if (flips == r).all((1, 2)).any()), None)


def _without_flips(moments: Floats, mag_tol: float) -> tuple[str, str]:
    magnetic = moments[moments != 0]
    # The mean, not the sum: the answer is then that of any supercell.
    if abs(magnetic.mean()) <= mag_tol:
        return "compensated-ferrimagnet", "no operation flips the spins, yet the moments cancel"
    if (magnetic > 0).all() or (magnetic < 0).all():
        return "ferromagnet", "all moments have one sign"
    return "ferrimagnet", "moments of both signs with a net moment"
