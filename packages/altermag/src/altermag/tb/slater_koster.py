"""Slater-Koster two-centre integrals up to d, and the angular momentum of the same orbitals (section 2.7).

The orbitals of an atom, in this order: s | x, y, z | xy, yz, zx, x²−y², 3z²−r². A d orbital is written as the
traceless symmetric 3x3 tensor Q of its angular part, normalised to tr Q² = 1. Along a unit vector u from the
first atom to the second the σ parts of s, p_i and d_Q are 1, u_i and √(3/2) uᵀQu, and the π and δ parts are
what is left of degree one and two. No table of direction cosines is needed, and the rotation covariance of
the integrals is that of the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from altermag.errors import AltermagError

Array = NDArray[np.float64]

SHELLS = {"s": ("s",), "p": ("p",), "sp": ("s", "p"), "spd": ("s", "p", "d")}
"""The shells of the orbital sets that a model may have."""

SHELL_SLICES = {"s": slice(0, 1), "p": slice(1, 4), "d": slice(4, 9)}
"""The places of a shell among the nine orbitals."""

INTEGRALS = ("sss", "sps", "pps", "ppp", "sds", "pds", "pdp", "dds", "ddp", "ddd")
"""The ten integrals: two shells and the bond, σ, π or δ, whose angular momentum they share."""


def _d_tensors() -> Array:
    x, y, z = np.eye(3)
    pairs = [np.outer(a, b) + np.outer(b, a) for a, b in ((x, y), (y, z), (z, x))]
    pairs += [np.outer(x, x) - np.outer(y, y), (3 * np.outer(z, z) - np.eye(3)) / np.sqrt(3)]
    return np.array(pairs) / np.sqrt(2)


D_TENSORS = _d_tensors()
"""The tensors Q of the five d orbitals, float64 [5, 3, 3]."""


def two_centre(directions: ArrayLike, integrals: Mapping[str, float]) -> Array:
    """Float64 [n, 9, 9]: ⟨orbital of the first atom| H |orbital of the second⟩ for each bond.

    `directions` [n, 3] are unit vectors from the first atom to the second; `integrals` names the values of
    those `INTEGRALS` that are not zero: {"pps": 3.24, "ppp": -0.81}. Both atoms have the same integrals, so
    that ⟨p|H|s⟩ = −⟨s|H|p⟩ along the same direction.
    Raises `AltermagError` for an integral that is none, or a direction that is no unit vector.
    """
    unknown = sorted(set(integrals) - set(INTEGRALS))
    if unknown:
        raise AltermagError(f"{unknown[0]!r} is no two-centre integral; they are {', '.join(INTEGRALS)}")
    u = np.asarray(directions, dtype=float).reshape(-1, 3)
    if not np.allclose(np.linalg.norm(u, axis=1), 1):
        raise AltermagError("the directions of bonds are unit vectors")
    V = {name: float(integrals.get(name, 0)) for name in INTEGRALS}

    Qu = np.einsum("aij,nj->nai", D_TENSORS, u)
    d = np.sqrt(1.5) * np.einsum("nai,ni->na", Qu, u)  # the σ part of each d orbital
    across = np.sqrt(2) * (Qu - np.einsum("na,ni->nai", np.sqrt(2 / 3) * d, u))  # its π part, a vector ⟂ u
    d_pi = np.einsum("nai,nbi->nab", across, across)
    p_sigma, d_sigma = (np.einsum("na,nb->nab", part, part) for part in (u, d))

    blocks = np.zeros((len(u), 9, 9))
    s, p, q = SHELL_SLICES["s"], SHELL_SLICES["p"], SHELL_SLICES["d"]
    blocks[:, s, s] = V["sss"]
    blocks[:, s, p] = V["sps"] * u[:, None]
    blocks[:, s, q] = V["sds"] * d[:, None]
    blocks[:, p, p] = V["pps"] * p_sigma + V["ppp"] * (np.eye(3) - p_sigma)
    blocks[:, p, q] = V["pds"] * np.einsum("ni,na->nia", u, d) + V["pdp"] * across.transpose(0, 2, 1)
    blocks[:, q, q] = V["dds"] * d_sigma + V["ddp"] * d_pi + V["ddd"] * (np.eye(5) - d_sigma - d_pi)
    blocks[:, p, s] = -blocks[:, s, p].transpose(0, 2, 1)  # the parity of p is odd
    blocks[:, q, s] = blocks[:, s, q].transpose(0, 2, 1)
    blocks[:, q, p] = -blocks[:, p, q].transpose(0, 2, 1)
    return blocks


def angular_momentum() -> NDArray[np.complex128]:
    """Complex128 [3, 9, 9]: L_x, L_y, L_z / ħ among the nine real orbitals; zero between shells.

    L generates rotations: an infinitesimal rotation about axis a takes a vector v to v + ε e_a × v, a tensor
    Q to Q + ε [G_a, Q] with (G_a)_ij = −ε_aij, and both are 1 − iε L_a.
    """
    L = np.zeros((3, 9, 9), dtype=complex)
    for axis in range(3):
        G = np.cross(np.eye(3)[axis], np.eye(3)).T
        turned = np.array([G @ Q - Q @ G for Q in D_TENSORS])
        L[axis, 1:4, 1:4] = 1j * G
        L[axis, 4:, 4:] = 1j * np.einsum("aij,bij->ab", D_TENSORS, turned)
    return L
