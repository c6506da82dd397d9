"""H(k) and its derivatives for all k by one matrix product, with numpy or with torch.

H_ij(k) = Σ_R ⟨i0|H|jR⟩ exp[i k·(R + r_j − r_i)]: the phases have the positions in them, so that ∂H/∂k is the
velocity (times ħ) with no further term. The lattice phases of all k times the matrices of all R are one
product, [Nk, NR] @ [NR, n²]; the phases of positions are multiplied onto rows and columns afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CHUNK_BYTES = 64 * 2**20
"""The matrices of so many k points as fit here are worked on together."""


class Tables(NamedTuple):
    """A model as arrays of one library: R [NR, 2], ⟨i0|H|jR⟩ [NR, n, n] eV, r [n, 2], lattice [2, 2] Å."""

    cells: Any
    matrices: Any
    positions: Any
    lattice: Any


def gamma_mesh(nk: tuple[int, int]) -> Array:
    """Float64 [n1 n2, 2]: the mesh through Γ, which has the symmetry of the lattice, in its fractions."""
    first, second = (np.arange(n) / n for n in nk)
    return np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)


def chunks(n_k: int, n_states: int) -> Iterator[slice]:
    """Slices of the k points whose n x n complex matrices take `CHUNK_BYTES` or less."""
    size = max(1, CHUNK_BYTES // (16 * n_states**2))
    return (slice(start, start + size) for start in range(0, n_k, size))


def derivatives(xp: ModuleType, tables: Tables, k: Any, order: int) -> list[Any]:
    """[H], [H, ∂x H, ∂y H] or [H, ∂x H, ∂y H, ∂xx H, ∂xy H, ∂yy H], each complex128 [Nk, n, n] (eV Å^order).

    k is [Nk, 2] in fractions of the reciprocal lattice, the derivatives are by the Cartesian k; `order` is 0,
    1 or 2; `xp` is numpy or torch, the library of the arrays.
    """
    n_k, n = len(k), len(tables.positions)
    lattice_phases = xp.exp(2j * np.pi * (k @ tables.cells.T))
    phases = xp.exp(2j * np.pi * (k @ tables.positions.T))
    edges = phases.conj()[:, :, None] * phases[:, None, :]
    flat = tables.matrices.reshape(-1, n * n)

    def summed(factor: Any) -> Any:
        return ((lattice_phases * factor) @ flat).reshape(n_k, n, n)

    R = (tables.cells @ tables.lattice).T
    r = (tables.positions @ tables.lattice).T
    d = [x[None, :] - x[:, None] for x in r]  # r_j − r_i, along x and y
    H = summed(1.0)
    result = [edges * H]
    if order:
        first = [summed(1j * X) for X in R]
        result += [edges * (first[a] + 1j * d[a] * H) for a in (0, 1)]
    if order == 2:
        for a, b in ((0, 0), (0, 1), (1, 1)):
            second = summed(-R[a] * R[b])
            result.append(edges * (second + 1j * (d[a] * first[b] + d[b] * first[a]) - d[a] * d[b] * H))
    return result
