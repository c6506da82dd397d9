"""Modules of proteins that vary together: signed networks after WGCNA (Langfelder and Horvath 2008).

Matrices are samples x proteins, complete; networks G x G, symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import squareform
from scipy.stats import linregress

from proteus_omics.errors import DataError

Floats = NDArray[np.float64]

POWERS = (*range(1, 11), 12, 14, 16, 18, 20)
SCALE_FREE = 0.8
USUAL_POWER = 6  # where no power gives a scale-free network; bulk data with a strong contrast never do
MERGE_ABOVE = 0.75  # correlation of eigengenes
STAYS_ABOVE = 0.3  # a member's correlation with its eigengene


@dataclass(frozen=True)
class Modules:
    """Modules of a co-expression network."""

    labels: NDArray[np.int64]
    """G: 1 is the largest module, 0 is in none."""
    eigengenes: pd.DataFrame
    """Samples x modules `M1, M2, ...`: the first principal component, with unit norm."""
    membership: pd.DataFrame
    """Proteins x modules: correlation with the eigengene; the hubs of a module have the largest."""
    power: int
    scale_free_r2: float
    """Of the network with that power; below 0.8 where the usual power was taken."""


def bicor(X: ArrayLike) -> Floats:
    """Biweight midcorrelation, G x G (Langfelder and Horvath 2012); Pearson's for columns whose MAD is 0.

    Raises `DataError` for missing values or a constant column.
    """
    x = _complete(X)
    centred = x - np.median(x, axis=0)
    mad = np.median(np.abs(centred), axis=0)
    u = np.divide(centred, 9 * mad, out=np.full_like(x, 2.0), where=mad > 0)
    weighted = centred * (1 - u**2) ** 2 * (np.abs(u) < 1)
    weighted = np.where(mad > 0, weighted, x - x.mean(axis=0))
    return _unit(weighted).T @ _unit(weighted)


def pearson(X: ArrayLike) -> Floats:
    """Pearson's correlation, G x G. Raises `DataError` for missing values or a constant column."""
    x = _complete(X)
    unit = _unit(x - x.mean(axis=0))
    return unit.T @ unit


def signed_adjacency(correlation: Floats, power: float) -> Floats:
    """((1 + r)/2)^power: proteins that vary in opposite directions are far apart."""
    return (np.clip((1 + correlation) / 2, 0, 1)) ** power


def topological_overlap(adjacency: Floats) -> Floats:
    """Shared neighbours, (sum_u a_iu a_uj + a_ij) / (min(k_i, k_j) + 1 - a_ij), u other than i and j; 1 on
    the diagonal."""
    a = adjacency.copy()
    np.fill_diagonal(a, 0)
    k = a.sum(axis=0)
    overlap = (a @ a + a) / (np.minimum(k[:, None], k[None]) + 1 - a)
    np.fill_diagonal(overlap, 1)
    return overlap


def scale_free_fit(adjacency: Floats, bins: int = 10) -> float:
    """R^2 of ln p(k) on ln k over bins of connectivity; below 0 where hubs are more frequent than leaves."""
    k = adjacency.sum(axis=0) - np.diag(adjacency)
    edges = np.linspace(k.min(), k.max(), bins + 1)
    which = np.clip(np.searchsorted(edges, k, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    means = np.bincount(which, weights=k, minlength=bins) / np.maximum(counts, 1)
    middle = (edges[:-1] + edges[1:]) / 2
    means = np.where(counts > 0, means, middle)
    if np.ptp(k) == 0 or means.min() <= 0:
        return 0.0
    fit = linregress(np.log10(means), np.log10(counts / len(k) + 1e-9))
    return float(-np.sign(fit.slope) * fit.rvalue**2)


def soft_power(correlation: Floats, powers: Sequence[int] = POWERS) -> tuple[int, float]:
    """The least power with a scale-free fit of at least 0.8, else 6; and the fit that it has."""
    for power in powers:
        fit = scale_free_fit(signed_adjacency(correlation, power))
        if fit >= SCALE_FREE:
            return power, fit
    return USUAL_POWER, scale_free_fit(signed_adjacency(correlation, USUAL_POWER))


def find_modules(
    X: pd.DataFrame | ArrayLike,
    *,
    power: int | None = None,
    correlation: Literal["bicor", "pearson"] = "bicor",
    min_size: int = 10,
) -> Modules:
    """Modules of X (n samples x G proteins, complete): branches of average linkage on 1 - overlap.

    A branch is a module where it parts from another one while both have `min_size` proteins; modules whose
    eigengenes correlate above 0.75 are merged; members that correlate below 0.3 with their eigengene leave.
    `power=None` takes `soft_power`. Raises `DataError` for missing values, constant proteins, or fewer
    proteins than `min_size`.
    """
    x = _complete(X)
    if min_size < 3 or x.shape[1] < min_size:
        raise DataError(f"modules of {min_size} proteins cannot be found among {x.shape[1]}")
    r = {"bicor": bicor, "pearson": pearson}[correlation](x)
    if power is None:
        power, fit = soft_power(r)
    else:
        fit = scale_free_fit(signed_adjacency(r, power))
    distance = 1 - topological_overlap(signed_adjacency(r, power))
    labels = _by_size(_core(x, _merged(x, _branches(_tree(distance), min_size)), min_size))
    modules = [f"M{label}" for label in range(1, labels.max() + 1)]
    genes = eigengenes(x, labels)
    unit, ours = _unit(x - x.mean(axis=0)), _unit(genes - genes.mean(axis=0)) if genes.size else genes
    samples = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(x))
    proteins = X.columns if isinstance(X, pd.DataFrame) else pd.RangeIndex(x.shape[1])
    return Modules(
        labels,
        pd.DataFrame(genes, samples, modules),
        pd.DataFrame(unit.T @ ours, proteins, modules),
        power,
        fit,
    )


def eigengenes(X: ArrayLike, labels: ArrayLike) -> Floats:
    """n x modules: the first principal component of the standardised members of each module 1, 2, ...

    It has unit norm and the sign with which it correlates with the members' mean.
    """
    x, labels = np.asarray(X, dtype=np.float64), np.asarray(labels)
    result = np.empty((len(x), int(labels.max(initial=0))))
    for at in range(result.shape[1]):
        members = x[:, labels == at + 1]
        members = _unit(members - members.mean(axis=0))
        first = np.linalg.svd(members, full_matrices=False)[0][:, 0]
        result[:, at] = first * (1 if first @ members.mean(axis=1) >= 0 else -1)
    return result


def _complete(X: ArrayLike) -> Floats:
    x = np.asarray(X, dtype=np.float64)
    if not np.isfinite(x).all():
        raise DataError("co-expression needs a value of each protein in each sample: filter or impute first")
    constant = np.ptp(x, axis=0) == 0 if len(x) else np.ones(x.shape[1], dtype=bool)
    if constant.any():
        raise DataError(f"{int(constant.sum())} proteins have the same value in all samples; leave them out")
    return x


def _unit(x: Floats) -> Floats:
    return x / np.linalg.norm(x, axis=0)


def _tree(distance: Floats) -> Floats:
    import fastcluster

    return fastcluster.linkage(squareform(distance, checks=False), method="average", preserve_input=False)


def _branches(tree: Floats, min_size: int) -> NDArray[np.int64]:
    """Labels 1, 2, ... of the branches at whose parting from the rest both sides have `min_size` leaves.

    From the root down: a side with fewer leaves falls off, and where a branch goes on without another parting
    it is a module, of the leaves that it had when it parted; leaves that fell off above are in none.
    """
    n = len(tree) + 1
    size = np.concatenate([np.ones(n), tree[:, 3]]).astype(int)
    labels = np.zeros(n, dtype=np.int64)
    modules, pending = 0, [2 * n - 2]
    while pending:
        born = node = pending.pop()
        while node >= n:
            left, right = sorted(map(int, tree[node - n, :2]), key=lambda child: size[child])
            if size[left] >= min_size:
                pending += [left, right]
                break
            node = right if size[right] >= min_size else -1
        else:
            modules += 1
            labels[_leaves(tree, born)] = modules
    return labels


def _leaves(tree: Floats, node: int) -> list[int]:
    n, found, pending = len(tree) + 1, [], [node]
    while pending:
        node = pending.pop()
        if node < n:
            found.append(node)
        else:
            pending += map(int, tree[node - n, :2])
    return found


def _merged(x: Floats, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Modules joined, the most alike first, while two eigengenes correlate."""
    while labels.max() > 1:
        genes = eigengenes(x, labels)
        r = pearson(genes) - 2 * np.eye(genes.shape[1])
        one, other = np.unravel_index(int(np.argmax(r)), r.shape)
        if r[one, other] <= MERGE_ABOVE:
            break
        keep, gone = sorted((int(one) + 1, int(other) + 1))
        labels = np.where(labels == gone, keep, labels)
        labels = np.where(labels > gone, labels - 1, labels)
    return labels


def _core(x: Floats, labels: NDArray[np.int64], min_size: int) -> NDArray[np.int64]:
    """Members that do not vary with their module leave it, and a module that is then too small is none."""
    if not labels.any():
        return labels
    genes = eigengenes(x, labels)
    r = _unit(x - x.mean(axis=0)).T @ _unit(genes - genes.mean(axis=0))
    stays = r[np.arange(len(labels)), labels - 1] >= STAYS_ABOVE
    labels = np.where(stays, labels, 0)
    return np.where(np.bincount(labels)[labels] >= min_size, labels, 0)


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumbered: 1 is the largest module, of equal ones that with the first protein."""
    names, first, sizes = np.unique(labels[labels > 0], return_index=True, return_counts=True)
    rank = np.zeros(labels.max(initial=0) + 1, dtype=np.int64)
    rank[names[np.lexsort((first, -sizes))]] = np.arange(1, len(names) + 1)
    return rank[labels]
