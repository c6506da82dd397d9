"""Tools that look at the data as a whole: quality, principal components, what the components are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from proteus_omics.errors import ToolError
from proteus_omics.stats import bh
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import MATRIX, table
from proteus_omics.tools.matrices import (
    about,
    changed,
    frame,
    groups,
    is_bulk,
    is_numeric,
    traits,
    transformed,
)
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

Floats = NDArray[np.float64]

OUTLIER = 3.0  # median absolute deviations
MAD_TO_SD = 1.4826
COMPLETE = 0.8  # share of samples that a protein needs for the components; its gaps take its mean
PERMUTATIONS = 999


class NoParams(ToolParams):
    """A tool without parameters."""


def _qc_summary(outputs: Mapping[str, Any]) -> str:
    outlying = int((outputs["qc_samples"]["flags"] != "").sum())
    shown = briefs.rows(outputs["qc_groups"], "group n_samples n_proteins missing cv_median", n=30)
    return f"{shown}\n{outlying} samples stand apart (more than {OUTLIER:g} MAD)"


@tool(
    params=NoParams,
    inputs={"data": "matrix"},
    outputs={
        "qc_groups": table(("group",), "n_samples n_proteins missing cv_median"),
        "qc_samples": table(("sample",), "group n_proteins missing median correlation flags"),
    },
    summary=_qc_summary,
    citation="Leys et al., J. Exp. Soc. Psychol. 2013, 49:764 (median absolute deviation)",
    library="numpy",
)
def qc_report(inputs: Mapping[str, Any], params: NoParams, context: ToolContext) -> Mapping[str, Any]:
    """Count identifications, missing values, CVs and correlations of samples; flag those that stand apart."""
    data = inputs["data"]
    values, labels = frame(data), groups(data, context.design.condition)
    if not is_bulk(data):
        values, labels = _by_sample(values, labels, groups(data, context.design.sample))
    log2 = about(data).get("scale", "log2") in ("log2", "linear") and is_bulk(data)
    by_group = [_group_row(name, values[labels == name], log2) for name in sorted(set(labels))]
    return {"qc_groups": pd.DataFrame(by_group), "qc_samples": _sample_rows(values, labels)}


def _by_sample(values: pd.DataFrame, labels: NDArray, samples: NDArray) -> tuple[pd.DataFrame, NDArray]:
    """Medians of the cells of each sample: cells are never replicates."""
    medians = values.groupby(samples).median()
    first = pd.Series(labels).groupby(samples).first()
    return medians, first.loc[medians.index].to_numpy(dtype=str)


def _group_row(name: str, values: pd.DataFrame, log2: bool) -> dict[str, Any]:
    """CV of intensities from the sd of their logarithms: sqrt(exp((sd ln 2)^2) - 1)."""
    spread = values.std(ddof=1).dropna().to_numpy() if log2 and len(values) > 1 else np.array([])
    cv = float(np.median(np.sqrt(np.expm1((spread * np.log(2)) ** 2)))) if len(spread) else np.nan
    return {
        "group": name,
        "n_samples": len(values),
        "n_proteins": int(values.notna().sum(axis=1).median()),
        "missing": float(values.isna().to_numpy().mean()),
        "cv_median": cv,
    }


def _sample_rows(values: pd.DataFrame, labels: NDArray) -> pd.DataFrame:
    found = pd.DataFrame(
        {
            "sample": values.index.astype(str),
            "group": labels,
            "n_proteins": values.notna().sum(axis=1).to_numpy(),
            "missing": values.isna().mean(axis=1).to_numpy(),
            "median": values.median(axis=1).to_numpy(),
            "correlation": _mean_correlation(values),
        }
    )
    flags = pd.Series("", index=found.index)
    for name in ("n_proteins", "median", "correlation"):
        column = found[name].to_numpy(dtype=np.float64)
        away = np.abs(column - np.nanmedian(column))
        limit = OUTLIER * MAD_TO_SD * np.nanmedian(away)
        flags[away > max(limit, 1e-9)] += f"{name} "
    return found.assign(flags=flags.str.strip())


def _mean_correlation(values: pd.DataFrame) -> Floats:
    """Of each sample with the others, over the proteins that both have (Pearson)."""
    if len(values) < 2:
        return np.full(len(values), np.nan)
    correlation = values.T.corr(min_periods=3).to_numpy(copy=True)
    np.fill_diagonal(correlation, np.nan)
    known = ~np.isnan(correlation)
    return np.nansum(correlation, axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)


class PcaParams(ToolParams):
    """Parameters of `pca`."""

    n_components: int = Field(default=10, ge=2, le=100)


def _pca_summary(outputs: Mapping[str, Any]) -> str:
    return briefs.rows(outputs["pca"], "component variance_share")


@tool(
    params=PcaParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX, "pca": table(("component",), "variance_share")},
    summary=_pca_summary,
    citation="Pedregosa et al., JMLR 2011, 12:2825",
    library="scikit-learn",
)
def pca(inputs: Mapping[str, Any], params: PcaParams, context: ToolContext) -> Mapping[str, Any]:
    """Find the principal components of the samples over proteins measured in at least 80 % of them."""
    from sklearn.decomposition import PCA

    data = inputs["data"]
    values, scale = transformed(data)
    values = values[:, np.mean(~np.isnan(values), axis=0) >= COMPLETE]
    centred = values - np.nanmean(values, axis=0) if values.size else values
    centred = np.where(np.isnan(centred), 0.0, centred)
    k = min(params.n_components, *centred.shape, max(data.n_obs - 1, 1))
    if k < 2:
        raise ToolError(f"principal components need 3 samples and 2 proteins, not {centred.shape}")
    model = PCA(k, svd_solver="full")
    scores = model.fit_transform(centred)
    result = changed(data, transformed(data)[0], scale)
    result.obsm["X_pca"] = scores
    result.uns["pca"] = {"variance_ratio": model.explained_variance_ratio_}
    names = [f"PC{k + 1}" for k in range(k)]
    return {
        "matrix": result,
        "pca": pd.DataFrame({"component": names, "variance_share": model.explained_variance_ratio_}),
    }


class AssociationParams(ToolParams):
    """Parameters of `batch_association`."""

    n_components: int = Field(default=3, ge=1, le=20)
    columns: tuple[str, ...] = ()


def _association_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["batch_association"].sort_values("r2", ascending=False)
    return briefs.rows(found, "column r2 p_value q_value n", n=20)


@tool(
    params=AssociationParams,
    inputs={"data": "matrix"},
    outputs={"batch_association": table(("column",), "r2 p_value q_value n")},
    summary=_association_summary,
    citation="Leek et al., Nature Reviews Genetics 2010, 11:733",
    library="numpy",
)
def batch_association(
    inputs: Mapping[str, Any], params: AssociationParams, context: ToolContext
) -> Mapping[str, Any]:
    """Tell what share of the first components' variance each column of the sample sheet explains."""
    data = inputs["data"]
    if "X_pca" not in data.obsm:
        raise ToolError("batch_association needs principal components: run pca first")
    scores = np.asarray(data.obsm["X_pca"], dtype=np.float64)[:, : params.n_components]
    rng = np.random.default_rng(context.seed)
    found = []
    for name, values in traits(data, params.columns, context.design).items():
        known = values.notna().to_numpy()
        if known.sum() < 3:
            continue
        r2, p = explained(scores[known], values[known], rng)
        found.append({"column": name, "r2": r2, "p_value": p, "n": int(known.sum())})
    result = pd.DataFrame(found, columns=["column", "r2", "p_value", "n"])
    result.insert(3, "q_value", bh(result["p_value"].to_numpy(dtype=np.float64)))
    return {"batch_association": result}


def explained(scores: Floats, values: pd.Series, rng: np.random.Generator) -> tuple[float, float]:
    """Share of the summed variance of `scores` (n x k) that a number or factor explains; permutation p."""
    if is_numeric(values):
        model = values.to_numpy(dtype=np.float64)[:, None]
    else:
        model = pd.get_dummies(values.astype(str)).to_numpy(dtype=np.float64)
    model = model - model.mean(axis=0)
    left, sizes, _ = np.linalg.svd(model, full_matrices=False)
    basis = left[:, sizes > 1e-10 * max(float(sizes.max(initial=0.0)), 1e-300)]
    scores = scores - scores.mean(axis=0)
    total = float(np.sum(scores**2))
    if not basis.shape[1] or total == 0:
        return 0.0, np.nan
    orders = np.argsort(rng.random((PERMUTATIONS, len(scores))), axis=1)
    projected = np.einsum("nb,pnk->pbk", basis, scores[orders])
    null = np.sum(projected**2, axis=(1, 2)) / total
    r2 = float(np.sum((basis.T @ scores) ** 2) / total)
    return r2, float((1 + np.sum(null >= r2 - 1e-12)) / (1 + PERMUTATIONS))
