"""Tools of co-expression and of what numbers of the sample sheet go with (section 2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import stdtr
from scipy.stats import rankdata

from proteus_omics.auditing import reference_of
from proteus_omics.errors import ToolError
from proteus_omics.stats import bh, design_matrix, find_modules
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import MATRIX, table
from proteus_omics.tools.matrices import about, frame, is_numeric, traits, with_gene
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]
Method = Literal["spearman", "pearson"]

LEAST_SAMPLES = 15


class CoexpressionParams(ToolParams):
    """Parameters of `coexpression`; no `power` is the least one that gives a scale-free network, else 6."""

    correlation: Literal["bicor", "pearson"] = "bicor"
    power: int | None = Field(default=None, ge=1, le=30)
    min_size: int = Field(default=10, ge=3, le=1000)


def _coexpression_summary(outputs: Mapping[str, Any]) -> str:
    left = int((outputs["modules"]["module"] == "none").sum())
    shown = briefs.rows(outputs["module_sizes"], "module n_proteins hub hub_kme", n=25)
    about_network = outputs["matrix"].uns["proteus"]
    power, fit = about_network["power"], about_network["scale_free_r2"]
    return f"{shown}\n{left} proteins in none; power {power}, scale-free R2 {fit:.4g}"


@tool(
    params=CoexpressionParams,
    inputs={"data": "matrix"},
    outputs={
        "modules": table(("protein",), "gene module kme"),
        "module_sizes": table(("module",), "n_proteins hub hub_kme"),
        "matrix": MATRIX,
    },
    summary=_coexpression_summary,
    citation="Langfelder and Horvath, BMC Bioinformatics 2008, 9:559 (WGCNA)",
    library="proteus_omics.stats, fastcluster",
)
def coexpression(
    inputs: Mapping[str, Any], params: CoexpressionParams, context: ToolContext
) -> Mapping[str, Any]:
    """Find modules of proteins that vary together; their eigengenes are the matrix that comes out.

    Proteins with a missing value take no part: impute first where they should.
    """
    import anndata as ad

    data = inputs["data"]
    if data.n_obs < LEAST_SAMPLES:
        raise ToolError(f"co-expression of {data.n_obs} samples is noise; it needs {LEAST_SAMPLES}")
    values = frame(data)
    varying = values.notna().all() & (values.max() > values.min())
    values = values.loc[:, varying]
    found = find_modules(values, power=params.power, correlation=params.correlation, min_size=params.min_size)
    names = np.array(["none", *found.eigengenes.columns])[found.labels]
    own = found.membership.to_numpy()
    inside = found.labels > 0
    kme = np.full(len(names), np.nan)
    kme[inside] = own[inside, found.labels[inside] - 1]
    modules = pd.DataFrame({"protein": values.columns, "module": names, "kme": kme})
    modules = with_gene(modules, data)
    sizes = [_size_row(module, modules) for module in found.eigengenes]
    record = about(data) | {"scale": "ratio", "quantity": "eigengene", "power": found.power,
                            "scale_free_r2": found.scale_free_r2}  # fmt: skip
    var = pd.DataFrame({"gene": ""}, index=pd.Index(found.eigengenes.columns.astype(str)))
    matrix = ad.AnnData(found.eigengenes.to_numpy(), data.obs.copy(), var, uns={"proteus": record})
    columns = ["module", "n_proteins", "hub", "hub_kme"]
    return {"modules": modules, "module_sizes": pd.DataFrame(sizes, columns=columns), "matrix": matrix}


def _size_row(module: str, modules: pd.DataFrame) -> tuple[str, int, str, float]:
    members = modules[modules["module"] == module].sort_values("kme", ascending=False, kind="stable")
    hub = members.iloc[0]
    return module, len(members), hub["gene"] or hub["protein"], float(hub["kme"])


class ModuleTraitParams(ToolParams):
    """Parameters of `module_trait`; no `columns` are all of the sample sheet that vary."""

    method: Method = "pearson"
    columns: tuple[str, ...] = ()


def _module_trait_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["module_trait"]
    return f"{briefs.hits(found)}\n{briefs.rows(found, 'module trait r p_value q_value n', by='p_value')}"


@tool(
    params=ModuleTraitParams,
    inputs={"data": "matrix"},
    outputs={"module_trait": table(("module", "trait"), "r p_value q_value n")},
    summary=_module_trait_summary,
    citation="Langfelder and Horvath, BMC Bioinformatics 2008, 9:559 (WGCNA)",
    library="scipy",
)
def module_trait(
    inputs: Mapping[str, Any], params: ModuleTraitParams, context: ToolContext
) -> Mapping[str, Any]:
    """Correlate eigengenes with numbers of the sample sheet and with the levels of its factors."""
    data = inputs["data"]
    values = frame(data)
    rows = []
    for trait, numbers in _as_numbers(data, params.columns, context):
        r, p, n = correlations(values, numbers, None, params.method)
        rows += [(m, trait, *of) for m, *of in zip(values.columns, r, p, n, strict=True)]
    if not rows:
        raise ToolError("the sample sheet has no column that varies, so modules go with nothing")
    found = pd.DataFrame(rows, columns=["module", "trait", "r", "p_value", "n"])
    found.insert(4, "q_value", bh(found["p_value"]))
    return {"module_trait": found}


def _as_numbers(data: AnnData, named: tuple[str, ...], context: ToolContext) -> Iterator[tuple[str, Floats]]:
    """Numeric columns, and each level of a factor as 0 or 1: `disease=cirrhosis`; one level of two."""
    people = (context.design.subject, context.design.sample)
    if set(people) & set(named):
        raise ToolError(f"{', '.join(named)}: who a sample is of is no trait")
    for name, column in traits(data, named, context.design, people).items():
        if is_numeric(column):
            yield str(name), column.to_numpy(dtype=np.float64)
            continue
        text = column.astype(object).where(column.notna(), None)
        levels = sorted({str(level) for level in text.dropna()})
        if len(levels) == 2:
            design = context.design
            reference = reference_of(levels, design) if name == design.condition else levels[0]
            levels = [level for level in levels if level != reference][:1]
        for level in levels:
            indicator = (text.astype(str) == level).to_numpy(dtype=np.float64)
            yield f"{name}={level}", np.where(column.isna(), np.nan, indicator)


class TraitParams(ToolParams):
    """Parameters of `trait_correlation`; `adjust` holds condition, batch and covariates fixed."""

    method: Method = "spearman"
    adjust: bool = True
    columns: tuple[str, ...] = ()
    min_n: int = Field(default=10, ge=5, le=10_000)


def _traits_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["traits"]
    shown = "protein gene trait rho p_value q_value n"
    return f"{briefs.hits(found)}\n{briefs.rows(found, shown, by='p_value', n=15)}"


@tool(
    params=TraitParams,
    inputs={"data": "matrix"},
    outputs={"traits": table(("protein", "trait"), "gene rho p_value q_value n")},
    summary=_traits_summary,
    citation="Spearman, Am. J. Psychol. 1904, 15:72; partial correlation of ranks",
    library="scipy",
)
def trait_correlation(
    inputs: Mapping[str, Any], params: TraitParams, context: ToolContext
) -> Mapping[str, Any]:
    """Correlate each protein with each number of the sample sheet, given the condition; q over all pairs."""
    data, design = inputs["data"], context.design
    values = frame(data)
    parts = []
    roles = (design.condition, design.batch, design.subject, design.sample, design.time, design.event)
    for trait, column in traits(data, params.columns, design, roles).items():
        if not is_numeric(column) or column.notna().sum() < params.min_n:
            if params.columns:
                raise ToolError(f"{trait} is no column of at least {params.min_n} numbers")
            continue
        given = None
        if params.adjust:
            others = tuple(name for name in design.covariates if name != trait)
            given = design_matrix(data.obs, design.model_copy(update={"covariates": others, "subject": None}))
        numbers = column.to_numpy(dtype=np.float64)
        rho, p, n = correlations(values, numbers, given, params.method, params.min_n)
        part = pd.DataFrame({"protein": values.columns, "trait": trait, "rho": rho, "p_value": p, "n": n})
        parts.append(part)
    if not parts:
        raise ToolError(f"the sample sheet has no column with at least {params.min_n} numbers")
    found = pd.concat(parts, ignore_index=True)
    found.insert(4, "q_value", bh(found["p_value"]))
    return {"traits": with_gene(found, data)}


def correlations(
    values: pd.DataFrame, trait: Floats, given: pd.DataFrame | None, method: Method, min_n: int = 4
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Correlation of each column with `trait` over the samples that have both: r, two-sided p, n.

    `given` (samples x terms) is held fixed: residuals of the values, or of their ranks, are correlated, with
    n - 1 - rank(given) degrees of freedom. NaN below `min_n` samples or where nothing varies.
    """
    x = values.to_numpy(dtype=np.float64)
    known = ~np.isnan(trait)
    if given is None:
        nuisance = np.ones((len(x), 1))
    else:
        known &= values.index.isin(given.index)
        nuisance = given.reindex(values.index).to_numpy(dtype=np.float64)
    measured = ~np.isnan(x) & known[:, None]
    r, p = np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan)
    patterns, which = np.unique(measured.T, axis=0, return_inverse=True)
    for k, rows in enumerate(patterns):
        columns = np.flatnonzero(which.ravel() == k)
        if rows.sum() >= min_n:
            pair = x[np.ix_(rows, columns)], trait[rows]
            r[columns], p[columns] = _partial(*pair, nuisance[rows], method)
    return r, p, measured.sum(axis=0)


def _partial(x: Floats, trait: Floats, nuisance: Floats, method: Method) -> tuple[Floats, Floats]:
    if method == "spearman":
        x, trait = rankdata(x, axis=0), rankdata(trait)
    left, sizes, _ = np.linalg.svd(nuisance, full_matrices=False)
    basis = left[:, sizes > 1e-9 * sizes[0]]
    x, trait = x - basis @ (basis.T @ x), trait - basis @ (basis.T @ trait)
    length = np.linalg.norm(x, axis=0) * np.linalg.norm(trait)
    df = len(trait) - 1 - basis.shape[1]
    if df < 1:
        return np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(length > 1e-9, np.clip(trait @ x / length, -1, 1), np.nan)
        t = r * np.sqrt(df / (1 - r**2))
    return r, 2 * stdtr(df, -np.abs(t))
