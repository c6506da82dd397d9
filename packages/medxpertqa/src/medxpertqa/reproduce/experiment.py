"""The experiment: the paper's data and tables checked, a real model asked, construction on real banks.

Parts whose data are not to be had are not run, and their claims are not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from medxpertqa.reproduce.answering import AnswersConfig, answers_trial, answers_trials
from medxpertqa.reproduce.auditing import audit_metrics
from medxpertqa.reproduce.claims import ATTRIBUTES, BANKS, CLAIMS, MODEL, SAMPLED
from medxpertqa.reproduce.construction import ConstructionConfig, pairs_trial, pipeline_trial
from medxpertqa.reproduce.figures import figures
from medxpertqa.reproduce.leaking import LeakConfig, leak_trial
from medxpertqa.reproduce.measuring import data_trial
from medxpertqa.reproduce.metrics import answers_metrics
from medxpertqa.reproduce.open_models import ModelsConfig, model_metrics
from medxpertqa.reproduce.parity import parity_metrics
from tenfold import Estimate, Experiment, Run, Trial


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values. A part that is left out is not run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: AnswersConfig | None = None
    construction: ConstructionConfig | None = None
    leak: LeakConfig | None = None
    models: ModelsConfig | None = None


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Do all parts and return the metrics that the claims name."""
    there = [name for name in (ATTRIBUTES, SAMPLED, *BANKS) if run.has_data(name)]
    trials = trials_of(config, there, run.has_data(MODEL))
    found = run.map(PARTS, trials)
    metrics: dict[str, Any] = parity_metrics() | audit_metrics()
    metrics |= answers_metrics({trial.arm: found[trial] for trial in trials if trial.stage == "answers"})
    if config.models is not None:
        metrics |= model_metrics(config.models, run)
    for trial in trials:
        if trial.stage != "answers":
            metrics |= {key: value for key, value in found[trial].items() if isinstance(value, int | float)}
    return {name: Estimate.of(value) for name, value in metrics.items()}


def trials_of(config: ExperimentConfig, there: list[str], has_model: bool) -> list[Trial]:
    """Everything whose data are there, the longest first, so that none is left to run alone."""
    made_up = config.answers is not None and config.answers.made_up
    trials = []
    if config.leak is not None and has_model and BANKS[0] in there:
        trials.append(Trial("leakage", 0, config.leak.model_dump(mode="json"), "leakage"))
    if config.answers is not None and has_model and (SAMPLED in there or made_up):
        trials += answers_trials(config.answers)
    if config.construction is not None and set(BANKS) <= set(there):
        settings = config.construction.model_dump(mode="json")
        if has_model:
            trials.append(Trial("pipeline", 0, settings, "pipeline"))
        trials.append(Trial("pairs", 0, {"copies": config.construction.copies}, "pairs"))
    return [*trials, Trial("data", 0, {"data": there}, "data")]


PARTS = {
    "answers": answers_trial,
    "data": data_trial,
    "leakage": leak_trial,
    "pairs": pairs_trial,
    "pipeline": pipeline_trial,
}

EXPERIMENT = Experiment(
    name="medxpertqa",
    title="MedXpertQA: expert-level medical questions, evaluated and built",
    paper="Zuo, Qu, Li, Chen, Zhu, Hua, Zhang, Ding, Zhou: MedXpertQA: Benchmarking Expert-Level Medical "
    "Reasoning and Understanding. ICML 2025, arXiv 2501.18362",
    url="https://arxiv.org/abs/2501.18362",
    summary="Do the published numbers fit their data, does the harness ask and read as the official one, "
    "and does a pipeline that was never released find what it should in real banks?",
    config_model=ExperimentConfig,
    configs="medxpertqa.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
