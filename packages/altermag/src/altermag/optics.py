"""Optical conductivity of a sheet by Kubo's formula, and its Kerr and Faraday rotation (section 2.8).

For independent particles, in units e²/h for a sheet of area A a cell and with ħv = ∂H/∂k:

    σ_ab(ω) = (2πi / N_k A) Σ_k Σ_{n≠m} (f_m − f_n)/(E_m − E_n) ⟨n|ħv_a|m⟩⟨m|ħv_b|n⟩ / (E_m − E_n − ħω − iη).

The two terms of a pair of states n, m with E_m − E_n = w > 0 are one: with P_ab = ⟨n|ħv_a|m⟩⟨m|ħv_b|n⟩,
g = (f_m − f_n)/w and z = ħω + iη they are g (2z Re P_ab + 2iw Im P_ab)/(w² − z²). So a transition is its w
and the four numbers g|v_x|², g|v_y|², g Re P_xy, g Im P_xy, whatever the frequencies. They go onto a grid of
w by the weights of interpolation, once, and the frequencies are worked out on the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import fine_structure

from altermag.errors import AltermagError, MissingExtraError
from altermag.tb.bloch import Tables, chunks, derivatives, gamma_mesh
from altermag.tb.filling import Filling
from altermag.tb.model import Model

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

POINTS = 8
"""A transition is put on so many points of the grid: by the error of interpolation of 1/(w − z), 4e-11/η."""

POINTS_PER_ETA = 32
"""The points of the grid within η."""

MAX_GRID = 200_000
"""With a finer grid than this (a small η) the transitions are summed one by one."""


@dataclass(frozen=True, eq=False)
class Conductivity:
    """The interband conductivity of a sheet, complex128 [N] in e²/h at photon `energies` [N] in eV.

    `drude` [2, 2] is the Drude weight in e²/h eV, zero in an insulator: carriers add i·drude/(ħω + iη).
    `fermi` is in eV. In a sheet without three- or fourfold axis xx and yy differ; give `kerr` their mean.
    """

    energies: Array
    xx: Complex
    yy: Complex
    xy: Complex
    yx: Complex
    drude: Array
    fermi: float

    @property
    def antisymmetric(self) -> Complex:
        """σ^A_xy = (σ_xy − σ_yx)/2, the Hall part."""
        return (self.xy - self.yx) / 2


def kubo(
    model: Model,
    energies: ArrayLike,
    nk: tuple[int, int] = (24, 24),
    eta: float = 0.05,
    *,
    n_electrons: float | None = None,
    fermi: float | None = None,
    kT: float = 0.0,
    device: str | None = None,
) -> Conductivity:
    """The conductivity of `model` at photon `energies` (eV), on a mesh of `nk` points through Γ.

    `eta` is the broadening η and `kT` the electrons' temperature, in eV. The filling is `n_electrons` a cell
    (of both spins) or the level `fermi`. The mesh is never shifted: one without Γ is less symmetric than the
    lattice and gives a Hall conductivity that is none. `device` names a torch device ("cuda", "cpu") and
    needs `pip install 'altermag[gpu]'`; the default is numpy, with the same numbers.
    Raises `AltermagError` for a mesh, a broadening or a filling that cannot be, or not one of the fillings.
    """
    hw = np.atleast_1d(np.asarray(energies, dtype=float))
    if np.shape(nk) != (2,) or min(nk) < 1 or not eta > 0 or not kT >= 0 or not np.isfinite(hw).all():
        raise AltermagError(
            f"kubo takes nk (n1, n2), eta > 0, kT >= 0 and finite energies; not nk={nk}, eta={eta}, kT={kT}"
        )
    lib = _library(device)
    mesh = gamma_mesh(nk)
    tables = Tables(*(lib.put(table) for table in model.tables))
    shifts = [lib.put(np.diag(model.diagonal(spin))) for spin in model.spins]
    if n_electrons is not None and fermi is None:
        filling = Filling.of(_levels(lib, tables, shifts, mesh), n_electrons, len(mesh), kT)
    elif fermi is not None and n_electrons is None:
        filling = Filling(float(fermi), kT)
    else:
        raise AltermagError("kubo fills the bands by n_electrons or up to fermi: give one of the two")

    span = 2 * (np.abs(model.matrices).sum((0, 2)).max() + max(float(abs(s).max()) for s in shifts))
    step = eta / POINTS_PER_ETA
    size = int(span / step) + 2 * POINTS
    table = lib.put(np.zeros((4, size))) if size <= MAX_GRID else None
    summed = np.zeros((4, len(hw)), dtype=complex)
    weight = np.zeros(3)
    for chunk in chunks(len(mesh), 4 * model.n_states):
        H, *slopes = derivatives(lib.xp, tables, lib.put(mesh[chunk]), 2)
        for shift in shifts:
            w, strengths, diamagnetic = _transitions(lib, H + shift, slopes, filling)
            weight += diamagnetic
            if table is None:
                summed += _response(hw + 1j * eta, lib.fetch(w), lib.fetch(strengths))
            else:
                table += _deposit(lib, w, strengths, step, size)
    if table is not None:
        grid = lib.fetch(table)
        used = np.flatnonzero(grid.any(0))
        summed = _response(hw + 1j * eta, step * (used - POINTS).astype(float), grid[:, used])
    unit = 2 * np.pi / (len(mesh) * model.area)
    xx, yy, even, odd = 1j * unit * summed
    drude = unit * weight[[0, 1, 1, 2]].reshape(2, 2)
    return Conductivity(hw, xx, yy, even + odd, even - odd, drude, filling.fermi)


class _Library(NamedTuple):
    """The array library that works, and the ways to it and back."""

    xp: ModuleType
    put: Callable[[Array], Any]
    fetch: Callable[[Any], Array]
    integers: Callable[[Any], Any]


def _library(device: str | None) -> _Library:
    if device is None:
        return _Library(np, np.asarray, np.asarray, lambda values: values.astype(np.int64))
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"torch is needed for device={device!r}: pip install 'altermag[gpu]'"
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise AltermagError(f"torch has no device {device!r} here: {error}") from error
    return _Library(
        torch,
        lambda values: torch.as_tensor(values, device=device),
        lambda values: values.cpu().numpy(),
        lambda values: values.long(),
    )


def _levels(lib: _Library, tables: Tables, shifts: list[Any], mesh: Array) -> Array:
    """All energies, of every spin."""
    levels = []
    for chunk in chunks(len(mesh), len(tables.positions)):
        H = derivatives(lib.xp, tables, lib.put(mesh[chunk]), 0)[0]
        levels += [lib.fetch(lib.xp.linalg.eigvalsh(H + shift)).ravel() for shift in shifts]
    return np.concatenate(levels)


def _transitions(lib: _Library, H: Any, slopes: list[Any], filling: Filling) -> tuple[Any, Any, Array]:
    """w [Nt] > 0 and strengths [4, Nt] of all pairs of states; [3], the part of these k in the Drude weight.

    It is Σ_n f_n ∂²E_n/∂k_a∂k_b = Σ_n f_n ⟨n|∂_ab H|n⟩ + 2 Σ_pairs g Re P_ab, which needs no temperature.
    """
    E, U = lib.xp.linalg.eigh(H)
    f = filling.occupations(E, lib.xp)
    adjoint = U.swapaxes(-1, -2).conj()
    vx, vy = (adjoint @ slope @ U for slope in slopes[:2])
    density = (U * f[:, None, :]) @ adjoint
    n = H.shape[-1]
    upper = lib.put(np.triu(np.ones((n, n), dtype=bool), 1))
    change = f[:, None, :] - f[:, :, None]  # f_m − f_n, for n the row and m the column
    pairs = (abs(change) > 1e-12) & upper
    w = (E[:, None, :] - E[:, :, None])[pairs]
    g = change[pairs] / w
    x, y = vx[pairs], vy[pairs]
    product = x * y.conj()
    strengths = lib.xp.stack([g * abs(x) ** 2, g * abs(y) ** 2, g * product.real, g * product.imag])
    diamagnetic = [float((density.conj() * curvature).real.sum()) for curvature in slopes[2:]]
    return w, strengths, np.array(diamagnetic) + 2 * lib.fetch(strengths.sum(-1))[[0, 2, 1]]


def _deposit(lib: _Library, w: Any, strengths: Any, step: float, size: int) -> Any:
    """[4, size]: the strengths on the grid w = (index − POINTS)·step, by weights of Lagrange interpolation.

    Σ_t a_t F(w_t) = Σ_q A_q F(w_q) then holds for every polynomial F of degree below POINTS. The weights go
    to 0 or 1 at the points of the grid, so that equal transitions of two k points, apart by rounding, stay
    equal.
    """
    place = w / step + POINTS
    first = lib.xp.floor(place) - (POINTS // 2 - 1)
    t = place - first
    index = lib.integers(first)
    table = []
    for strength in strengths:
        total: Any = 0
        for p in range(POINTS):
            others = [q for q in range(POINTS) if q != p]
            share = strength / float(np.prod([p - q for q in others]))
            for q in others:
                share = share * (t - q)
            total = total + lib.xp.bincount(index + p, weights=share, minlength=size)
        table.append(total)
    return lib.xp.stack(table)


def _response(z: Complex, w: Array, strengths: Array) -> Complex:
    """[4, Nω]: Σ_t a_t 2z/(w_t² − z²) of three strengths, Σ_t a_t 2i w_t/(w_t² − z²) of the last."""
    rows = np.vstack([strengths[:3], strengths[3] * w])
    result = np.empty((4, len(z)), dtype=complex)
    for column, frequency in enumerate(z):
        square = frequency**2
        away = w**2 - square.real
        denominator = 1 / (away**2 + square.imag**2)
        result[:, column] = rows @ (away * denominator) + 1j * square.imag * (rows @ denominator)
        result[:, column] *= [2 * frequency] * 3 + [2j]
    return result


def kerr(sigma_xx: ArrayLike, sigma_xy: ArrayLike, n_substrate: ArrayLike = 1.0) -> Complex:
    """Kerr rotation and ellipticity θ + iε in rad: a sheet between vacuum and a substrate, normal incidence.

    Conductivities are in e²/h, the substrate's index n_s may be complex and depend on the energy; shapes
    broadcast. r_± = (1 − n_s − Z0 σ_±)/(1 + n_s + Z0 σ_±), σ_± = σ_xx ± iσ_xy, Z0 e²/h = 2α; θ = −½
    arg(r_+/r_−) and ε = (|r_+| − |r_−|)/(|r_+| + |r_−|). For small angles θ + iε ≈ −2 Z0 σ_xy/[(n_s + Z0
    σ_xx)² − 1]. nan where nothing is reflected (n_s = 1, σ = 0). Raises `AltermagError` unless Re n_s > 0.
    """
    plus, minus, n_s = _circular(sigma_xx, sigma_xy, n_substrate)
    return _rotation((1 - n_s - plus) / (1 + n_s + plus), (1 - n_s - minus) / (1 + n_s + minus))


def faraday(sigma_xx: ArrayLike, sigma_xy: ArrayLike, n_substrate: ArrayLike = 1.0) -> Complex:
    """Faraday rotation and ellipticity θ + iε in rad, as `kerr`, of what is transmitted into the substrate.

    t_± = 2/(1 + n_s + Z0 σ_±). A quantum Hall sheet in vacuum, σ_xy = e²/h, turns the light by arctan α.
    """
    plus, minus, n_s = _circular(sigma_xx, sigma_xy, n_substrate)
    return _rotation(2 / (1 + n_s + plus), 2 / (1 + n_s + minus))


def _circular(
    sigma_xx: ArrayLike, sigma_xy: ArrayLike, n_substrate: ArrayLike
) -> tuple[Complex, Complex, Complex]:
    xx, xy, n_s = (np.asarray(values, dtype=complex) for values in (sigma_xx, sigma_xy, n_substrate))
    if not (n_s.real > 0).all():
        raise AltermagError(f"n_substrate={n_substrate!r}; needed: a refractive index, 1 for vacuum")
    return 2 * fine_structure * (xx + 1j * xy), 2 * fine_structure * (xx - 1j * xy), n_s


def _rotation(plus: Complex, minus: Complex) -> Complex:
    total = abs(plus) + abs(minus)
    with np.errstate(invalid="ignore", divide="ignore"):
        ellipticity = (abs(plus) - abs(minus)) / total
    theta = np.where(total > 0, -0.5 * np.angle(plus * minus.conj()), np.nan)
    return np.asarray(theta + 1j * ellipticity)
