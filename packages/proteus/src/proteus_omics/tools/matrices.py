"""What tools ask of a matrix: AnnData, samples x proteins, with `uns["proteus"]` (section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from proteus_omics.errors import ToolError
from proteus_omics.identifiers import by_sample, names_each, names_samples

if TYPE_CHECKING:
    from anndata import AnnData

    from proteus_omics.design import Design

Floats = NDArray[np.float64]

COFACTOR = 5.0  # of arcsinh(x / cofactor), mass cytometry's custom


def about(adata: AnnData) -> dict[str, Any]:
    """The record `uns["proteus"]`; a matrix that was not read by us is bulk, and on a log2 scale."""
    return dict(adata.uns.get("proteus", {}))


def is_bulk(adata: AnnData) -> bool:
    """Are the rows samples, and not cells?"""
    return str(about(adata).get("modality", "bulk")) == "bulk"


def dense(adata: AnnData) -> Floats:
    """X as float64, rows x proteins."""
    x = adata.X
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float64)


def transformed(adata: AnnData, method: str = "auto", cofactor: float = COFACTOR) -> tuple[Floats, str]:
    """Values on a scale where differences are effects, and its name.

    `auto` takes log2 of linear intensities (0 and below are missing) and arcsinh of linear cytometry; all
    else is on such a scale. Raises `ToolError` for the logarithm of values that are logarithms.
    """
    x, record = dense(adata), about(adata)
    scale = str(record.get("scale", "log2"))
    if method == "auto":
        method = (
            "none" if scale != "linear" else "log2" if record.get("modality") != "cytometry" else "arcsinh"
        )
    if method == "none":
        return x, scale
    if scale != "linear":
        raise ToolError(f"the values are on the scale {scale!r}; only linear ones can be transformed")
    if method == "arcsinh":
        return np.arcsinh(x / cofactor), "arcsinh"
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, np.log2(x), np.nan), "log2"


def frame(adata: AnnData) -> pd.DataFrame:
    """Transformed values with the names of rows and proteins."""
    return pd.DataFrame(transformed(adata)[0], index=adata.obs_names, columns=adata.var_names)


def genes(adata: AnnData) -> pd.Series:
    """Gene symbol of each protein, the empty text where there is none; a marker is its own gene."""
    if "gene" in adata.var:
        return adata.var["gene"].astype(object).where(adata.var["gene"].notna(), "").astype(str)
    return pd.Series(adata.var_names.astype(str), index=adata.var_names)


def with_gene(found: pd.DataFrame, adata: AnnData) -> pd.DataFrame:
    """The table with a column `gene` after `protein`."""
    found.insert(found.columns.get_loc("protein") + 1, "gene", found["protein"].map(genes(adata)).to_numpy())
    return found


def changed(adata: AnnData, values: Floats, scale: str | None = None, **record: Any) -> AnnData:
    """A copy that holds other values; what was done is added to `uns["proteus"]`."""
    result = adata.copy()
    result.X = values
    result.uns["proteus"] = about(adata) | ({} if scale is None else {"scale": scale}) | record
    return result


def groups(adata: AnnData, column: str | None) -> NDArray[np.str_]:
    """Group of each row: that of `column`, one group where it is None. Missing ones are a group `""`."""
    if column is None:
        return np.full(adata.n_obs, "all")
    values = obs_column(adata, column)
    return values.astype(object).where(values.notna(), "").astype(str).to_numpy(dtype=str)


def obs_column(adata: AnnData, column: str) -> pd.Series:
    """A column of the sample sheet. Raises `ToolError` that lists those there are."""
    if column not in adata.obs:
        raise ToolError(f"there is no column {column!r}; there are {', '.join(map(str, adata.obs.columns))}")
    return adata.obs[column]


def population_column(adata: AnnData, column: str, design: Design) -> NDArray[np.object_]:
    """Population of each cell. Raises `ToolError` for a column whose groups would be samples or subjects."""
    values = obs_column(adata, column)
    if names_samples(adata.obs, column, design):
        raise ToolError(f"{column} names samples or subjects, and no populations of their cells")
    return values.astype(str).to_numpy(dtype=object)


def traits(
    adata: AnnData, named: Iterable[str], design: Design, leave_out: Iterable[str | None] = ()
) -> pd.DataFrame:
    """Columns of the sample sheet that can be related to something: numbers and factors, no identifiers.

    Those of `named`, else all that vary. Raises `ToolError` for an unknown name, and for a named column of
    texts that name each sample.
    """
    named, cells_of = tuple(named), None if is_bulk(adata) else design.sample
    for name in named:
        values = obs_column(adata, name)
        if not is_numeric(values) and names_each(by_sample(adata.obs, name, cells_of)):
            raise ToolError(f"{name} names samples, and is nothing that they have in common")
    if named:
        return adata.obs[list(dict.fromkeys(named))]
    columns = [
        name
        for name in adata.obs
        if name not in set(leave_out) and _is_trait(by_sample(adata.obs, name, cells_of))
    ]
    return adata.obs[columns]


def is_numeric(values: pd.Series) -> bool:
    """Is it a column of numbers (a boolean one is a factor)?"""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _is_trait(values: pd.Series) -> bool:
    distinct, known = values.nunique(), int(values.notna().sum())
    if is_numeric(values):
        return distinct > 1
    return 1 < distinct < known and distinct <= max(2, known // 2)
