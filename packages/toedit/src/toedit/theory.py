"""The paper's linear model of collapse, exactly; and where the paper's formula departs from its own process.

T samples X [T, d], fixed over the generations, labels Ỹ_1 = X w* + E_1 with noise N(0, σ²). Generation n
fits w_n = X⁺ Ỹ_n by least squares, labels all samples anew, Ŷ_(n+1) = X w_n + E_(n+1), and takes the new
label where its mask says so: Ỹ_(n+1) = M_n Ŷ_(n+1) + (I − M_n) Ỹ_n. The test error is E‖w_n − w*‖².
Masks are bool [n, T], one row an edit; errors come for generation 1 (before any edit) to n + 1.

For X of standard normal entries the error of generation 1 is b = σ² d/(T − d − 1), on average over X.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import e, inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toedit.errors import ToEditError
from toedit.randomness import seeded_generator

DISJOINT_BOUND = 2 * e - 1
"""Disjoint edits stay below this many b, for T ≫ d; no smaller constant does: the paper has 2."""

Array = NDArray[np.float64]


def collapse_error(n: int, d: int, T: int, sigma: float = 1.0) -> float:
    """n σ² d/(T − d − 1): the test error of generation n when every label is replaced, on average over X.

    Exact, for standard normal X. Raises `ToEditError` for T < d + 2, where the mean does not exist, and for a
    sigma that is no standard deviation.
    """
    _check_sigma(sigma)
    if d < 1 or d + 2 > T:
        raise ToEditError(
            f"T={T} samples in d={d} dimensions have no finite mean error; d >= 1 and T >= d + 2 do"
        )
    return n * sigma**2 * d / (T - d - 1)


def exact_error(X: ArrayLike, masks: ArrayLike, sigma: float = 1.0) -> Array:
    """Float64 [n + 1]: the test error of generations 1 to n + 1 of the process as the paper defines it.

    The labels' errors z_1 = E_1, z_(n+1) = A z_n + M_n E_(n+1) with A = M_n P + I − M_n and the projection
    P = X X⁺ have the covariance C ← A C Aᵀ + σ² M_n; the test error is tr(X⁺ C X⁺ᵀ). O(n T² d).
    Raises `ToEditError` if X is not a finite [T, d] of rank d, the masks are not 0 and 1, [n, T], or sigma is
    no standard deviation.
    """
    X, masks = _checked(X, masks, sigma)
    U, s, _ = np.linalg.svd(X, full_matrices=False)  # P = U Uᵀ and tr(X⁺ C X⁺ᵀ) = Σ (Uᵀ C U)_jj / s_j²
    C = sigma**2 * np.eye(len(X))
    CU = C @ U
    errors = [sigma**2 * np.sum(s**-2.0)]
    for mask in masks:
        rows = np.flatnonzero(mask)
        CU[rows] = U[rows] @ (U.T @ CU)  # now A C U; A is the identity in all other rows
        edited = CU @ U[rows].T
        C[:, rows], C[rows] = edited, edited.T
        C[rows, rows] += sigma**2
        CU = C @ U
        errors.append(np.sum(U * CU, axis=0) @ s**-2.0)
    return np.array(errors)


def paper_error(X: ArrayLike, masks: ArrayLike, sigma: float = 1.0) -> Array:
    """Float64 [n + 1]: what Theorem 1 gives for the same errors, σ² tr(X⁺ (I + Σ M_i) X⁺ᵀ).

    Its proof takes the projection P for the identity (eq. 25 to 26 and 30 to 31), which drops the noise that
    a fit carries from some labels into others: for disjoint masks the numbers are too small. Where masks
    overlap it counts noise that a later edit has replaced. Raises as `exact_error`.
    """
    X, masks = _checked(X, masks, sigma)
    leverage = np.sum(np.linalg.pinv(X) ** 2, axis=0)
    return sigma**2 * np.cumsum([leverage.sum(), *(masks @ leverage)])


def paper_bound(d: int, T: int, sigma: float = 1.0) -> float:
    """2 σ² d/(T − d − 1), Theorem 2: the paper's bound for disjoint masks.

    The process passes it: see `disjoint_limit`. Raises as `collapse_error`.
    """
    return collapse_error(2, d, T, sigma)


def paper_decay_bound(d: int, T: int, sigma: float, edited: float, decay: float) -> float:
    """The paper's bound (42) for edits that shrink: b + σ² √(E tr (XᵀX)⁻²) √(E tr M_1)/(1 − η).

    `edited` is E tr M_1, the number of labels of the first edit; `decay` is η < 1, by which √(tr M_n) shrinks
    at each edit. Derived from the same faulty identity, so a number to report and no bound.
    Raises `ToEditError` for T < d + 4, where E tr (XᵀX)⁻² does not exist, and for η outside [0, 1).
    """
    if d + 4 > T or not 0 <= decay < 1:
        raise ToEditError(f"T={T}, d={d}, decay={decay}: the bound (42) needs T >= d + 4 and 0 <= decay < 1")
    spread = d * (T - 1) / ((T - d) * (T - d - 1) * (T - d - 3))
    return collapse_error(1, d, T, sigma) + sigma**2 * sqrt(spread * edited) / (1 - decay)


def disjoint_limit(fractions: Sequence[float]) -> float:
    """The error after edits of disjoint fractions f_1, f_2, ... of the labels, in units of b, for T ≫ d.

    An edit multiplies the fit's error by 1 + f_i, takes the old noise of its labels out and puts new noise
    in. With G_i the product of the (1 + f_j), j > i, and G = G_0:
    (1 − Σ f_i) G² + Σ f_i [(G − G_i)² + G_i²]. Never above 2 e^(Σ f_i) − 1, so `DISJOINT_BOUND` bounds it.
    Raises `ToEditError` for fractions below 0 or of a sum above 1: such masks are not disjoint.
    """
    f = np.asarray(fractions, dtype=np.float64).reshape(-1)
    if not (f >= 0).all() or not f.sum() <= 1 + 1e-9:
        raise ToEditError(
            f"disjoint masks have fractions >= 0 with a sum of at most 1, not {list(fractions)}"
        )
    after = np.append(np.cumprod((1 + f)[::-1])[::-1], 1.0)
    total, later = after[0], after[1:]
    return float((1 - f.sum()) * total**2 + np.sum(f * ((total - later) ** 2 + later**2)))


def fresh_limit(fractions: Sequence[float]) -> Array:
    """Float64 [n + 1]: the errors when edit i draws a new random mask of fraction f_i, in units of b, T ≫ d.

    1 + Σ f_i (2 − f_i): for ever growing if the fractions stay, bounded if their sum is. Raises `ToEditError`
    for fractions outside [0, 1].
    """
    f = _shares(fractions)
    return np.cumsum([1.0, *(f * (2 - f))])


def simulate(X: ArrayLike, masks: ArrayLike, sigma: float = 1.0, *, runs: int = 1000, seed: int = 0) -> Array:
    """Float64 [..., runs, n + 1]: ‖w − w*‖² of generations 1 to n + 1, from the definitions alone.

    X [T, d] is one design for all runs; X [..., T, d] are several, each with `runs` draws of the noise.
    w* is drawn once. The same seed gives the same numbers. Raises as `exact_error`, and for a seed below 0.
    """
    X, masks = _checked(X, masks, sigma, many=True)
    random = seeded_generator(seed)
    truth = random.standard_normal(X.shape[-1])
    fitting, labelling = np.linalg.pinv(X).swapaxes(-1, -2), X.swapaxes(-1, -2)
    shape = (*X.shape[:-2], runs, X.shape[-2])

    def noise() -> Array:
        return sigma * random.standard_normal(shape)

    labels = (X @ truth)[..., None, :] + noise()
    errors = []
    for mask in masks:
        w = labels @ fitting
        errors.append(np.sum((w - truth) ** 2, axis=-1))
        labels = np.where(mask, w @ labelling + noise(), labels)
    errors.append(np.sum((labels @ fitting - truth) ** 2, axis=-1))
    return np.stack(errors, axis=-1)


def disjoint_masks(T: int, fractions: Sequence[float]) -> NDArray[np.bool_]:
    """Bool [n, T]: masks one after the other along the samples, each of its fraction, rounded.

    Raises as `disjoint_limit`.
    """
    disjoint_limit(fractions)
    ends = np.rint(np.cumsum([0.0, *fractions]) * T)
    sample = np.arange(T)
    return (ends[:-1, None] <= sample) & (sample < ends[1:, None])


def fresh_masks(T: int, fractions: Sequence[float], seed: int = 0) -> NDArray[np.bool_]:
    """Bool [n, T]: masks independent of each other, which take each sample with the probability f_i.

    Raises `ToEditError` for fractions outside [0, 1], and a seed below 0.
    """
    shares = _shares(fractions)
    return seeded_generator(seed).random((len(shares), T)) < shares[:, None]


def _shares(fractions: Sequence[float]) -> Array:
    shares = np.asarray(fractions, dtype=np.float64).reshape(-1)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ToEditError(f"masks drawn anew have fractions from 0 to 1, not {list(fractions)}")
    return shares


def _check_sigma(sigma: float) -> None:
    if not 0 <= sigma < inf:
        raise ToEditError(f"sigma is {sigma}; a standard deviation is a number, at least 0")


def _checked(
    X: ArrayLike, masks: ArrayLike, sigma: float, many: bool = False
) -> tuple[Array, NDArray[np.bool_]]:
    _check_sigma(sigma)
    X, masks = np.asarray(X, dtype=np.float64), np.asarray(masks)
    if X.ndim < 2 or (X.ndim > 2 and not many):
        raise ToEditError(f"X must be [T, d]; it has the shape {X.shape}")
    if not np.isfinite(X).all() or (np.linalg.matrix_rank(X) < X.shape[-1]).any():
        raise ToEditError("X must be finite and of rank d, so that the least squares have one solution")
    if not masks.size:
        return X, np.zeros((0, X.shape[-2]), dtype=np.bool_)
    if masks.ndim != 2 or masks.shape[1] != X.shape[-2] or not np.isin(masks, (0, 1)).all():
        raise ToEditError(
            f"masks must be 0 or 1, [n, T] with T={X.shape[-2]} as in X; they have the shape {masks.shape}"
        )
    return X, masks.astype(np.bool_)
