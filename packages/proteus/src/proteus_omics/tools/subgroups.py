"""Tools that look for groups among samples without being told any (section 2.3, `subgroups`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import kruskal

from proteus_omics.errors import ToolError
from proteus_omics.stats import bh
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import MATRIX, table
from proteus_omics.tools.matrices import is_numeric, obs_column, traits
from proteus_omics.tools.qc import PERMUTATIONS
from proteus_omics.tools.registry import ToolContext, ToolParams, get_tool, tool

Floats = NDArray[np.float64]

LEAST_SAMPLES = 20
SHARE = 0.8  # of the samples, in each resampling
NULLS = 39  # so that the smallest p is 1/40


class ClusterParams(ToolParams):
    """Parameters of `cluster_samples`."""

    max_clusters: int = Field(default=6, ge=2, le=20)
    resamplings: int = Field(default=50, ge=20, le=2000)
    n_components: int = Field(default=5, ge=2, le=50)


def _cluster_summary(outputs: Mapping[str, Any]) -> str:
    tested = briefs.rows(outputs["subgroup_test"], "n_clusters ambiguity expected ratio p_value", n=20)
    return f"{tested}\n{briefs.rows(outputs['subgroups'], 'cluster n_samples stability', n=15)}"


@tool(
    params=ClusterParams,
    inputs={"data": "matrix"},
    outputs={
        "matrix": MATRIX,
        "subgroups": table(("cluster",), "n_samples stability"),
        "subgroup_test": table(("n_clusters",), "ambiguity expected ratio p_value"),
        "sample_clusters": table(("sample",), "cluster"),
    },
    summary=_cluster_summary,
    citation="Monti et al., Machine Learning 2003, 52:91; John et al., Sci. Rep. 2020, 10:1816 (M3C)",
    library="scipy",
)
def cluster_samples(
    inputs: Mapping[str, Any], params: ClusterParams, context: ToolContext
) -> Mapping[str, Any]:
    """Cluster samples by consensus over resamplings, and test it against data without clusters.

    Ambiguity is the mean of 4 c (1 - c) over pairs of consensus c: 0 where each pair is always or never
    together. The number of clusters is that whose ambiguity is least beside that of Gaussian data with the
    same principal variances; p is of the least ratio over all numbers, so that looking is paid for.
    """
    data = inputs["data"]
    if data.n_obs < LEAST_SAMPLES:
        raise ToolError(
            f"subgroups of {data.n_obs} samples cannot be told from noise; it takes {LEAST_SAMPLES}"
        )
    if "X_pca" not in data.obsm:
        components = get_tool("pca")
        data = components({"data": data}, components.parse({}), context)["matrix"]
    scores = np.asarray(data.obsm["X_pca"], dtype=np.float64)[:, : params.n_components]
    rng = np.random.default_rng(context.seed)
    numbers = range(2, min(params.max_clusters, data.n_obs // 3) + 1)
    matrices = _consensus(scores, numbers, params.resamplings, rng)
    ambiguity = np.array([_ambiguity(one) for one in matrices])
    null = np.array([
        [_ambiguity(one) for one in _consensus(fake, numbers, params.resamplings, rng)]
        for fake in (_without_clusters(scores, rng) for _ in range(NULLS))
    ])  # fmt: skip
    floor = 1 / len(scores) ** 2
    expected = null.mean(axis=0) + floor
    ratio = (ambiguity + floor) / expected
    least = ((null + floor) / expected).min(axis=1)
    best = int(np.argmin(ratio))
    p = np.full(len(ratio), np.nan)
    p[best] = (1 + np.sum(least <= ratio[best])) / (1 + NULLS)
    labels = _ordered(fcluster(_average(1 - matrices[best]), numbers[best], "maxclust"))
    names = np.array([f"cluster {label}" for label in labels])
    result = data.copy()
    result.obs["cluster"] = pd.Categorical(names)
    test = {
        "n_clusters": list(numbers),
        "ambiguity": ambiguity,
        "expected": expected - floor,
        "ratio": ratio,
        "p_value": p,
    }
    return {
        "matrix": result,
        "subgroups": _stability(matrices[best], names),
        "subgroup_test": pd.DataFrame(test),
        "sample_clusters": pd.DataFrame({"sample": data.obs_names.astype(str), "cluster": names}),
    }


def _consensus(scores: Floats, numbers: range, resamplings: int, rng: np.random.Generator) -> list[Floats]:
    """Of each number of clusters: how often two samples fell together when both were drawn."""
    n = len(scores)
    size = int(np.ceil(SHARE * n))
    together = np.zeros((len(numbers), n, n))
    drawn = np.zeros((n, n))
    for _ in range(resamplings):
        rows = np.sort(rng.choice(n, size, replace=False))
        at = np.ix_(rows, rows)
        drawn[at] += 1
        tree = linkage(scores[rows], "ward")
        for k, number in enumerate(numbers):
            labels = fcluster(tree, number, "maxclust")
            together[k][at] += labels[:, None] == labels[None]
    return [one / np.maximum(drawn, 1) for one in together]


def _without_clusters(scores: Floats, rng: np.random.Generator) -> Floats:
    """Gaussian data with exactly the covariance of the principal components, which is diagonal."""
    drawn = rng.normal(size=scores.shape)
    axes = np.linalg.qr(drawn - drawn.mean(axis=0))[0]
    return axes * np.linalg.norm(scores - scores.mean(axis=0), axis=0)


def _ambiguity(consensus: Floats) -> float:
    """0 where the resamplings agree of every pair whether it belongs together, at most 1."""
    pairs = consensus[np.triu_indices(len(consensus), 1)]
    return float(np.mean(4 * pairs * (1 - pairs)))


def _average(distance: Floats) -> Floats:
    np.fill_diagonal(distance, 0)
    return linkage(squareform(distance, checks=False), "average")


def _ordered(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Numbered from the largest cluster, of equal ones that with the first sample."""
    names, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    rank = np.empty(labels.max() + 1, dtype=np.int64)
    rank[names[np.lexsort((first, -sizes))]] = np.arange(1, len(names) + 1)
    return rank[labels]


def _stability(consensus: Floats, names: NDArray) -> pd.DataFrame:
    """Mean consensus of a cluster's pairs; 1 where they fell together in every resampling."""
    rows = []
    for name in sorted(set(names)):
        inside = np.flatnonzero(names == name)
        pairs = consensus[np.ix_(inside, inside)][np.triu_indices(len(inside), 1)]
        rows.append((name, len(inside), float(pairs.mean()) if len(pairs) else np.nan))
    return pd.DataFrame(rows, columns=["cluster", "n_samples", "stability"])


class ClusterAssociationParams(ToolParams):
    """Parameters of `cluster_association`; no `columns` are all of the sample sheet that vary."""

    columns: tuple[str, ...] = ()


def _cluster_association_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["cluster_association"]
    return f"{briefs.hits(found)}\n{briefs.rows(found, 'column test p_value q_value n', by='p_value', n=20)}"


@tool(
    params=ClusterAssociationParams,
    inputs={"data": "matrix"},
    outputs={"cluster_association": table(("column",), "test statistic p_value q_value n")},
    summary=_cluster_association_summary,
    citation="Kruskal and Wallis, J. Am. Stat. Assoc. 1952, 47:583; chi-squared by permutation",
    library="scipy",
)
def cluster_association(
    inputs: Mapping[str, Any], params: ClusterAssociationParams, context: ToolContext
) -> Mapping[str, Any]:
    """Test whether the clusters differ in each column of the sample sheet."""
    data = inputs["data"]
    clusters = obs_column(data, "cluster").astype(str).to_numpy()
    rng = np.random.default_rng(context.seed)
    rows = []
    for name, column in traits(data, params.columns, context.design, ["cluster"]).items():
        known = column.notna().to_numpy()
        labels = clusters[known]
        if len(set(labels)) < 2:
            continue
        if is_numeric(column):
            numbers = column[known].to_numpy(dtype=np.float64)
            found = kruskal(*(numbers[labels == label] for label in sorted(set(labels))))
            rows.append((name, "Kruskal-Wallis", float(found.statistic), float(found.pvalue), len(labels)))
        else:
            rows.append((name, "chi-squared", *_chi2(labels, column[known].astype(str), rng), len(labels)))
    found = pd.DataFrame(rows, columns=["column", "test", "statistic", "p_value", "n"])
    found.insert(4, "q_value", bh(found["p_value"].to_numpy(dtype=np.float64)))
    return {"cluster_association": found}


def _chi2(labels: NDArray, factor: pd.Series, rng: np.random.Generator) -> tuple[float, float]:
    """Chi-squared of the cross table, p by permutation, for the tables are often too sparse."""
    a = pd.get_dummies(pd.Series(labels)).to_numpy(dtype=np.float64)
    b = pd.get_dummies(factor.reset_index(drop=True)).to_numpy(dtype=np.float64)
    expected = np.outer(a.sum(axis=0), b.sum(axis=0)) / len(a)
    orders = np.argsort(rng.random((PERMUTATIONS, len(a))), axis=1)
    null = np.sum((np.einsum("pni,nj->pij", a[orders], b) - expected) ** 2 / expected, axis=(1, 2))
    seen = float(np.sum((a.T @ b - expected) ** 2 / expected))
    return seen, float((1 + np.sum(null >= seen - 1e-9)) / (1 + PERMUTATIONS))
