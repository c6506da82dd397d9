"""Tables from calibration data: `fit_tables`; and what can be expected of it at best: `gaussian_fit`.

Codes and weights of a Memory Layer depend on its input alone, so that the output is linear in the tables:
Y = A T + b, where row n of A (N x K·2**tau) holds the K weights w_{n,k}, each at the column of its code. The
best tables are those of a sparse least-squares problem, solved by LSMR (Fong and Saunders, 2011).
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memoryformer.errors import MemoryFormerError, MemoryFormerWarning
from memoryformer.hashing import check_score, check_tau

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from memoryformer.layers import MemoryLayer

BLOCK_BYTES = 2**26  # of one vector of the solver, which keeps about six
MAX_ITERATIONS = 1000


class Fit(NamedTuple):
    """Relative errors ||layer(x) - y|| / ||y|| (Frobenius) on the calibration data."""

    before: float
    after: float


class GaussianFit(NamedTuple):
    """The best tables of a linear map on isotropic Gaussian input, T[k, c] = alpha Σ_i s_i W_i.

    `explained` is the part of the output's variance that they explain, so that the relative error is
    sqrt(1 - explained).
    """

    alpha: float
    explained: float


def gaussian_fit(tau: int, score: str = "scaled", temperature: float = 1.0) -> GaussianFit:
    """The closed form of section 2.6: alpha = E[w |z_i|] / E[w²], explained = E[w |z_i|]² / E[w²].

    For z of `tau` independent standard normals. The weight w is a product over coordinates (softmax), or that
    product times their sum (scaled), so that both means come down to one-dimensional integrals over |z_i|.
    Raises `MemoryFormerError` for an impossible tau, score or temperature.
    """
    check_tau(tau)
    check_score(score, temperature)
    nodes, widths = np.polynomial.legendre.leggauss(400)
    z = 6.0 * (nodes + 1)  # |z_i| from 0 to 12, beyond which a normal has no weight in float64
    density = 6.0 * widths * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2)
    sigmoid = 1 / (1 + np.exp(-2 * z / temperature))

    def mean(power: int, of_sigmoid: int) -> float:
        return float(np.sum(density * z**power * sigmoid**of_sigmoid))

    if score == "softmax":
        cross = mean(1, 1) * mean(0, 1) ** (tau - 1)
        square = mean(0, 2) ** tau
    else:
        cross = mean(2, 1) * mean(0, 1) ** (tau - 1)
        square = tau * mean(2, 2) * mean(0, 2) ** (tau - 1)
        if tau > 1:
            cross += (tau - 1) * mean(1, 1) ** 2 * mean(0, 1) ** (tau - 2)
            square += tau * (tau - 1) * mean(1, 2) ** 2 * mean(0, 2) ** (tau - 2)
        cross, square = cross / temperature, square / temperature**2
    return GaussianFit(cross / square, cross**2 / square)


@torch.no_grad()
def fit_tables(
    layer: MemoryLayer, x: Tensor, y: Tensor, *, ridge: float = 1.0, tolerance: float = 1e-6
) -> Fit:
    """Set the tables, and the bias if there is one, to those that best give `y` for `x`, and say how well.

    Minimises Σ_n |y_n - b - Σ_k w_{n,k} T[k, code_{n,k}]|² + ridge · K · mean(w²) · |T - a T_0|². T_0 are the
    tables that the layer has, and a is the factor that suits them best: near 0 for a fresh layer; those of
    `replace_linear` are a far better guess than zero. Rows that no input meets become a T_0. From zero,
    `ridge` 1 is about the best for isotropic input; 0 gives the solution nearest to a T_0. `x` is
    [..., in_features], `y` [..., out_features], floating, on any device; solved in float64, until both of
    LSMR's relative stopping rules are below `tolerance`.

    The error after is that on the data fitted to: with few tokens it is far too good (K·2**tau rows are free
    to learn them by heart), so measure on other text too, as `probe` does.

    Raises `MemoryFormerError` for shapes that do not fit, data that are empty, not finite or zero, a negative
    ridge, a tolerance outside (0, 1), and a layer that is not a `MemoryLayer`; `ModuleNotFoundError` without
    scipy (extra `fit`). Warns (`MemoryFormerWarning`) where the solver stopped before it was done.
    """
    x, y = _checked(layer, x, y, ridge, tolerance)
    before = _relative_error(layer, x, y)
    design = _design(*layer.hash(x), 2**layer.tau)
    layer.tables.mul_(_best_factor(layer, x, y))
    penalty = ridge * design.power(2).sum() / len(x)  # a token's Σ_k w² is K · mean(w²)
    block = max(1, BLOCK_BYTES // (8 * sum(design.shape)))
    for first in range(0, layer.out_features, block):
        columns = slice(first, first + block)
        tables = layer.tables[..., columns]
        start = tables.double().cpu().flatten(0, 1).numpy()
        target = y[:, columns].double().cpu().numpy()
        found, bias = _solve(design, target, start, penalty, tolerance, layer.bias is not None)
        tables.copy_(torch.from_numpy(found).view(tables.shape))
        if layer.bias is not None:
            layer.bias[columns] = torch.from_numpy(bias).to(layer.bias)
    return Fit(before, _relative_error(layer, x, y))


def _checked(
    layer: MemoryLayer, x: Tensor, y: Tensor, ridge: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    from memoryformer.layers import MemoryLayer

    if not isinstance(layer, MemoryLayer):
        raise MemoryFormerError(
            f"{type(layer).__name__} is no MemoryLayer, the only layer that can be fitted"
        )
    if not (ridge >= 0 and math.isfinite(ridge)):
        raise MemoryFormerError(f"ridge is {ridge}; it must be a finite number of at least 0")
    if not 0 < tolerance < 1:
        raise MemoryFormerError(f"tolerance is {tolerance}; it must lie between 0 and 1")
    expected = f"[..., {layer.in_features}] and [..., {layer.out_features}] with the same leading sizes"
    if (x.shape[-1:], y.shape[-1:]) != ((layer.in_features,), (layer.out_features,)) or x.shape[
        :-1
    ] != y.shape[:-1]:
        raise MemoryFormerError(f"x and y are {list(x.shape)} and {list(y.shape)}; expected {expected}")
    x, y = x.reshape(-1, layer.in_features), y.reshape(-1, layer.out_features)
    if not len(x):
        raise MemoryFormerError("x and y are empty: there is nothing to fit to")
    for name, values in (("x", x), ("y", y)):
        if not values.isfinite().all():
            raise MemoryFormerError(f"{name} has values that are not finite")
    if not y.any():
        raise MemoryFormerError("y is zero everywhere: it has no relative error")
    return x.to(layer.tables.device), y.to(layer.tables.device)


def _design(codes: Tensor, weights: Tensor, rows: int) -> csr_array:
    """A: w_{n,k} at row n, column k·2**tau + code_{n,k}."""
    from scipy.sparse import csr_array

    tokens, chunks = codes.shape
    columns = codes.cpu() + rows * torch.arange(chunks)
    starts = np.arange(0, tokens * chunks + 1, chunks)
    values = weights.double().cpu().numpy().ravel()
    return csr_array((values, columns.numpy().ravel(), starts), shape=(tokens, chunks * rows))


def _best_factor(layer: MemoryLayer, x: Tensor, y: Tensor) -> float:
    """The factor a that minimises ||a A T - Y||, both centred if the layer has a bias."""
    looked_up, target = layer(x).double(), y.double()
    if layer.bias is not None:
        looked_up, target = looked_up - looked_up.mean(0), target - target.mean(0)
    size = looked_up.square().sum()
    return float((looked_up * target).sum() / size) if size else 0.0


def _solve(
    design: csr_array, target: NDArray, start: NDArray, penalty: float, tolerance: float, with_bias: bool
) -> tuple[NDArray, NDArray]:
    """T and b of min ||A T + b - Y||² + penalty ||T - start||², for all columns of Y as one system.

    The bias pays no penalty: the best one for given tables makes the mean residual zero, so that the problem
    that is left is that of the centred A and Y. A system for each column would have the same spectrum and
    need as many steps, each with a pass over A for a single column.
    """
    from scipy.sparse.linalg import LinearOperator, lsmr

    (tokens, rows), columns = design.shape, target.shape[1]
    transposed = design.T.tocsr()

    def centred(values: NDArray) -> NDArray:
        return values - values.mean(axis=0) if with_bias else values

    operator = LinearOperator(
        shape=(tokens * columns, rows * columns),
        matvec=lambda t: centred(design @ t.reshape(rows, columns)).ravel(),
        rmatvec=lambda r: (transposed @ centred(r.reshape(tokens, columns))).ravel(),
        dtype=np.float64,
    )
    found = lsmr(
        operator,
        centred(target - design @ start).ravel(),
        damp=math.sqrt(penalty),
        atol=tolerance,
        btol=tolerance,
        maxiter=MAX_ITERATIONS,
    )
    if found[1] == 7:  # the limit of steps
        warnings.warn(
            f"the fit stopped after {MAX_ITERATIONS} steps; a larger ridge makes the problem easier",
            MemoryFormerWarning,
            stacklevel=3,
        )
    tables = start + found[0].reshape(rows, columns)
    return tables, (target - design @ tables).mean(axis=0)


def _relative_error(layer: MemoryLayer, x: Tensor, y: Tensor) -> float:
    return float((layer(x).double() - y.double()).norm() / y.double().norm())
