"""Tools that make a matrix ready: scale, filter, normalisation, imputation, batch (section 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from proteus_omics import stats
from proteus_omics.errors import MissingExtraError, ToolError
from proteus_omics.stats.batch import remove_batch_effect as without_batch
from proteus_omics.stats.missing import enough_valid
from proteus_omics.stats.missing import impute as imputed
from proteus_omics.stats.normalization import normalize as normalized
from proteus_omics.stats.normalization import ratio_to_reference
from proteus_omics.tools.columns import MATRIX, table
from proteus_omics.tools.matrices import (
    COFACTOR,
    changed,
    frame,
    genes,
    groups,
    obs_column,
    transformed,
)
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

LEAST_PROTEINS = 10


def _shape(outputs: Mapping[str, Any]) -> str:
    matrix = outputs["matrix"]
    missing = np.isnan(matrix.X).mean() if matrix.n_vars else 0.0
    record = matrix.uns["proteus"]
    return f"{matrix.n_obs} x {matrix.n_vars}, scale {record.get('scale')}, {missing:.4g} missing"


class TransformParams(ToolParams):
    """Parameters of `transform`."""

    method: Literal["auto", "log2", "arcsinh", "none"] = "auto"
    cofactor: float = Field(default=COFACTOR, gt=0, le=1e6)


@tool(
    params=TransformParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_shape,
    citation="Bendall et al., Science 2011, 332:687 (arcsinh of mass cytometry)",
    library="numpy",
)
def transform(inputs: Mapping[str, Any], params: TransformParams, context: ToolContext) -> Mapping[str, Any]:
    """Take log2 of linear intensities (0 is missing), arcsinh(x / cofactor) of linear cytometry values."""
    values, scale = transformed(inputs["data"], params.method, params.cofactor)
    return {"matrix": changed(inputs["data"], values, scale)}


class FilterParams(ToolParams):
    """Parameters of `filter_missing`."""

    min_frac: float = Field(default=0.5, ge=0, le=1)
    mode: Literal["any", "all"] = "any"


def _filter_summary(outputs: Mapping[str, Any]) -> str:
    return f"{_shape(outputs)}; {len(outputs['filtered'])} proteins went out"


@tool(
    params=FilterParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX, "filtered": table(("protein",), "gene n_valid best_group_share")},
    summary=_filter_summary,
    citation="DE-LIMP: rows with few values harm the prior of all",
    library="numpy",
)
def filter_missing(
    inputs: Mapping[str, Any], params: FilterParams, context: ToolContext
) -> Mapping[str, Any]:
    """Keep proteins with enough valid values in one group or in all groups; list those that go out."""
    data = inputs["data"]
    values = frame(data)
    labels = groups(data, context.design.condition)
    keep = enough_valid(values, labels, params.min_frac, params.mode)
    if keep.sum() < LEAST_PROTEINS:
        other = " or take mode 'any'" if params.mode == "all" else ""
        raise ToolError(
            f"filter_missing leaves {int(keep.sum())} proteins, and {LEAST_PROTEINS} are the least that can "
            f"be tested: loosen min_frac = {params.min_frac:g} (--min-frac){other}"
        )
    measured = values.notna()
    shares = measured.groupby(labels).mean().max()
    out = pd.DataFrame({"protein": values.columns, "gene": genes(data).to_numpy()})
    out["n_valid"], out["best_group_share"] = measured.sum().to_numpy(), shares.to_numpy()
    return {"matrix": data[:, keep].copy(), "filtered": out[~keep].reset_index(drop=True)}


class NormalizeParams(ToolParams):
    """Parameters of `normalize`; `reference` is a level of `reference_column`, of pool channels say."""

    method: Literal["none", "median", "quantile", "mad", "reference"] = "median"
    reference_column: str | None = None
    reference: str | None = None


@tool(
    params=NormalizeParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_shape,
    citation="Bolstad et al., Bioinformatics 2003, 19:185 (quantile)",
    library="numpy",
)
def normalize(inputs: Mapping[str, Any], params: NormalizeParams, context: ToolContext) -> Mapping[str, Any]:
    """Make samples comparable: medians, quantiles, median absolute deviations, or ratios to a reference."""
    data = inputs["data"]
    values, scale = transformed(data)
    if params.method != "reference":
        return {"matrix": changed(data, normalized(values, params.method), scale, normalized=params.method)}
    if params.reference_column is None or params.reference is None:
        raise ToolError("normalize: method 'reference' needs reference_column and reference")
    pool = groups(data, params.reference_column) == params.reference
    if not pool.any():
        raise ToolError(f"{params.reference_column} has no level {params.reference!r}")
    batch = None if context.design.batch is None else groups(data, context.design.batch)
    ratios = ratio_to_reference(values, pool, batch)
    return {"matrix": changed(data, ratios, "ratio", normalized="reference")}


class ImputeParams(ToolParams):
    """Parameters of `impute`."""

    method: Literal["minprob", "downshift", "knn", "mixed"] = "minprob"


def _impute_summary(outputs: Mapping[str, Any]) -> str:
    mask = outputs["matrix"].layers["imputed"]
    return f"{int(mask.sum())} values ({mask.mean():.4g}) imputed; what is built on them carries a caveat"


@tool(
    params=ImputeParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_impute_summary,
    citation="Lazar et al., Journal of Proteome Research 2016, 15:1116",
    library="numpy, scikit-learn",
)
def impute(inputs: Mapping[str, Any], params: ImputeParams, context: ToolContext) -> Mapping[str, Any]:
    """Fill missing values; the layer `imputed` marks them. Not for tests of differences."""
    data = inputs["data"]
    values, scale = transformed(data)
    labels = groups(data, context.design.condition)
    filled = imputed(values, params.method, groups=labels, seed=context.seed)
    result = changed(data, filled.values, scale, imputed=params.method)
    result.layers["imputed"] = filled.mask
    return {"matrix": result}


class BatchParams(ToolParams):
    """Parameters of `remove_batch_effect`; `batch` defaults to the design's."""

    method: Literal["linear", "combat"] = "linear"
    batch: str | None = None


@tool(
    params=BatchParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_shape,
    citation="Ritchie et al., Nucleic Acids Research 2015, 43:e47; Johnson et al., Biostatistics 2007, 8:118",
    library="numpy, scanpy",
)
def remove_batch_effect(
    inputs: Mapping[str, Any], params: BatchParams, context: ToolContext
) -> Mapping[str, Any]:
    """Take a batch out for pictures, components and modules; tests have the batch in their design instead."""
    data = inputs["data"]
    batch = params.batch or context.design.batch
    if batch is None:
        raise ToolError("remove_batch_effect needs a batch column: name one in the design or as `batch`")
    values, scale = transformed(data)
    if params.method == "combat":
        return {"matrix": changed(data, _combat(values, groups(data, batch)), scale, batch_removed=batch)}
    design = context.design.model_copy(update={"batch": None})
    model = stats.design_matrix(data.obs, design)
    complete = data.obs_names.isin(model.index) & obs_column(data, batch).notna().to_numpy()
    if not complete.all():
        raise ToolError(
            f"{int((~complete).sum())} samples lack their batch or a column of the design; leave them out"
        )
    return {"matrix": changed(data, without_batch(values, groups(data, batch), model), scale,
                              batch_removed=batch)}  # fmt: skip


def _combat(values: Any, labels: Any) -> Any:
    try:
        import scanpy as sc
    except ImportError as error:
        raise MissingExtraError(
            "method 'combat' needs an optional extra: pip install 'proteus-omics[single-cell]'"
        ) from error
    import anndata as ad

    if np.isnan(values).any():
        raise ToolError("combat needs complete data; take method 'linear' or impute first")
    obs = pd.DataFrame({"batch": pd.Categorical(labels)}, index=[str(k) for k in range(len(labels))])
    return sc.pp.combat(ad.AnnData(values.copy(), obs=obs), key="batch", inplace=False)


__all__ = ["filter_missing", "impute", "normalize", "remove_batch_effect", "transform"]
