"""The audit: what a data set cannot answer is refused before any statistics (section 2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from proteus_omics.design import CONTROLS, Design
from proteus_omics.errors import ConfoundedDesignError, DesignError, NoReplicatesError, ScaleError
from proteus_omics.models import Modality, Scale
from proteus_omics.stats.designs import design_matrix, is_paired
from proteus_omics.stats.linear import orthonormal

if TYPE_CHECKING:
    from anndata import AnnData

LOG_MAX, LOG_RANGE = 100, 60
"""Beyond these, values are no logarithms."""
LOG_LOWEST, LOG_HIGHEST = 5, 60
"""All between these are no linear intensities."""


def audit(adata: AnnData, design: Design, *, test: bool = True) -> list[str]:
    """Refuse what cannot be analysed; returns what should be known but is no reason to stop.

    `test=False` allows groups of one sample, of which fold changes alone are given. Raises `ScaleError`,
    `DesignError`, `NoReplicatesError` and `ConfoundedDesignError`, each saying what is there.
    """
    record = dict(adata.uns.get("proteus", {}))
    _check_scale(adata, str(record.get("scale", "log2")))
    _check_columns(adata, design)
    samples = sample_sheet(adata, design, str(record.get("modality", "bulk")))
    if design.condition is not None:
        _check_condition(samples, design, test)
        _check_confounding(samples, design)
        orthonormal(*_terms(samples, design))
    _check_survival(samples, design)
    return _notes(adata, samples, design)


def declared(adata: AnnData, scale: str | None, modality: str | None) -> AnnData:
    """The data with the scale and modality that the user says, which a reader could only guess."""
    if scale is None and modality is None:
        return adata
    for given, kinds, what in ((scale, Scale, "scale"), (modality, Modality, "modality")):
        if given is not None and given not in get_args(kinds):
            raise ScaleError(f"{what} is {given!r}; it is one of {', '.join(get_args(kinds))}")
    result = adata.copy()
    record = dict(result.uns.get("proteus", {}))
    result.uns["proteus"] = record | {
        name: value for name, value in (("scale", scale), ("modality", modality)) if value is not None
    }
    return result


def sample_sheet(adata: AnnData, design: Design, modality: str) -> pd.DataFrame:
    """A row a sample: the table's rows, or of cells the samples that they come from.

    Raises `DesignError` for cells whose samples are not named, or are in two levels, and for a table of
    samples that has several rows of one: they are cells, which a file need not say.
    """
    if modality == "bulk":
        _refuse_repeated(adata, design)
        return adata.obs
    if design.sample is None:
        if design.condition is None:
            return adata.obs.iloc[:0]
        raise DesignError("cells are not replicates: name the column of their sample (sample=..., --sample)")
    fixed = [name for role, name in design.columns.items() if role != "sample"]
    sheet = adata.obs[[design.sample, *fixed]].drop_duplicates()
    several = sheet[design.sample][sheet[design.sample].duplicated()].unique()
    if len(several):
        raise DesignError(f"cells of one sample differ in the design: {', '.join(map(str, several[:5]))}")
    return sheet.set_index(design.sample, drop=False)


def _refuse_repeated(adata: AnnData, design: Design) -> None:
    if design.sample is None:
        return
    known = adata.obs[design.sample].dropna()
    if known.duplicated().any():
        raise DesignError(
            f"{len(known)} rows are of {known.nunique()} samples ({design.sample}) and the modality is bulk, "
            "which has a row a sample: cells are not replicates. Of cells say the modality "
            "(modality='single_cell' or 'cytometry', --modality); average rows that repeat a sample first"
        )


def reference_of(levels: list[str], design: Design) -> str:
    """The reference level: the design's, one named as a control, else the first."""
    if design.reference is not None:
        return design.reference
    return next((level for name in CONTROLS for level in levels if level.lower() == name), levels[0])


def _check_scale(adata: AnnData, scale: str) -> None:
    x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float64)
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    seen = f"the values go from {low:.4g} to {high:.4g}"
    if scale == "log2" and (high > LOG_MAX or high - low > LOG_RANGE):
        raise ScaleError(f"{seen}, which no logarithm does: they are linear (scale='linear', --scale linear)")
    if scale != "linear" or adata.uns.get("proteus", {}).get("modality") == "cytometry":
        return
    if low > LOG_LOWEST and high < LOG_HIGHEST:
        raise ScaleError(f"{seen}, as logarithms of intensities do: say scale='log2' (--scale log2)")
    if low < 0:
        raise ScaleError(f"{seen}: linear intensities are not negative; say scale='log2' or scale='ratio'")


def _check_columns(adata: AnnData, design: Design) -> None:
    for role, name in design.columns.items():
        if name not in adata.obs:
            there = ", ".join(map(str, adata.obs.columns)) or "none"
            raise DesignError(
                f"the design's {role} is the column {name!r}, which is not there; there are {there}"
            )


def _check_condition(samples: pd.DataFrame, design: Design, test: bool) -> None:
    sizes = samples[design.condition].dropna().astype(str).value_counts()
    levels = sorted(sizes.index)
    if len(levels) < 2:
        raise DesignError(
            f"the column {design.condition!r} has the level {', '.join(levels) or 'of nothing'} alone"
        )
    if design.reference is not None and design.reference not in levels:
        raise DesignError(
            f"the reference {design.reference!r} is no level of {design.condition}; "
            f"there are {', '.join(levels)}"
        )
    reference = reference_of(levels, design)
    replicated = [level for level in levels if sizes[level] >= 2]
    if test and (reference not in replicated or len(replicated) < 2):
        raise NoReplicatesError(
            "at least two samples are needed in the reference and in another level; there are "
            + ", ".join(f"{level} {sizes[level]}" for level in levels)
            + ". Fold changes without a test: --no-test"
        )


def _check_confounding(samples: pd.DataFrame, design: Design) -> None:
    condition = samples[design.condition].astype(str)
    for name in filter(None, (design.batch, *design.covariates)):
        other = samples[name]
        if pd.api.types.is_numeric_dtype(other) and name != design.batch:
            continue
        table = pd.crosstab(condition, other.astype(str))
        # Every batch in one level: what the batch does and what the condition does are the same columns.
        if table.shape[1] > 1 and ((table > 0).sum(axis=0) == 1).all():
            raise ConfoundedDesignError(
                f"{name} and {design.condition} say the same, so their effects cannot be told apart:\n{table}"
            )


def _terms(samples: pd.DataFrame, design: Design) -> tuple[np.ndarray, list[str]]:
    """The matrix of the whole design, of which no term may follow from the others."""
    matrix = design_matrix(samples, design)
    return matrix.to_numpy(), list(map(str, matrix))


def _check_survival(samples: pd.DataFrame, design: Design) -> None:
    if (design.time is None) != (design.event is None):
        raise DesignError("survival needs both time and event")
    if design.time is None or design.event is None:
        return
    time = pd.to_numeric(samples[design.time], errors="coerce")
    if (time.dropna() < 0).any():
        raise DesignError(f"{design.time} has negative times")
    event = samples[design.event].dropna()
    if not set(pd.to_numeric(event, errors="coerce").unique()) <= {0, 1}:
        raise DesignError(f"{design.event} must be 0 (alive, censored) or 1 (event)")


def _notes(adata: AnnData, samples: pd.DataFrame, design: Design) -> list[str]:
    notes = list(adata.uns.get("proteus", {}).get("notes", []))
    organisms = [name for name in adata.var.get("organism", pd.Series(dtype=str)).unique() if name]
    if len(organisms) > 1:
        counts = adata.var["organism"].value_counts()
        shown = ", ".join(f"{name} {counts[name]}" for name in sorted(organisms))
        notes.append(f"proteins of several organisms: {shown}; they can be split by adata.var['organism']")
    for role, name in design.columns.items():
        missing = int(samples[name].isna().sum())
        if missing:
            notes.append(f"{missing} samples have no {name} ({role}) and are left out where it is needed")
    notes += _subject_notes(samples, design)
    removed = dict(adata.uns.get("proteus", {}).get("removed", {}))
    notes += [f"{count} rows were taken out: {why}" for why, count in removed.items() if count]
    return notes


def _subject_notes(samples: pd.DataFrame, design: Design) -> list[str]:
    """What the column of subjects does not do where the design is not paired."""
    if design.subject is None or design.condition is None or is_paired(samples, design):
        return []
    notes = [
        f"no subject ({design.subject}) has samples at two levels of {design.condition}: the design is not "
        "paired, and subjects take no part in the tests"
    ]
    known = samples[[design.subject, design.condition]].dropna()
    repeated = int((known[design.subject].value_counts() > 1).sum())
    if repeated:
        notes.append(
            f"of {repeated} subjects there are several samples at one level of {design.condition}, "
            "which count as independent ones: p-values are too small unless they are averaged first"
        )
    return notes
