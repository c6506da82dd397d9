"""The ToEdit experiment: theory, what a prior says of text, and tiny models trained on synthetic text.

Stages: theory and the synthetic texts; the prior's scores and edits, which take longest and so begin first,
the mixtures and the generations; then what needs the edited text, n-grams and the training on it.
Parts that a scale leaves out, and those whose data are not to be had, are not run, and their claims are not
tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tenfold import Estimate, Experiment, Run, Trial
from toedit.reproduce import effect_study, iteration_study
from toedit.reproduce.claims import CLAIMS, OUTSIDE, PRIOR
from toedit.reproduce.effect_study import effect_metrics, effect_trial
from toedit.reproduce.features import features_metrics, features_trial
from toedit.reproduce.figures import figures
from toedit.reproduce.iteration_study import iteration_metrics, iteration_trial
from toedit.reproduce.linear_model import LinearConfig, linear_metrics, linear_trial
from toedit.reproduce.mixing_study import mixing_metrics, mixing_trial
from toedit.reproduce.prior import EDITED_SPLIT, PriorConfig, prior_metrics, prior_trial
from toedit.reproduce.synthesis import synthesis_trial
from toedit.reproduce.tiny import TinyConfig

Seeds = tuple[int, ...]
EDITED_AGAIN = ("docs", "gsm8k", "wikitext2")
SPLITS = {"docs": EDITED_SPLIT, "books": "heldout", "wikitext2": "valid"}
"""Books are those by authors whom no tiny model reads. The edit of docs is training text in T7."""


class MixingConfig(BaseModel):
    """T4: which shares of synthetic text, by which writer, for which corpora."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    writer: Literal["tiny", "prior"]
    corpora: tuple[Literal["docs", "books"], ...] = Field(min_length=1)
    shares: tuple[float, ...] = Field(min_length=2)
    seeds: Seeds = Field(min_length=1)


class IterationConfig(BaseModel):
    """T5: how many generations, from how many beginnings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generations: int = Field(gt=1)
    seeds: Seeds = Field(min_length=1)


class EffectConfig(BaseModel):
    """T7: how many pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: Seeds = Field(min_length=2)


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    docs: str = Field(default="docs", description="the corpus that is called docs in the metrics")
    linear: LinearConfig
    prior: PriorConfig
    tiny: TinyConfig
    mixing: MixingConfig
    iteration: IterationConfig | None = None
    effect: EffectConfig | None = None


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Do all parts and return the metrics that the claims name."""
    has_prior = run.has_data(PRIOR)
    outside = tuple(name for name in OUTSIDE if run.has_data(name)) if has_prior else ()
    writes = config.mixing.writer == "tiny" or has_prior
    corpora = [name for name in config.mixing.corpora if writes and (name == "docs" or run.has_data(name))]
    syntheses: dict[str, dict[str, Any]] = {name: synthesis_settings(config, name) for name in corpora}

    linear = Trial("linear model", 0, config.linear.model_dump(mode="json"), stage="theory")
    writing = [Trial(name, 0, settings, stage="synthesis") for name, settings in syntheses.items()]
    priors = prior_trials(config, outside, syntheses.get("docs")) if has_prior else []
    found = run.map(PARTS, [linear, *writing])
    found |= run.map(PARTS, [*priors, *mixing_trials(config, syntheses), *iteration_trials(config)])
    found |= run.map(PARTS, last_trials(config, has_prior, syntheses.get("docs")))

    metrics: dict[str, Any] = dict(linear_metrics(found[linear]))
    if has_prior:
        read = {name: value for trial in priors for name, value in found[trial]["corpora"].items()}
        metrics |= prior_metrics(read)
    metrics |= mixing_metrics(_of(found, "mixing")) | iteration_metrics(_of(found, "iteration"))
    for result in _of(found, "features").values():
        metrics |= features_metrics(result)
    metrics |= effect_metrics(_of(found, "effect"))
    return {name: Estimate.of(value) for name, value in metrics.items()}


PARTS = {
    "theory": linear_trial,
    "synthesis": synthesis_trial,
    "prior": prior_trial,
    "mixing": mixing_trial,
    "iteration": iteration_trial,
    "features": features_trial,
    "effect": effect_trial,
}


def synthesis_settings(config: ExperimentConfig, corpus: str) -> dict[str, Any]:
    """All that synthetic text depends on."""
    name = config.docs if corpus == "docs" else corpus
    return {"writer": config.mixing.writer, "corpus": name, "tiny": config.tiny.model_dump(mode="json")}


def prior_trials(
    config: ExperimentConfig, outside: tuple[str, ...], synthesis: Mapping[str, Any] | None
) -> list[Trial]:
    """SmolLM2 on the documentation, with text that is scored once, and on what is edited again and again."""
    once = ["docs", *(name for name in outside if name not in EDITED_AGAIN)]
    groups = {"docs": once, "outside": [name for name in outside if name in EDITED_AGAIN]}
    return [
        Trial(
            arm,
            0,
            {
                "corpora": {name: _part(config, name) for name in names},
                "sizes": config.prior.model_dump(mode="json"),
                "synthesis": synthesis if arm == "docs" else None,
            },
            stage="prior",
        )
        for arm, names in groups.items()
        if names
    ]


def _part(config: ExperimentConfig, corpus: str) -> dict[str, Any]:
    generations = config.prior.generations if corpus in EDITED_AGAIN else 1
    name = config.docs if corpus == "docs" else corpus
    return {"corpus": name, "split": SPLITS.get(corpus, "all"), "generations": generations}


def mixing_trials(config: ExperimentConfig, syntheses: Mapping[str, dict[str, Any]]) -> list[Trial]:
    """Every share with every seed, for each corpus."""
    return [
        Trial(f"{corpus}-{100 * share:.0f}", seed, settings | {"share": share, "of": corpus}, "mixing")
        for corpus, settings in syntheses.items()
        for share in config.mixing.shares
        for seed in config.mixing.seeds
    ]


def iteration_trials(config: ExperimentConfig) -> list[Trial]:
    """Every way to make the next generation's text, with every seed."""
    if config.iteration is None:
        return []
    settings = {
        "corpus": config.docs,
        "tiny": config.tiny.model_dump(mode="json"),
        "generations": config.iteration.generations,
    }
    return [
        Trial(arm, seed, settings, stage="iteration")
        for arm in iteration_study.ARMS
        for seed in config.iteration.seeds
    ]


def last_trials(
    config: ExperimentConfig, has_prior: bool, synthesis: Mapping[str, Any] | None
) -> list[Trial]:
    """The n-grams, and the training on edited text."""
    sizes = config.prior.model_dump(mode="json") if has_prior else None
    trials = [
        Trial("n-grams", 0, {"synthesis": synthesis, "edited": config.docs, "sizes": sizes}, "features")
    ]
    if config.effect is not None and has_prior:
        settings = {"edited": config.docs, "tiny": config.tiny.model_dump(mode="json"), "sizes": sizes}
        trials += [
            Trial(arm, seed, settings, stage="effect")
            for seed in config.effect.seeds
            for arm in effect_study.ARMS
        ]
    return trials


def _of(found: Mapping[Trial, dict[str, Any]], stage: str) -> dict[Trial, dict[str, Any]]:
    return {trial: result for trial, result in found.items() if trial.stage == stage}


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
