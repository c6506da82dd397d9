"""`read`: any of the usual tables to AnnData (section 3)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from proteus_omics.errors import DataError, FormatError, ProteusWarning
from proteus_omics.io import cytometry, long, programs
from proteus_omics.io.matrix import read_matrix
from proteus_omics.io.metadata import load_sheet, matched, unread
from proteus_omics.io.proteins import Proteins, left_out, rows_of
from proteus_omics.io.tables import load_table

if TYPE_CHECKING:
    from anndata import AnnData

FORMATS = ("auto", "anndata", "cytometry", "matrix", *(program.name for program in programs.PROGRAMS))
MOST_MISSING = 0.9


def read(
    path: str | Path,
    *,
    format: str = "auto",
    quantity: str = "auto",
    metadata: str | Path | pd.DataFrame | None = None,
    sample_id: str | None = None,
    zero_is_missing: bool | Literal["auto"] = "auto",
    keep_contaminants: bool = False,
    panel: str | Path | None = None,
) -> AnnData:
    """A table of a quantification program, a matrix or cells, as AnnData: samples x proteins, NaN = missing.

    `format`: `auto`, `anndata`, `maxquant`, `diann`, `fragpipe`, `spectronaut`, `proteome_discoverer`,
    `matrix`, `cytometry`. `quantity`: `auto` takes LFQ or MaxLFQ, then iBAQ, then raw intensity, and says
    which in `uns["proteus"]["quantity"]`; another that the program writes is named as it is there.
    `metadata`: the sample sheet, a row a sample, named by `sample_id` (by default the column `sample_id`, or
    the first). `panel`: for cells, the markers' classes. Zero is missing in linear intensities alone. Raises
    `DataError` and its kinds, saying what to give.
    """
    path = Path(path)
    if format not in FORMATS:
        raise DataError(f"there is no format {format!r}; there are {', '.join(FORMATS)}")
    if format == "anndata" or path.name.endswith((".h5ad", ".zarr")):
        return _anndata(path, metadata, sample_id)
    if format == "cytometry" or path.name.endswith(".fcs"):
        return _cells(path, metadata, sample_id, panel)
    table = load_table(path)
    sheet = None if metadata is None else load_sheet(metadata, sample_id)
    if format == "auto" and panel is not None:
        return _cells(path, metadata, sample_id, panel)
    whose = long.long_program(table.columns) if format in ("auto", "diann", "spectronaut") else None
    programs.refuse_peptides(table, whose is not None)
    program = programs.recognise(table.columns) if format == "auto" else None
    if format not in ("auto", "matrix"):
        program = programs.by_name(format)
    if whose is not None:
        found, kind = long.read_long(table, whose, quantity), whose
    elif program is not None and format != "matrix":
        found, kind = programs.read_wide(table, program, quantity, keep_contaminants), program.name
    else:
        found, kind = read_matrix(table, [] if sheet is None else sheet.index), "matrix"
    return _assembled(found, sheet, kind, zero_is_missing)


def _assembled(
    found: Proteins, sheet: pd.DataFrame | None, kind: str, zero_is_missing: bool | Literal["auto"]
) -> AnnData:
    import anndata

    samples = list(map(str, found.values.columns))
    if len(set(samples)) < len(samples):
        raise DataError(f"{len(samples) - len(set(samples))} samples of the table have the name of another")
    obs = pd.DataFrame(index=pd.Index(samples)) if sheet is None else matched(sheet, samples)
    values = found.values.to_numpy(dtype=np.float64).T
    values[~np.isfinite(values)] = np.nan
    scale = guess_scale(values)
    if zero_is_missing is True or (zero_is_missing == "auto" and scale == "linear"):
        values[values == 0] = np.nan
    var, notes = rows_of(found)
    notes += [] if sheet is None else unread(sheet)
    told = [*notes, *left_out(found, named=True)]
    notes += left_out(found, named=False)  # a planner is shown these
    keep = np.isfinite(values).any(axis=0)
    removed = dict(found.removed) | ({"without any value": int((~keep).sum())} if not keep.all() else {})
    result = anndata.AnnData(values[:, keep], obs=_plain(obs), var=var[keep])
    _judge_missing(result)
    for text in told:
        warnings.warn(text, ProteusWarning, stacklevel=3)
    result.uns["proteus"] = {
        "scale": scale,
        "modality": "bulk",
        "quantity": found.quantity,
        "removed": removed,
        "source": kind,
        "notes": notes,
    }
    return result


def guess_scale(values: np.ndarray) -> str:
    """`ratio` where negative values are many, `log2` for logarithms of intensities, or `linear`.

    Logarithms of intensities lie between 5 and 60; linear values near 1 are relative quantities.
    """
    known = values[np.isfinite(values) & (values != 0)]
    if not len(known):
        raise DataError("the table has no number other than 0")
    if (known < 0).mean() > 0.05:
        return "ratio"
    return "log2" if known.max() < 60 and np.median(known) > 5 else "linear"


def _judge_missing(adata: AnnData) -> None:
    missing = ~np.isfinite(adata.X)
    empty = [name for name, none in zip(adata.obs_names, missing.all(axis=1), strict=True) if none]
    if empty:
        raise DataError(
            f"{len(empty)} samples have no value: {', '.join(map(str, empty[:5]))}. Leave them out"
        )
    if missing.mean() > MOST_MISSING:
        raise DataError(f"{missing.mean():.0%} of the values are missing: this is no table to analyse")


def _plain(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns that AnnData can write: numbers, truth values, and texts as categories without empty ones."""
    result = obs.copy()
    for name in result.columns:
        if not (pd.api.types.is_numeric_dtype(result[name]) or pd.api.types.is_bool_dtype(result[name])):
            texts = result[name].astype(object).where(result[name].notna(), None)
            result[name] = pd.Categorical([None if text is None else str(text) for text in texts])
    result.columns = result.columns.map(str)
    result.index.name = None
    return result


def _anndata(path: Path, metadata: Any, sample_id: str | None) -> AnnData:
    import anndata

    if not path.exists():
        raise DataError(f"there is no file {path}")
    try:
        adata = anndata.read_zarr(path) if path.name.endswith(".zarr") else anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise FormatError(f"{path} is no AnnData file: {error}") from error
    if metadata is not None:
        sheet = matched(load_sheet(metadata, sample_id), list(adata.obs_names))
        _refuse_other_entries(adata.obs, sheet)
        adata.obs = _plain(pd.concat([adata.obs, sheet[sheet.columns.difference(adata.obs.columns)]], axis=1))
    record = dict(adata.uns.get("proteus", {}))
    if "scale" not in record:
        values = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float64)
        record |= {
            "scale": guess_scale(values),
            "modality": record.get("modality", "bulk"),
            "source": "anndata",
        }
    adata.uns["proteus"] = record
    return adata


def _refuse_other_entries(obs: pd.DataFrame, sheet: pd.DataFrame) -> None:
    """A column that both the file and the sheet have is to say the same; which is right nobody can tell."""
    both = [name for name in sheet.columns if name in obs]
    apart = [str(name) for name in both if not _same_entries(obs[name], sheet[name])]
    if apart:
        raise DataError(
            f"the file has columns of the sample sheet with other entries: {', '.join(apart)}. Leave them "
            "out of one of the two, or name them otherwise"
        )


def _same_entries(a: pd.Series, b: pd.Series) -> bool:
    """Equal as numbers where both are, else as texts; missing ones in the same places."""
    if (a.isna().to_numpy() != b.isna().to_numpy()).any():
        return False
    a, b = a.dropna(), b.dropna()
    if all(pd.api.types.is_numeric_dtype(one) for one in (a, b)):
        return bool(np.allclose(a.to_numpy(dtype=np.float64), b.to_numpy(dtype=np.float64), rtol=1e-6))
    return list(map(str, a)) == list(map(str, b))


def _cells(path: Path, metadata: Any, sample_id: str | None, panel: str | Path | None) -> AnnData:
    import anndata

    table = cytometry.read_fcs(path) if path.name.endswith(".fcs") else load_table(path)
    known = cytometry.load_panel(None if panel is None else Path(panel))
    markers, cells = cytometry.split_cells(table, known)
    if metadata is not None:
        sheet = load_sheet(metadata, sample_id)
        key = sample_id or "sample_id"
        if key not in cells:
            raise DataError(f"the table of cells has no column {key!r} that names their sample")
        rows = matched(sheet, list(dict.fromkeys(cells[key].astype(str)))).drop(
            columns=[key], errors="ignore"
        )
        twice = [str(name) for name in rows.columns if name in cells]
        if twice:
            raise DataError(f"the table of cells has columns of the sample sheet: {', '.join(twice)}")
        cells = cells.join(rows, on=cells[key].astype(str).rename("key"))
    obs = _plain(cells)
    obs.index = [f"cell{number}" for number in range(len(obs))]
    names = list(map(str, markers.columns))
    var = pd.DataFrame(
        {
            "protein_ids": names,
            "genes": names,
            "gene": names,
            "description": [""] * len(names),
            "n_peptides": np.full(len(names), np.nan),
            "organism": [""] * len(names),
            "marker_class": cytometry.classes(markers.columns, known),
        },
        index=names,
    )
    result = anndata.AnnData(markers.to_numpy(dtype=np.float64), obs=obs, var=var)
    scale = "linear" if float(np.nanmax(result.X)) > 30 else "arcsinh"
    result.uns["proteus"] = {
        "scale": scale,
        "modality": "cytometry",
        "quantity": "counts",
        "removed": {},
        "source": "cytometry",
        "notes": [],
    }
    return result
