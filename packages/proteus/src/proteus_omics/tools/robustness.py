"""Tools that ask whether a hit hangs on single samples: leave one out, bootstrap (section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from proteus_omics.errors import ToolError
from proteus_omics.tools import briefs
from proteus_omics.tools.columns import table
from proteus_omics.tools.matrices import with_gene
from proteus_omics.tools.modelling import Model, ModelParams, model_of
from proteus_omics.tools.registry import ToolContext, tool

Floats = NDArray[np.float64]


class LeaveOneOutParams(ModelParams):
    """Parameters of `leave_one_out`: those of the model, and how many hits at most a contrast."""

    max_hits: int = Field(default=200, ge=1, le=10_000)


class BootstrapParams(LeaveOneOutParams):
    """Parameters of `bootstrap_sign`."""

    n_bootstraps: int = Field(default=200, ge=20, le=10_000)


def _leave_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["leave_one_out"]
    changing = int((~found["sign_stable"]).sum())
    least = briefs.rows(found, "protein gene contrast t worst_t worst_ratio", by="worst_ratio")
    return f"{len(found)} hits, {changing} change their sign without some sample; the least stable:\n{least}"


@tool(
    params=LeaveOneOutParams,
    inputs={"data": "matrix", "de": "table"},
    outputs={"leave_one_out": table(("protein", "contrast"), "gene t worst_t worst_ratio sign_stable")},
    summary=_leave_summary,
    citation="Quenouille, Biometrika 1956, 43:353 (jackknife)",
    library="proteus_omics.stats",
)
def leave_one_out(
    inputs: Mapping[str, Any], params: LeaveOneOutParams, context: ToolContext
) -> Mapping[str, Any]:
    """Fit again without each sample; the weakest t of each hit, as a share of the one of all samples."""
    data = inputs["data"]
    model = model_of(data, context, params)
    chosen = chosen_hits(inputs["de"], model, context.alpha, params.max_hits)
    full, _, trend, robust = model.moderated(params)
    t = {name: full.t[:, at] for at, name in enumerate(model.contrasts)}
    worst = {name: np.abs(values) for name, values in t.items()}
    for sample in model.values.index:
        without = _without(model, sample, trend=trend, robust=robust, legacy=params.legacy)
        for name, values in without.items():
            worst[name] = np.minimum(worst[name], values * np.sign(t[name]))
    position = {protein: at for at, protein in enumerate(model.values.columns)}
    rows = []
    for name, proteins in chosen.items():
        at = [position[protein] for protein in proteins]
        sign, size = np.sign(t[name][at]), np.abs(t[name][at])
        rows.append(
            pd.DataFrame(
                {
                    "protein": proteins,
                    "contrast": name,
                    "t": t[name][at],
                    "worst_t": worst[name][at] * sign,
                    "worst_ratio": worst[name][at] / size,
                    "sign_stable": worst[name][at] > 0,
                }
            )
        )
    return {"leave_one_out": with_gene(pd.concat(rows, ignore_index=True), data)}


def _without(
    model: Model, sample: str, *, trend: bool, robust: bool, legacy: bool | None
) -> dict[str, Floats]:
    """Moderated t of each contrast without one sample; 0 where there is then nothing to compare."""
    values = model.values.copy()
    values.loc[sample] = np.nan
    fit = model.fitted(values).contrasts(model.contrasts)
    t = np.nan_to_num(fit.ebayes(trend=trend, robust=robust, legacy=legacy).t)
    return {name: t[:, at] for at, name in enumerate(model.contrasts)}


def _bootstrap_summary(outputs: Mapping[str, Any]) -> str:
    found = outputs["bootstrap_sign"]
    stable = int((found["sign_stability"] >= 0.95).sum())
    least = briefs.rows(found, "protein gene contrast log2fc sign_stability", by="sign_stability")
    return (
        f"{len(found)} hits, {stable} keep their sign in 95 % of the bootstraps; the least stable:\n{least}"
    )


@tool(
    params=BootstrapParams,
    inputs={"data": "matrix", "de": "table"},
    outputs={
        "bootstrap_sign": table(("protein", "contrast"), "gene log2fc sign_stability ci_low ci_high"),
    },
    summary=_bootstrap_summary,
    citation="Rubin, Annals of Statistics 1981, 9:130 (Bayesian bootstrap)",
    library="proteus_omics.stats",
)
def bootstrap_sign(
    inputs: Mapping[str, Any], params: BootstrapParams, context: ToolContext
) -> Mapping[str, Any]:
    """Tell how often a hit keeps its sign when samples (subjects of a paired design) are weighed at random.

    Exponential weights, which are the Bayesian bootstrap: unlike drawing with replacement they cannot lose a
    level of the design.
    """
    data = inputs["data"]
    model = model_of(data, context, params)
    chosen = chosen_hits(inputs["de"], model, context.alpha, params.max_hits)
    proteins = sorted({protein for named in chosen.values() for protein in named})
    values = model.values[proteins]
    units = _units(model, data.obs, context.design.subject)
    rng = np.random.default_rng(context.seed)
    drawn = np.empty((params.n_bootstraps, len(proteins), len(model.contrasts)))
    for k in range(params.n_bootstraps):
        weight = np.sqrt(rng.exponential(size=units.max() + 1)[units])[:, None]
        fit = model.fitted(values * weight, model.matrix * weight)
        drawn[k] = fit.contrasts(model.contrasts).estimate
    estimate = model.fitted(values).contrasts(model.contrasts).estimate
    rows = []
    for k, (name, named) in enumerate(chosen.items()):
        at = [proteins.index(protein) for protein in named]
        draws, effect = drawn[:, at, k], estimate[at, k]
        low, high = np.quantile(draws, [0.025, 0.975], axis=0) if at else (np.empty(0), np.empty(0))
        same = np.mean(np.sign(draws) == np.sign(effect), axis=0)
        rows.append(
            pd.DataFrame(
                {
                    "protein": named,
                    "contrast": name,
                    "log2fc": effect,
                    "sign_stability": same,
                    "ci_low": low,
                    "ci_high": high,
                }
            )
        )
    return {"bootstrap_sign": with_gene(pd.concat(rows, ignore_index=True), data)}


def chosen_hits(de: pd.DataFrame, model: Model, alpha: float, most: int) -> dict[str, list[str]]:
    """Contrast to the hits of `de` that the matrix has, smallest p first. Raises `ToolError` for none."""
    hits = de[(de["q_value"] < alpha) & de["protein"].isin(model.values.columns)]
    hits = hits.sort_values("p_value", kind="stable")
    chosen = {
        name: hits.loc[hits["contrast"] == name, "protein"].head(most).tolist() for name in model.contrasts
    }
    if not any(chosen.values()):
        raise ToolError(f"no protein of the table has q < {alpha:g}, so there is no hit to look at again")
    return chosen


def _units(model: Model, obs: pd.DataFrame, subject: str | None) -> NDArray[np.int64]:
    """What is weighed: subjects where the design is paired, else samples."""
    if subject is None or subject not in model.adjusted_for:
        return np.arange(len(model.values))
    return pd.factorize(obs.loc[model.values.index, subject])[0]
