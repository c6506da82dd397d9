"""The ToEdit experiment: theory, what a prior says of text, and tiny models trained on synthetic text."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from tenfold import Estimate, Experiment, Run, Trial
from toedit.reproduce.claims import CLAIMS
from toedit.reproduce.figures import figures
from toedit.reproduce.linear_model import LinearConfig, linear_metrics, linear_trial


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear: LinearConfig


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Do all parts and return the metrics that the claims name."""
    linear = Trial("linear model", 0, config.linear.model_dump(mode="json"), stage="theory")
    return linear_metrics(run.map(linear_trial, [linear])[linear])


EXPERIMENT = Experiment(
    name="toedit",
    title="ToEdit: synthesize text data without model collapse, by token-level editing",
    paper="Zhu, Cheng, Li, Zhang, Hua, Lv, Ding, Lin, Zheng, Zhou: How to Synthesize Text Data without Model "
    "Collapse? ICML 2025, arXiv 2412.14689",
    url="https://arxiv.org/abs/2412.14689",
    summary="Draw anew only the tokens that a language model finds too easy: what is edited, does text "
    "collapse where whole documents are synthetic, and does it not where they are edited?",
    config_model=ExperimentConfig,
    configs="toedit.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
