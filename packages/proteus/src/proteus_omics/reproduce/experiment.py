"""The experiment: whole runs on a spike-in, a clinical cohort and cells, and what is checked of each.

Each part is one trial: a run through planner, tools, guard and report in a folder of its own, whose tables
and hypotheses are then held to what is known.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from scipy.stats import ttest_ind

from proteus_omics import api, datasets, stats
from proteus_omics.design import Design
from proteus_omics.reproduce.claims import CLAIMS, CYTOF, HYE
from proteus_omics.reproduce.figures import figures
from proteus_omics.reproduce.judging import ALPHA, judged
from proteus_omics.tools.registry import ToolContext, get_tool
from tenfold import Estimate, Experiment, Run, Trial, TrialContext

if TYPE_CHECKING:
    from anndata import AnnData

SIX = ("ALDOB", "APOM", "LGALS3BP", "PIGR", "VTN", "AFM")
CIRRHOSIS = "liver cirrhosis"
TRUTH = {"HUMAN": 0.0, "YEAST": 1.0, "ECOLI": -2.0}
"""log2 A/B of each species in the mixtures (LFQbench)."""


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...]
    permutations: int
    """Fits with permuted labels."""
    null_runs: int = 0
    """Whole runs with permuted labels."""


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Do all parts whose data is to be had, and return the metrics that the claims name."""
    parts = [Trial("nafld", seed, {}, "cohort") for seed in config.seeds]
    parts += [Trial("null", 0, {"permutations": config.permutations, "runs": config.null_runs}, "null")]
    if run.has_data(HYE[0]):
        parts += [Trial("hye", seed, {}, "spike-in") for seed in config.seeds]
        parts += [Trial("splits", 0, {}, "splits")]
    if run.has_data(CYTOF[0]):
        parts += [Trial("cytof", seed, {}, "cells") for seed in config.seeds]
    found = run.map(PARTS, parts)
    samples: dict[str, list[float]] = {}
    totals: dict[str, float] = {}
    for result in found.values():
        for name, value in result["metrics"].items():
            samples.setdefault(name, []).append(value)
        for name, value in result.get("guard", {}).items():
            totals[name] = totals.get(name, 0.0) + value
        for kind, tally in result.get("mutants", {}).items():
            escaped = f"mutants_escaped_{kind}"
            totals[escaped] = totals.get(escaped, 0.0) + len(tally["escaped"])
    metrics: dict[str, Estimate | float] = {name: Estimate.of(values) for name, values in samples.items()}
    if totals.get("mutants"):
        metrics["mutants_caught"] = totals["caught"] / totals["mutants"]
        metrics["statements_mutated"] = totals["statements"] / len(config.seeds)
        metrics["originals_verified"] = totals["verified"] / totals["statements"]
        metrics["mutants_made"] = totals["mutants"]
        metrics["trail_broken"] = totals["broken"]
        metrics |= {name: value for name, value in totals.items() if name.startswith("mutants_escaped_")}
    return metrics


# ---- the spike-in


def spike_in(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """HYE, mixture A against B. Its quantities are normalised: a common shift would be of the mixture."""
    found = _run(
        datasets.hye(), Design(condition="condition", reference="B"), trial, context, normalization="none"
    )
    de = found.tables["de"].copy()
    de["truth"] = de["protein"].str.rpartition("_")[2].map(TRUTH)
    hits = de[de["q_value"] < ALPHA]
    false = hits["truth"] == 0
    right = np.sign(hits["log2fc"]) == np.sign(hits["truth"])
    # The first hundred entities, in the order of the run's own ranking.
    truth = de.set_index("protein")["truth"]
    ranked = [one.entities[0] for one in found.hypotheses if one.rank is not None and one.entities][:100]
    data, context_ = _prepared(datasets.hye(), Design(condition="condition", reference="B"))
    tool = get_tool("treat")
    treat = tool({"data": data}, tool.parse({"lfc": 0.5}), context_)["treat"]
    called = treat.loc[treat["q_value"] < ALPHA, "protein"].map(truth)
    metrics = {
        "hye_hits": float(len(hits)),
        "hye_fdp": float(false.mean()),
        "hye_tpr": float((~false).sum() / (de["truth"] != 0).sum()),
        "hye_direction": float(right[~false].mean()),
        "hye_top100_true": float(np.mean([truth[name] != 0 for name in ranked])),
        "hye_treat_precision": float((called != 0).mean()),
    }
    for name, q in plain_tests(data, reference="B").items():
        de[name] = q.reindex(de["protein"]).to_numpy()
        called = de.loc[de[name] < ALPHA, "truth"]
        metrics[f"hye_{name}_fdp"] = float((called == 0).mean())
        metrics[f"hye_{name}_tpr"] = float((called != 0).sum() / (de["truth"] != 0).sum())
    by_species = de[["truth", "log2fc", "p_value", "q_value", "student", "welch"]].to_dict("list")
    return {"metrics": metrics, "table": by_species, **judged(found, trial)}


def plain_tests(data: AnnData, reference: str) -> dict[str, pd.Series]:
    """q of Student's and of Welch's t-test of each protein, beside which the moderated t is drawn.

    `data` are logarithms with two levels of `condition`.
    """
    first = (data.obs["condition"] == reference).to_numpy()
    values = np.asarray(data.X, dtype=np.float64)
    found = {}
    for name, equal in (("student", True), ("welch", False)):
        p = ttest_ind(values[~first], values[first], equal_var=equal, nan_policy="omit").pvalue
        found[name] = pd.Series(stats.bh(p), index=data.var_names)
    return found


def splits(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Human proteins alone: the true split of the six runs, and the nine others into three and three."""
    data = datasets.hye()
    human = data[:, data.var["organism"] == "HUMAN"]
    y = pd.DataFrame(np.log2(np.asarray(human.X)), index=human.obs_names, columns=human.var_names)
    calls = {}
    for chosen in itertools.combinations(range(6), 3):
        if 0 not in chosen:  # a split and its mirror are one
            continue
        first = np.isin(np.arange(6), chosen)
        x = pd.DataFrame({"one": first.astype(float), "two": (~first).astype(float)}, index=y.index)
        fit = stats.lm_fit(y, x).contrasts({"d": {"one": 1, "two": -1}}).ebayes()
        calls[chosen] = int((fit.top_table("d")["q_value"] < ALPHA).sum())
    true = calls.pop((0, 1, 2))
    return {
        "metrics": {"hye_human_true_split": float(true), "hye_human_other_splits": float(max(calls.values()))}
    }


# ---- the cohort


def cohort(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """The plasma proteomes against what was published of them."""
    knowledge = datasets.KNOWLEDGE.path()
    design = Design(condition="disease", reference="healthy")
    found = _run(datasets.nafld(), design, trial, context, knowledge=knowledge)
    de = found.tables["de"]
    de = de[de["contrast"] == f"{CIRRHOSIS}_vs_healthy"].drop_duplicates("gene").set_index("gene")
    six = de.reindex(list(SIX))
    verified = {
        one.entities[0]
        for one in found.hypotheses
        if one.status == "verified" and one.kind == "differential" and one.entities
        and one.prediction is not None and one.prediction.contrast == f"{CIRRHOSIS}_vs_healthy"
    }  # fmt: skip
    metrics = {
        "pigr_log2fc": float(six.loc["PIGR", "log2fc"]),
        "pigr_verified": float("PIGR" in verified),
        "apom_log2fc": float(six.loc["APOM", "log2fc"]),
        "apom_verified": float("APOM" in verified),
        "six_found": float((six["q_value"] < ALPHA).sum()),
        "nafld_hits": float((de["q_value"] < ALPHA).sum()),
    }
    gsea = found.tables.get("gsea")
    if gsea is not None:
        sets = gsea[
            (gsea["contrast"] == f"{CIRRHOSIS}_vs_healthy") & gsea["term"].str.endswith("COAGULATION")
        ]
        metrics |= {
            "coagulation_nes": float(sets["nes"].iloc[0]),
            "coagulation_q": float(sets["q_value"].iloc[0]),
        }
    shown = six[["log2fc", "q_value", "ci_low", "ci_high"]].reset_index().to_dict("list")
    funnel = _funnel(found)
    return {"metrics": metrics, "six": shown, "funnel": funnel, **judged(found, trial)}


def null(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Healthy and cirrhosis with permuted labels: fits, and whole runs."""
    data = datasets.nafld()
    two = data[data.obs["disease"].isin(["healthy", CIRRHOSIS])].copy()
    rng = np.random.default_rng(0)
    labels = two.obs["disease"].astype(str).to_numpy()
    prepared, context_ = _prepared(two, Design(condition="disease", reference="healthy"))
    tool = get_tool("de_limma")
    with_hits = 0
    n = int(trial.settings["permutations"])
    for number in range(n):
        prepared.obs["disease"] = rng.permutation(labels)
        de = tool({"data": prepared}, tool.parse({}), context_)["de"]
        with_hits += bool((de["q_value"] < ALPHA).any())
        context.progress(number + 1, n + int(trial.settings["runs"]))
    metrics = {"null_fits_with_hits": with_hits / n}
    runs = 0
    for number in range(int(trial.settings["runs"])):
        two.obs["disease"] = pd.Categorical(rng.permutation(labels))
        found = _run(
            two, Design(condition="disease", reference="healthy"), trial, context, name=f"null{number}"
        )
        runs += any(one.kind == "differential" and one.status == "verified" for one in found.hypotheses)
        shutil.rmtree(found.folder)
        context.progress(n + number + 1, n + int(trial.settings["runs"]))
    if trial.settings["runs"]:
        metrics["null_runs_with_hypotheses"] = float(runs)
    return {"metrics": metrics}


# ---- cells


def cells(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Blood cells with and without cross-linked B cell receptors, four people."""
    design = Design(condition="condition", reference="Ref", sample="sample_id", subject="patient_id")
    data = datasets.cytof()
    found = _run(data, design, trial, context)
    state = found.tables["state_de"]
    markers = found.tables["population_markers"].pivot(
        index="population", columns="protein", values="fraction_positive"
    )
    b_cells = [
        str(name)
        for name, row in markers.iterrows()
        if row["CD20"] > 0.5 and row["HLA-DR"] > 0.5 and row["CD3"] < 0.5
    ]
    flipped = _run(_flipped(data), design, trial, context, name="flipped")
    hits = int((flipped.tables["state_de"]["q_value"] < ALPHA).sum())
    shutil.rmtree(flipped.folder)
    metrics = {"b_cells_found": float(bool(b_cells)), "flipped_hits": float(hits)}
    if b_cells:
        metrics |= _b_cell_metrics(state[state["population"].isin(b_cells)])
    nfkb = state[state["protein"] == "pNFkB"].dropna(subset=["log2fc"])
    metrics["pnfkb_down"] = float((nfkb["log2fc"] < 0).mean())
    heat = state.pivot(index="population", columns="protein", values="log2fc")
    shown = {
        "populations": list(heat.index),
        "markers": list(heat.columns),
        "log2fc": heat.to_numpy().tolist(),
    }
    return {"metrics": metrics, "heat": shown, "funnel": _funnel(found), **judged(found, trial)}


def _b_cell_metrics(state: pd.DataFrame) -> dict[str, float]:
    """Of the B cell population with the largest effect on pS6."""
    best = state[state["protein"] == "pS6"].sort_values("log2fc").iloc[-1]
    same = state[state["population"] == best["population"]].set_index("protein")
    return {
        "b_cell_ps6": float(same.loc["pS6", "log2fc"]),
        "b_cell_ps6_q": float(same.loc["pS6", "q_value"]),
        "b_cell_pplcg2": float(same.loc["pPlcg2", "log2fc"]),
        "b_cell_perk": float(same.loc["pErk", "log2fc"]),
    }


def _flipped(data: AnnData) -> AnnData:
    """The labels of half of the people exchanged."""
    result = data.copy()
    people = sorted(result.obs["patient_id"].astype(str).unique())
    exchanged = result.obs["patient_id"].astype(str).isin(people[: len(people) // 2])
    labels = result.obs["condition"].astype(str)
    other = labels.map({"Ref": "BCRXL", "BCRXL": "Ref"})
    result.obs["condition"] = pd.Categorical(np.where(exchanged, other, labels))
    return result


# ---- what every run is asked


def _run(
    data: AnnData, design: Design, trial: Trial, context: TrialContext, name: str = "run", **options: Any
) -> api.Run:
    return api.run(data, design=design, out=context.checkpoint_dir / name, seed=trial.seed, **options)


def _prepared(data: AnnData, design: Design) -> tuple[AnnData, ToolContext]:
    """The matrix as the rules prepare it for tests, without normalisation where the data are normalised."""
    context = ToolContext(design=design)
    steps: list[tuple[str, dict[str, Any]]] = [("transform", {}), ("filter_missing", {})]
    if data.uns["proteus"]["source"] != "matrix":
        steps.append(("normalize", {}))
    for name, params in steps:
        tool = get_tool(name)
        data = tool({"data": data}, tool.parse(params), context)["matrix"]
    return data, context


def _funnel(found: api.Run) -> dict[str, int]:
    """From tested rows to ranked hypotheses."""
    return {
        "rows tested": sum(int(t.data[q].notna().sum()) for t in found.index.values()
                           for q, role in t.roles.items() if role == "q"),
        "statements": len(found.hypotheses),
        "verified": sum(one.status == "verified" for one in found.hypotheses),
        "of entities": len(found.entities()),
    }  # fmt: skip


PARTS = {"spike-in": spike_in, "splits": splits, "cohort": cohort, "null": null, "cells": cells}

EXPERIMENT = Experiment(
    name="proteus",
    title="Automating exploratory proteomics research",
    paper="Ding, Qu, Xie, Li, Liu, Zhang, Xiong, Zuo, Chen, Hua, Lv, Sun, Li, Li, He, Zhou: Automating "
    "Exploratory Proteomics Research via Language Models. 2024, arXiv 2411.03743",
    url="https://arxiv.org/abs/2411.03743",
    summary="From a raw table to hypotheses with no human in the loop: are they true where the truth is "
    "known, do they agree with what was published, and does any number in them come from nowhere?",
    config_model=ExperimentConfig,
    configs="proteus_omics.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
