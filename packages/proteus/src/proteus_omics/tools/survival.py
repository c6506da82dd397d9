"""Tools of survival: every protein in a Cox model, and the curves of the hits (section 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from proteus_omics.design import Design
from proteus_omics.errors import MissingExtraError, ToolError
from proteus_omics.stats import bh, cox_fit, design_matrix, schoenfeld_test
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import FIGURE, table
from proteus_omics.tools.matrices import frame, genes, with_gene
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

MOST_HITS = 200  # whose hazards are tested for being proportional


class CoxParams(ToolParams):
    """Parameters of `cox_screen`; `covariates` are columns beside those of the design."""

    covariates: tuple[str, ...] = Field(default=(), max_length=20)
    min_events: int = Field(default=10, ge=3, le=10_000)


def _cox_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["cox"]
    flagged = found["flag"][found["flag"] != ""].value_counts()
    notes = "; ".join(f"{count} {flag}" for flag, count in flagged.items())
    best = briefs.rows(found, "protein gene hr ci_low ci_high p_value q_value", by="p_value")
    return f"{briefs.hits(found)}\n{best}" + (f"\nno estimate: {notes}" if notes else "")


@tool(
    params=CoxParams,
    inputs={"data": "matrix"},
    outputs={
        "cox": table(
            ("protein",), "gene coef se hr ci_low ci_high z p_value q_value n n_events schoenfeld_p flag"
        )
    },
    summary=_cox_summary,
    citation="Cox, J. R. Stat. Soc. B 1972, 34:187; Efron, JASA 1977, 72:557",
    library="proteus_omics.stats",
)
def cox_screen(inputs: Mapping[str, Any], params: CoxParams, context: ToolContext) -> Mapping[str, Any]:
    """Fit a Cox model with each protein and the shared covariates; hazard ratios are per log2 unit."""
    data = inputs["data"]
    survival = survival_times(data.obs, context.design)
    if survival["event"].sum() < params.min_events:
        raise ToolError(
            f"{int(survival['event'].sum())} events are too few for survival; it takes {params.min_events}"
        )
    extra = [name for name in params.covariates if name not in context.design.covariates]
    shared = Design(covariates=(*context.design.covariates, *extra), batch=context.design.batch)
    covariates = design_matrix(data.obs, shared).drop(columns="intercept")
    rows = survival.index.intersection(covariates.index, sort=False)
    survival, values = survival.loc[rows], frame(data).loc[rows]
    z = covariates.loc[rows] if covariates.shape[1] else None
    found = cox_fit(values, survival["time"], survival["event"], z).table()
    hits = found[found["q_value"] < context.alpha].nsmallest(MOST_HITS, "p_value")["protein"].tolist()
    proportional = pd.Series(dtype=float)
    if hits:
        tested = schoenfeld_test(values[hits], survival["time"], survival["event"], z)
        proportional = tested.set_index("protein")["p_value"]
    found.insert(found.columns.get_loc("flag"), "schoenfeld_p", found["protein"].map(proportional))
    found["schoenfeld_p"] = found["schoenfeld_p"].astype(np.float64)
    found = found.sort_values("p_value", kind="stable", ignore_index=True)
    return {"cox": with_gene(found, data)}


def survival_times(obs: pd.DataFrame, design: Design) -> pd.DataFrame:
    """`time, event` of the samples that have both. Raises `ToolError` for values that say neither."""
    if design.time is None or design.event is None:
        raise ToolError("survival needs the columns of time and event: name them in the design")
    for name in (design.time, design.event):
        if name not in obs:
            raise ToolError(f"there is no column {name!r}; there are {', '.join(map(str, obs.columns))}")
    columns = {"time": obs[design.time], "event": obs[design.event]}
    try:
        found = pd.DataFrame({key: column.astype("Float64") for key, column in columns.items()}).dropna()
    except (TypeError, ValueError) as error:
        raise ToolError(f"times and events have to be numbers, events 0 or 1: {error}") from error
    found = found.astype(np.float64)
    if not found["event"].isin((0, 1)).all():
        raise ToolError(f"{design.event} has values other than 0 (censored) and 1 (event)")
    return found


class KmParams(ToolParams):
    """Parameters of `km_plot`."""

    top: int = Field(default=6, ge=1, le=20)


def _km_summary(outputs: Mapping[str, Any]) -> str:
    return briefs.rows(outputs["logrank"], "protein gene chi2 p_value q_value n_high n_low", n=20)


@tool(
    params=KmParams,
    inputs={"data": "matrix", "cox": "table"},
    outputs={"km": FIGURE, "logrank": table(("protein",), "gene chi2 p_value q_value n_high n_low")},
    summary=_km_summary,
    citation="Kaplan and Meier, JASA 1958, 53:457; Davidson-Pilon, JOSS 2019, 4:1317 (lifelines)",
    library="lifelines",
)
def km_plot(inputs: Mapping[str, Any], params: KmParams, context: ToolContext) -> Mapping[str, Any]:
    """Draw survival above and below the median of the strongest hits, the cut-off never searched for.

    The log-rank test is of proteins that the same data chose: a check of the picture, no new finding.
    """
    try:
        from lifelines import KaplanMeierFitter
        from lifelines.statistics import logrank_test
    except ImportError as error:
        raise MissingExtraError(
            "km_plot needs an optional extra: pip install 'proteus-omics[survival]'"
        ) from error
    data, cox = inputs["data"], inputs["cox"]
    hits = cox[cox["q_value"] < context.alpha].nsmallest(params.top, "p_value")["protein"].tolist()
    if not hits:
        raise ToolError(
            f"no protein of the Cox table has q < {context.alpha:g}, so there is no curve to draw"
        )
    survival, values, symbols = survival_times(data.obs, context.design), frame(data), genes(data)
    columns = min(3, len(hits))
    lines = -(-len(hits) // columns)
    figure = Figure(figsize=(3.6 * columns, 3 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    rows = []
    for axis, protein in zip(axes, hits, strict=False):
        known = values.loc[survival.index, protein].dropna()
        times = survival.loc[known.index]
        high = known > known.median()
        for name, chosen in ((f"high ({high.sum()})", high), (f"low ({(~high).sum()})", ~high)):
            curve = KaplanMeierFitter().fit(times["time"][chosen], times["event"][chosen], label=name)
            curve.plot_survival_function(ax=axis)
        test = logrank_test(
            times["time"][high], times["time"][~high], times["event"][high], times["event"][~high]
        )
        rows.append((protein, test.test_statistic, test.p_value, int(high.sum()), int((~high).sum())))
        axis.set(
            title=symbols[protein] or protein, xlabel=context.design.time, ylabel="survival", ylim=(0, 1.02)
        )
    for axis in axes[len(hits) :]:
        axis.set_axis_off()
    found = pd.DataFrame(rows, columns=["protein", "chi2", "p_value", "n_high", "n_low"])
    found.insert(3, "q_value", bh(found["p_value"]))
    return {"km": figure, "logrank": with_gene(found, data)}
