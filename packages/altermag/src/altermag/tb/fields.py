"""A gate field across the layers, and the charge that they exchange (section 2.7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.constants import angstrom, e

from altermag.errors import AltermagError
from altermag.tb.bloch import chunks, derivatives, gamma_mesh
from altermag.tb.filling import Filling
from altermag.tb.model import Model

Array = NDArray[np.float64]

PC_PER_M = e / angstrom * 1e12
"""1 e/Å in pC/m."""


def gate(model: Model, field: float) -> Model:
    """The model in a field `field` along z in V/Å: + e E_z z on the diagonal, z from the mid-plane.

    Raises `AltermagError` if the model's states have no heights.
    """
    gated = model.replace(field=float(field))
    gated.diagonal(gated.spins[0])
    return gated


def populations(model: Model, nk: tuple[int, int], n_electrons: float, kT: float = 0.0) -> Array:
    """Float64 [n]: electrons on every state, of both spins of a collinear model; they add up to
    `n_electrons`.

    The mesh of `nk` points goes through Γ; `kT` in eV. Raises `AltermagError` for a filling that cannot be.
    """
    mesh = gamma_mesh(nk)
    filling = Filling.of(model.bands(mesh), n_electrons, len(mesh), kT)
    total = np.zeros(model.n_states)
    for chunk in chunks(len(mesh), model.n_states):
        H = derivatives(np, model.tables, mesh[chunk], 0)[0]
        for spin in model.spins:
            energies, states = np.linalg.eigh(H + np.diag(model.diagonal(spin)))
            total += np.einsum("kin,kn->i", np.abs(states) ** 2, filling.occupations(energies))
    return total / len(mesh)


def layer_dipole(model: Model, nk: tuple[int, int], n_electrons: float, kT: float = 0.0) -> float:
    """p_z = −e Σ_i z_i (n_i − n_i⁰)/A in pC/m: the dipole of the charge that the layers exchange.

    n⁰ are the populations without field and without hopping between the layers: the layers are neutral then.
    Raises `AltermagError` for a model without heights and layers, or a filling that cannot be.
    """
    if model.heights is None or model.layers is None:
        raise AltermagError("a layer dipole needs the heights and layers of a model that came from a bilayer")
    same = model.layers[:, None] == model.layers
    apart = model.replace(matrices=model.matrices * same, field=0.0)
    moved = populations(model, nk, n_electrons, kT) - populations(apart, nk, n_electrons, kT)
    return float(-PC_PER_M * (model.heights @ moved) / model.area)
