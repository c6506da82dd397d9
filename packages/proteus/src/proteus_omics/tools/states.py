"""Tools that compare samples by their cells: shares of populations, states within them (section 2.3).

Cells are never replicates: each sample gives one number, and the tests are of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from proteus_omics import stats
from proteus_omics.errors import ToolError
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import MATRIX, table
from proteus_omics.tools.matrices import about, frame, obs_column, population_column, transformed
from proteus_omics.tools.modelling import ModelParams, model_of, valid_counts
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

if TYPE_CHECKING:
    from anndata import AnnData

    from proteus_omics.design import Design

Floats = NDArray[np.float64]

COMPOSITION = "difference share_alt share_ref t p_value q_value n_alt n_ref n_cells"
CORRELATION = "r ci_low ci_high t p_value q_value n_samples"
DIFFCYT = "Weber et al., Communications Biology 2019, 2:183 (diffcyt)"


class CompositionParams(ToolParams):
    """Parameters of `composition_test`; `population` is the column of the cells' populations."""

    population: str = "population"
    method: Literal["arcsine", "logit"] = "arcsine"


def _composition_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["composition"]
    shown = "population contrast share_ref share_alt p_value q_value"
    return f"{briefs.hits(found)}\n{briefs.rows(found, shown, by='p_value', n=20)}"


@tool(
    params=CompositionParams,
    inputs={"data": "matrix"},
    outputs={
        "composition": table(
            ("population", "contrast"),
            COMPOSITION,
        )
    },
    summary=_composition_summary,
    citation=DIFFCYT,
    library="proteus_omics.stats",
)
def composition_test(
    inputs: Mapping[str, Any], params: CompositionParams, context: ToolContext
) -> Mapping[str, Any]:
    """Test whether a population is more frequent in a level than in the reference, sample by sample."""
    import anndata as ad

    data = inputs["data"]
    sheet = sample_sheet(data, context.design)
    names = population_column(data, params.population, context.design)
    counts = stats.count_cells(names, sample_names(data, context.design))
    counts = counts.loc[sheet.index]
    values = stats.transform_proportions(counts, params.method)
    model = model_of(ad.AnnData(values, obs=sheet), context, ModelParams(), values)
    fit = model.fit.contrasts(model.contrasts).ebayes(legacy=True)
    shares = counts.div(counts.sum(axis=1), axis=0)
    parts = []
    for contrast in model.contrasts:
        found = fit.top_table(contrast).rename(columns={"protein": "population"})
        alt, ref = model.labels == model.level(contrast), model.labels == model.reference
        share_alt, share_ref = shares.loc[alt.index[alt]].mean(), shares.loc[ref.index[ref]].mean()
        found["share_alt"] = found["population"].map(share_alt)
        found["share_ref"] = found["population"].map(share_ref)
        found["difference"] = found["share_alt"] - found["share_ref"]
        found["n_alt"], found["n_ref"] = int(alt.sum()), int(ref.sum())
        found["n_cells"] = found["population"].map(counts.sum())
        parts.append(found)
    found = pd.concat(parts, ignore_index=True)
    return {"composition": found[["population", "contrast", *COMPOSITION.split()]]}


class PseudobulkParams(ToolParams):
    """Parameters of `pseudobulk`: a population of fewer than `min_cells` cells in a sample gives no row."""

    population: str = "population"
    min_cells: int = Field(default=5, ge=1, le=100_000)


def _pseudobulk_summary(outputs: Mapping[str, Any]) -> str:
    obs = outputs["matrix"].obs
    least = obs.groupby("population", observed=True)["n_cells"].agg(["count", "min", "median"]).reset_index()
    return briefs.rows(least, "population count min median", n=35)


@tool(
    params=PseudobulkParams,
    inputs={"data": "matrix"},
    outputs={"matrix": MATRIX},
    summary=_pseudobulk_summary,
    citation=DIFFCYT,
    library="pandas",
)
def pseudobulk(
    inputs: Mapping[str, Any], params: PseudobulkParams, context: ToolContext
) -> Mapping[str, Any]:
    """Take the median of each marker over a sample's cells of a population: a row a population and sample."""
    import anndata as ad

    data = inputs["data"]
    sheet = sample_sheet(data, context.design)
    samples = sample_names(data, context.design).to_numpy()
    names = population_column(data, params.population, context.design)
    values, scale = transformed(data)
    cells = pd.DataFrame(values).groupby([names, samples])
    medians, sizes = cells.median(), cells.size()
    enough = (sizes >= params.min_cells) & sizes.index.get_level_values(1).isin(sheet.index)
    if not enough.any():
        raise ToolError(f"no population has {params.min_cells} cells in a sample: loosen min_cells")
    medians, sizes = medians[enough], sizes[enough]
    population, sample = (medians.index.get_level_values(level) for level in (0, 1))
    obs = sheet.loc[sample].drop(columns=["population", "sample", "n_cells"], errors="ignore")
    obs = obs.assign(population=population, sample=sample, n_cells=sizes.to_numpy())
    obs.index = pd.Index([f"{one}|{other}" for one, other in medians.index])
    record = about(data) | {"scale": scale, "modality": "bulk", "quantity": "median of cells"}
    return {"matrix": ad.AnnData(medians.to_numpy(), obs, data.var.copy(), uns={"proteus": record})}


class StateParams(ModelParams):
    """Parameters of `state_de`: those of the model; by default markers of class `state`, where told."""

    markers: Literal["state", "all"] = "state"


def _state_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["state_de"]
    shown = "population protein contrast log2fc p_value q_value"
    return f"{briefs.hits(found)}\n{briefs.rows(found, shown, by='p_value', n=20)}"


@tool(
    params=StateParams,
    inputs={"data": "matrix"},
    outputs={
        "state_de": table(
            ("population", "protein", "contrast"),
            "log2fc ci_low ci_high ave_expr t p_value q_value b df_total sigma sd_post n_ref n_alt n_valid",
        )
    },
    summary=_state_summary,
    citation=DIFFCYT,
    library="proteus_omics.stats",
    version="2",
)
def state_de(inputs: Mapping[str, Any], params: StateParams, context: ToolContext) -> Mapping[str, Any]:
    """Test each marker in each population by moderated t over samples, paired where subjects are.

    All pairs of marker and population share one prior and are one family; `log2fc` is the difference of the
    samples' medians on the scale of the values. The input is that of `pseudobulk`.
    """
    import anndata as ad

    data = inputs["data"]
    if not {"population", "sample", "n_cells"} <= set(data.obs):
        raise ToolError("state_de takes the matrix of pseudobulk: a row a population and sample")
    rows = frame(data).loc[:, chosen_markers(data, params.markers)]
    rows.index = pd.MultiIndex.from_arrays(
        [data.obs["population"].astype(str), data.obs["sample"].astype(str)]
    )
    wide = rows.stack().unstack(1).T  # samples x (population, marker)
    wide = wide.loc[:, wide.max() > wide.min()]
    sheet = data.obs.drop_duplicates("sample").set_index("sample").drop(columns=["population", "n_cells"])
    sheet.index = sheet.index.astype(str)
    pairs = wide.columns
    values = wide.set_axis([f"{one}|{other}" for one, other in pairs], axis=1)
    model = model_of(ad.AnnData(values, obs=sheet.loc[values.index]), context, params, values)
    fit = model.moderated(params)[0]
    parts = []
    for contrast in model.contrasts:
        found = fit.top_table(contrast, sort=False)
        counts = valid_counts(model, contrast)
        found.insert(0, "population", pairs.get_level_values(0).to_numpy())
        found["protein"] = pairs.get_level_values(1).to_numpy()
        found["n_ref"], found["n_alt"] = counts["n_ref"].to_numpy(), counts["n_alt"].to_numpy()
        parts.append(found.sort_values("p_value", kind="stable"))
    result = pd.concat(parts, ignore_index=True)
    result.attrs = {"scale": str(about(data).get("scale")), "prior": fit.prior.kind}
    return {"state_de": result}


class MarkerCorrelationParams(ToolParams):
    """Parameters of `marker_correlation`."""

    population: str = "population"
    markers: Literal["state", "all"] = "state"
    min_cells: int = Field(default=20, ge=5, le=100_000)
    min_samples: int = Field(default=3, ge=2, le=10_000)


def _correlation_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["marker_correlation"]
    shown = "population marker_a marker_b r p_value q_value n_samples"
    return f"{briefs.hits(found)}\n{briefs.rows(found, shown, by='p_value', n=20)}"


@tool(
    params=MarkerCorrelationParams,
    inputs={"data": "matrix"},
    outputs={"marker_correlation": table(("population", "marker_a", "marker_b"), CORRELATION)},
    summary=_correlation_summary,
    citation="Fisher, Metron 1921, 1:3 (z transformation); Spearman, Am. J. Psychol. 1904, 15:72",
    library="proteus_omics.stats",
)
def marker_correlation(
    inputs: Mapping[str, Any], params: MarkerCorrelationParams, context: ToolContext
) -> Mapping[str, Any]:
    """Correlate state markers over the cells of a population, within samples; pool these by Fisher's z.

    Rank correlations. Samples of one subject are averaged, and the moderated t is over subjects or samples,
    so that the number of cells makes nothing significant.
    """
    data = inputs["data"]
    markers = chosen_markers(data, params.markers)
    if len(markers) < 2:
        raise ToolError(f"correlations need two markers of class {params.markers}")
    sheet = sample_sheet(data, context.design)
    samples = sample_names(data, context.design).to_numpy()
    names = population_column(data, params.population, context.design)
    upper = np.triu_indices(len(markers), 1)
    units = sheet.index.to_series() if context.design.subject is None else sheet[context.design.subject]
    parts = {}
    for (population, sample), cells in frame(data)[markers].groupby([names, samples]):
        if len(cells) >= params.min_cells and sample in units.index:
            r = cells.corr("spearman").to_numpy()[upper]
            parts[population, str(units[sample]), sample] = np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9))
    if not parts:
        raise ToolError(f"no population has {params.min_cells} cells in a sample: loosen min_cells")
    pairs = pd.MultiIndex.from_arrays([np.array(markers)[index] for index in upper])
    z = pd.DataFrame.from_dict(parts, orient="index", columns=pairs)
    z.index = pd.MultiIndex.from_tuples(z.index)
    wide = z.groupby(level=[0, 1]).mean().unstack(0)  # subjects x (marker, marker, population)
    wide = wide.loc[:, wide.notna().sum() >= params.min_samples]
    if wide.shape[1] == 0:
        raise ToolError(f"no pair of markers is correlated in {params.min_samples} samples or subjects")
    fit = stats.lm_fit(wide.to_numpy(), np.ones((len(wide), 1))).contrasts({"mean": {"x1": 1.0}})
    found = fit.ebayes(legacy=True).top_table(sort=False)
    found["marker_a"], found["marker_b"], found["population"] = (
        wide.columns.get_level_values(level).to_numpy() for level in range(3)
    )
    for name, of in (("r", "log2fc"), ("ci_low", "ci_low"), ("ci_high", "ci_high")):
        found[name] = np.tanh(found[of])
    found = found.rename(columns={"n_valid": "n_samples"})
    found = found.sort_values("p_value", kind="stable", ignore_index=True)
    return {"marker_correlation": found[["population", "marker_a", "marker_b", *CORRELATION.split()]]}


def sample_names(data: AnnData, design: Design) -> pd.Series:
    """The sample of each cell. Raises `ToolError` without a sample column."""
    if design.sample is None:
        raise ToolError("cells are no replicates: name the column of their samples in the design")
    return obs_column(data, design.sample).astype(str)


def sample_sheet(data: AnnData, design: Design) -> pd.DataFrame:
    """Samples x the columns that are the same for all cells of a sample.

    Raises `ToolError` for a column of the design that differs within a sample.
    """
    samples = sample_names(data, design)
    groups = data.obs.astype(object).groupby(samples.to_numpy())
    constant = groups.nunique(dropna=False).max() <= 1
    roles = (design.condition, design.batch, design.subject, *design.covariates)
    varying = [name for name in roles if name is not None and not constant.get(name, True)]
    if varying:
        raise ToolError(f"{', '.join(varying)} differs between cells of one sample")
    columns = [name for name in data.obs if constant[name]]
    first = ~samples.duplicated().to_numpy()
    return data.obs.loc[first, columns].set_axis(pd.Index(samples[first].to_numpy()), axis=0).sort_index()


def chosen_markers(data: AnnData, which: str) -> list[str]:
    """Markers of class `state` where the panel tells classes and `which` says so, else all of them."""
    if which == "all" or "marker_class" not in data.var:
        return list(data.var_names)
    return list(data.var_names[(data.var["marker_class"] == "state").to_numpy()])
