"""Tools that compare groups of samples: moderated t, minimum effect, detection (sections 2.5, 2.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from proteus_omics.stats import bh
from proteus_omics.stats.missing import detection_test
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import table
from proteus_omics.tools.matrices import with_gene
from proteus_omics.tools.modelling import Model, ModelParams, model_of, model_row, valid_counts
from proteus_omics.tools.registry import ToolContext, ToolParams, tool

if TYPE_CHECKING:
    from anndata import AnnData

SMYTH = "Smyth, Stat. Appl. Genet. Mol. Biol. 2004, 3:3; Phipson et al., Ann. Appl. Stat. 2016, 10:946"
MODEL_COLUMNS = (
    "n_tested n_hits n_up n_down n_ref n_alt trend robust prior df_prior s2_prior trend_p outlying "
    "detectable_log2fc adjusted_for"
)


class DeParams(ModelParams):
    """Parameters of `de_limma`; without `test` it gives fold changes only, p and q are missing."""

    test: bool = True


def _de_summary(outputs: Mapping[str, Any]) -> str:
    lines = [
        briefs.rows(outputs["de_models"], "contrast n_tested n_hits n_up n_down detectable_log2fc", n=12)
    ]
    best = outputs["de"].dropna(subset=["p_value"])
    lines.append(briefs.rows(best, "protein gene contrast log2fc p_value q_value", by="p_value"))
    return "\n".join(lines)


@tool(
    params=DeParams,
    inputs={"data": "matrix"},
    outputs={
        "de": table(
            ("protein", "contrast"),
            "gene log2fc ci_low ci_high ave_expr t p_value q_value b df_total sigma sd_post n_ref n_alt "
            "n_valid",
        ),
        "de_models": table(("contrast",), MODEL_COLUMNS),
    },
    summary=_de_summary,
    citation=SMYTH,
    library="proteus_omics.stats",
    version="2",
)
def de_limma(inputs: Mapping[str, Any], params: DeParams, context: ToolContext) -> Mapping[str, Any]:
    """Test each level against the reference by moderated t, missing values left missing."""
    data = inputs["data"]
    model = model_of(data, context, params, least=2 if params.test else 1)
    if not params.test:
        return {"de": _untested(model, data), "de_models": pd.DataFrame(columns=_model_columns())}
    found = model.moderated(params)
    tables = [_counted(found[0].top_table(name), model, name) for name in model.contrasts]
    rows = [model_row(model, found, name, one, context.alpha)
            for name, one in zip(model.contrasts, tables, strict=True)]  # fmt: skip
    result = with_gene(pd.concat(tables, ignore_index=True), data)
    result.attrs = {"scale": "log2", "trend": found[2], "robust": found[3], "prior": found[0].prior.kind}
    return {"de": result, "de_models": pd.DataFrame(rows)}


def _model_columns() -> list[str]:
    return ["contrast", *MODEL_COLUMNS.split()]


def _counted(found: pd.DataFrame, model: Model, contrast: str) -> pd.DataFrame:
    counts = valid_counts(model, contrast).loc[found["protein"]]
    at = found.columns.get_loc("n_valid")
    found.insert(at, "n_ref", counts["n_ref"].to_numpy())
    found.insert(at + 1, "n_alt", counts["n_alt"].to_numpy())
    return found


def _untested(model: Model, data: AnnData) -> pd.DataFrame:
    """Fold changes alone: everything that would need a variance is NaN."""
    fit = model.fit
    estimates = fit.contrasts(model.contrasts).estimate
    parts = []
    for at, name in enumerate(model.contrasts):
        part = pd.DataFrame({"protein": fit.proteins, "contrast": name, "log2fc": estimates[:, at]})
        part[["ci_low", "ci_high"]] = np.nan
        part["ave_expr"] = fit.ave_expr
        part[["t", "p_value", "q_value", "b", "df_total", "sigma", "sd_post"]] = np.nan
        part["n_valid"] = fit.n_valid
        parts.append(_counted(part, model, name))
    return with_gene(pd.concat(parts, ignore_index=True), data)


class TreatParams(ModelParams):
    """Parameters of `treat`: the least log2 fold change that matters."""

    lfc: float = Field(default=0.5, ge=0, le=20)


def _treat_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["treat"]
    best = briefs.rows(found, "protein gene contrast log2fc p_value q_value", by="p_value")
    return f"{briefs.hits(found)}\n{best}"


@tool(
    params=TreatParams,
    inputs={"data": "matrix"},
    outputs={
        "treat": table(
            ("protein", "contrast"),
            "gene log2fc ave_expr t p_value q_value df_total sigma sd_post n_ref n_alt n_valid",
        )
    },
    summary=_treat_summary,
    citation="McCarthy and Smyth, Bioinformatics 2009, 25:765",
    library="proteus_omics.stats",
    version="2",
)
def treat(inputs: Mapping[str, Any], params: TreatParams, context: ToolContext) -> Mapping[str, Any]:
    """Test whether a fold change is larger than a least one that matters."""
    model = model_of(inputs["data"], context, params)
    fit = model.moderated(params)[0]
    tables = [_counted(fit.treat(params.lfc, name), model, name) for name in model.contrasts]
    return {"treat": with_gene(pd.concat(tables, ignore_index=True), inputs["data"])}


class DetectionParams(ToolParams):
    """Parameters of `differential_detection`."""

    min_missing: float = Field(default=0.3, ge=0, le=1)


def _detection_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["detection"]
    shown = "protein gene contrast detected_ref n_ref detected_alt n_alt p_value q_value"
    return f"{briefs.hits(found)}\n{briefs.rows(found, shown, by='p_value')}"


@tool(
    params=DetectionParams,
    inputs={"data": "matrix", "de": "table"},
    optional_inputs=("de",),
    outputs={
        "detection": table(
            ("protein", "contrast"),
            "gene n_alt detected_alt n_ref detected_ref difference odds_ratio p_value q_value",
        )
    },
    summary=_detection_summary,
    citation="Fisher's exact test; Koopmans et al., J. Proteome Res. 2023, 22:374 (msdap)",
    library="scipy",
)
def differential_detection(
    inputs: Mapping[str, Any], params: DetectionParams, context: ToolContext
) -> Mapping[str, Any]:
    """Test whether a protein is detected more often in a group: sparse proteins and those `de` left untested.

    It has a table and a family of its own; its q-values are never merged with those of `de_limma`.
    """
    data, de = inputs["data"], inputs.get("de")
    model = model_of(data, context, ModelParams())
    parts = []
    for contrast in model.contrasts:
        level = model.level(contrast)
        samples = model.labels.isin([level, model.reference])
        detected = model.values.notna()[samples]
        sparse = (~detected).mean() >= params.min_missing
        if de is not None:
            tested = de.loc[(de["contrast"] == contrast) & de["p_value"].notna(), "protein"]
            sparse |= ~detected.columns.isin(tested)
        varying = detected.any() & ~detected.all()
        chosen = detected.loc[:, sparse & varying]
        parts.append(detection_test(chosen, model.labels[samples], level, model.reference))
    found = pd.concat(parts, ignore_index=True)
    found["q_value"] = found.groupby("contrast")["p_value"].transform(lambda p: bh(p.to_numpy()))
    found.insert(found.columns.get_loc("difference") + 1, "odds_ratio", _odds_ratio(found))
    found = found.sort_values(["contrast", "p_value"], kind="stable", ignore_index=True)
    return {"detection": with_gene(found, data)}


def _odds_ratio(found: pd.DataFrame) -> pd.Series:
    """With half a sample added to each cell (Haldane), so that it is finite."""
    alt, ref = found["detected_alt"] + 0.5, found["detected_ref"] + 0.5
    no_alt = found["n_alt"] - found["detected_alt"] + 0.5
    no_ref = found["n_ref"] - found["detected_ref"] + 0.5
    return (alt * no_ref) / (ref * no_alt)
