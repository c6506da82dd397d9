"""The profile: what a planner may know of a data set, without a sample's name or value (section 2.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from pydantic import ValidationError

from proteus_omics.auditing import audit, reference_of, sample_sheet
from proteus_omics.design import Design
from proteus_omics.errors import DataError, DesignError
from proteus_omics.identifiers import by_sample, names_each
from proteus_omics.io.proteins import ACCESSION
from proteus_omics.models import DatasetProfile, Missing, Modality, ObsColumn, Scale
from proteus_omics.stats.designs import design_matrix
from proteus_omics.stats.linear import orthonormal

if TYPE_CHECKING:
    from anndata import AnnData

    from proteus_omics.knowledge import Knowledge

# Role to words that name a column which could play it; a word begins where no letter is before it.
WORDS = {
    "batch": r"batch|plate|run_?day|instrument|tmt|plex|site|center|centre",
    "subject": r"patient|subject|donor|individual|pair",
    "time": r"survival|follow_?up|futime|(os|pfs|dfs)(?![a-z])|(os|pfs|dfs)_?(time|days|months|years)",
    "event": r"death|dead|event|(vital_?|os_?|^)status|censor|vital",
}
Normalization = Literal["none", "median", "quantile", "mad"]


def profile_dataset(
    adata: AnnData,
    design: Design,
    *,
    knowledge: Knowledge | None = None,
    explore: bool = False,
    normalization: Normalization | Literal["auto"] = "auto",
    test: bool = True,
    min_frac: float = 0.5,
) -> DatasetProfile:
    """Audit the data set and describe it: counts, columns, levels, missing values.

    `normalization="auto"` is the median, but none of cells, and of ratios, which are to a reference already.
    Raises what `audit` raises, and `DataError` for a scale, modality, normalization or share that is none.
    """
    warnings = audit(adata, design, test=test)
    record = dict(adata.uns.get("proteus", {}))
    modality = cast(Modality, record.get("modality", "bulk"))
    scale = cast(Scale, record.get("scale", "log2"))
    samples = sample_sheet(adata, design, modality)
    levels = {}
    if design.condition is not None:
        counts = samples[design.condition].dropna().astype(str).value_counts()
        levels = {level: int(counts[level]) for level in sorted(counts.index)}
    named = (design.sample, design.subject)  # what they are called is nobody's business
    cells_of = None if modality == "bulk" else design.sample
    columns = tuple(
        _column(by_sample(adata.obs, name, cells_of), name in named) for name in adata.obs.columns
    )
    auto: Normalization = "median" if modality == "bulk" and scale != "ratio" else "none"
    return _profile(
        n_obs=adata.n_obs,
        n_vars=adata.n_vars,
        modality=modality,
        scale=scale,
        organism=_organism(adata),
        id_kind=_id_kind(adata, modality),
        missing=_missing(adata, design, scale),
        obs_columns=columns,
        candidates=_candidates(columns, samples, design),
        warnings=tuple(warnings),
        design=_declared(design, levels),
        levels=levels,
        n_samples=len(samples),
        n_events=None if design.event is None else int(pd.to_numeric(samples[design.event]).sum()),
        has_genes=bool(
            (adata.var.get("gene", pd.Series("", adata.var_names)).astype(str) != "").mean() > 0.2
        ),
        knowledge=_collections(knowledge),
        explore=explore,
        test=test,
        normalization=auto if normalization == "auto" else normalization,
        min_frac=min_frac,
    )


def _profile(**fields: Any) -> DatasetProfile:
    try:
        return DatasetProfile(**fields)
    except ValidationError as error:  # a scale or modality that is none, min_frac above 1
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{where} = {first['input']!r}: {first['msg']}") from error


def _declared(design: Design, levels: dict[str, int]) -> dict[str, Any]:
    known = {name: value for name, value in design.model_dump(mode="json").items() if value}
    return known | ({"reference": reference_of(sorted(levels), design)} if levels else {})


def _collections(knowledge: Knowledge | None) -> tuple[str, ...]:
    if knowledge is None:
        return ()
    return (*sorted(knowledge.sets), *(("interactions",) if knowledge.edges else ()))


def _column(values: pd.Series, names_samples: bool) -> ObsColumn:
    known = values.dropna()
    n_missing = int(values.isna().sum())
    name = str(values.name)
    if names_samples:
        return ObsColumn(name=name, kind="identifier", n_missing=n_missing)
    if known.nunique() <= 1:
        return ObsColumn(name=name, kind="constant", n_missing=n_missing)
    if (
        pd.api.types.is_numeric_dtype(values)
        and not pd.api.types.is_bool_dtype(values)
        and known.nunique() > 2
    ):
        return ObsColumn(name=name, kind="numeric", n_missing=n_missing)
    if names_each(known):
        return ObsColumn(name=name, kind="identifier", n_missing=n_missing)
    counts = known.astype(str).value_counts()
    levels = {level: int(counts[level]) for level in sorted(counts.index)}
    return ObsColumn(name=name, kind="categorical", levels=levels, n_missing=n_missing)


def _candidates(
    columns: tuple[ObsColumn, ...], samples: pd.DataFrame, design: Design
) -> dict[str, tuple[str, ...]]:
    """Role to the columns that could play it; a batch that no model can tell from the design could not."""
    taken = set(design.columns.values())
    found: dict[str, tuple[str, ...]] = {}
    for role, pattern in WORDS.items():
        named = [
            one.name
            for one in columns
            if re.search(f"(?<![a-z])(?:{pattern})", one.name.lower()) and one.name not in taken
        ]
        kinds = {one.name: one.kind for one in columns}
        wanted = [name for name in named if kinds[name] in ("categorical", "numeric")]
        if role == "batch":
            wanted = [
                name for name in named if kinds[name] == "categorical" and not _nested(samples, name, design)
            ]
        found[role] = tuple(wanted)
    found["condition"] = tuple(
        one.name for one in columns if one.kind == "categorical" and one.name not in taken
    )
    found["covariates"] = tuple(
        one.name for one in columns if one.kind == "numeric" and one.name not in taken
    )
    return {role: names for role, names in found.items() if names}


def _nested(samples: pd.DataFrame, name: str, design: Design) -> bool:
    """Whether a batch follows from the condition, or from it and the rest of the design: no model tells."""
    if design.condition is None or name not in samples:
        return False
    table = pd.crosstab(samples[design.condition].astype(str), samples[name].astype(str))
    if ((table > 0).sum(axis=0) == 1).all():
        return True
    try:  # plates within subjects of a paired design, say
        matrix = design_matrix(samples, design.model_copy(update={"batch": design.batch or name}))
        orthonormal(matrix.to_numpy(), list(map(str, matrix)))
    except DesignError:
        return True
    return False


def _missing(adata: AnnData, design: Design, scale: Scale) -> Missing:
    x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float64)
    missing = ~np.isfinite(x)
    per_group = {}
    if design.condition is not None:
        labels = adata.obs[design.condition].astype(str).to_numpy()
        per_group = {level: round(float(missing[labels == level].mean()), 4) for level in sorted(set(labels))}
    return Missing(
        overall=round(float(missing.mean()), 4), per_group=per_group, mnar_slope=_slope(x, missing, scale)
    )


def _slope(x: np.ndarray, missing: np.ndarray, scale: Scale) -> float | None:
    """Slope of the share missing on the mean log2 intensity of what is there, least squares over proteins.

    None where the values are no intensities (ratios, cells' arcsinh), or fewer than ten proteins tell.
    """
    if scale not in ("linear", "log2"):
        return None
    if scale == "linear":  # 0 is there, and has no logarithm
        x = np.log2(x, where=x > 0, out=np.full_like(x, np.nan))
    share = missing.mean(axis=0)
    usable = (share > 0) & (share < 1) & np.isfinite(x).any(axis=0)
    if usable.sum() < 10:
        return None
    mean = np.nanmean(np.where(np.isfinite(x), x, np.nan)[:, usable], axis=0)
    return round(float(np.polyfit(mean, share[usable], 1)[0]), 4) if np.ptp(mean) > 0 else None


def _organism(adata: AnnData) -> str | None:
    names = [name for name in adata.var.get("organism", pd.Series(dtype=str)).astype(str) if name]
    return max(set(names), key=names.count) if names and len(set(names)) == 1 else None


def _id_kind(adata: AnnData, modality: str) -> Literal["uniprot", "symbol", "marker", "other"]:
    if modality == "cytometry":
        return "marker"
    names = pd.Series(adata.var_names.astype(str)).str.partition("_")[0].str.partition("-")[0]
    if names.str.fullmatch(ACCESSION.pattern).mean() > 0.5:
        return "uniprot"
    return "symbol" if names.str.fullmatch(r"[A-Z][A-Z0-9]{1,9}").mean() > 0.5 else "other"
