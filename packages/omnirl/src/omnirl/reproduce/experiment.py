"""The experiment: train on random worlds, then let the frozen model learn unseen ones inside its context.

Stages: the trainings (of the laptop scale: methods and pools of tasks too); then every evaluation, side by
side: the starts and controls of the main model, what it is compared with, the worlds themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from omnirl.reproduce import contexts, playing, ppo, training, worlds
from omnirl.reproduce.claims import CLAIMS
from omnirl.reproduce.contexts import contexts_trial
from omnirl.reproduce.figures import figures
from omnirl.reproduce.metrics import all_metrics
from omnirl.reproduce.playing import LAKES, LEARNERS, STARTS, TestsConfig, evaluation_trial, film_trial
from omnirl.reproduce.ppo import ppo_trial
from omnirl.reproduce.training import train_config, training_trial
from omnirl.reproduce.worlds import FAMILIES, worlds_trial
from tenfold import Estimate, Experiment, Run, Trial

METHODS: Mapping[str, dict[str, Any]] = {
    "dpd": {},
    "dpd_untagged": {"tag_mask": [1.0, 0.0]},
    "dpt": {"method": "dpt"},
    "ad": {"method": "ad"},
    "ad_eps": {"method": "ad_eps"},
}
"""How the data of each differ from those of the config's `methods`."""


class PPOConfig(BaseModel):
    """How long PPO trains, and on how many of the unseen tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: int = Field(gt=0)
    steps: tuple[int, ...] = Field(min_length=1)


class PoolsConfig(BaseModel):
    """The study of the number of training tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: dict[str, Any]
    sizes: tuple[int, int, int]


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values.

    A training is a table of `omnirl.TrainConfig`, without `out` and `seed`. What is left out is not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=1)
    training: dict[str, Any]
    tests: TestsConfig
    worlds: int = Field(gt=1, description="tasks of each family whose stationary distribution is looked at")
    context_steps: int = Field(gt=0, description="how far cross-entropy is followed")
    film_episodes: int = Field(gt=0, description="of FrozenLake in one run, for the animation")
    film_model: str | None = Field(
        default=None, description="who plays in it; by default the model of the run"
    )
    methods: dict[str, Any] | None = None
    pools: PoolsConfig | None = None
    star: dict[str, Any] | None = Field(default=None, description="the paper's layout, trained and reported")
    ppo: PPOConfig | None = None

    @field_validator("training", "methods", "star")
    @classmethod
    def _is_training(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            train_config(value, 0, "")  # raises a ValueError that names the key
        return value


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate]:
    """Do all parts and return the metrics that the claims name."""
    found = run.map(training_trial, main_trainings(config), jobs=1, threads=2)
    # Small trainings are done two at a time, with a thread each.
    found |= run.map(training_trial, side_trainings(config))
    found |= run.map(PARTS, evaluations(config))
    return {name: Estimate.of(value) for name, value in all_metrics(found).items()}


PARTS = {
    playing.STAGE: evaluation_trial,
    playing.FILM: film_trial,
    contexts.STAGE: contexts_trial,
    worlds.STAGE: worlds_trial,
    ppo.STAGE: ppo_trial,
}


def main_trainings(config: ExperimentConfig) -> list[Trial]:
    """The model that nearly all claims are about."""
    return [Trial("main", seed, config.training, stage=training.STAGE) for seed in config.seeds]


def side_trainings(config: ExperimentConfig) -> list[Trial]:
    """The paper's layout, the methods, the pools: with the first seed."""
    settings: dict[str, dict[str, Any]] = {}
    if config.star is not None:
        settings["star"] = config.star
    if config.methods is not None:
        settings |= {name: with_data(config.methods, **change) for name, change in METHODS.items()}
    if config.pools is not None:
        settings |= {
            f"pool_{size}": with_data(config.pools.training, tasks=size) for size in config.pools.sizes
        }
    return [Trial(name, config.seeds[0], table, stage=training.STAGE) for name, table in settings.items()]


def evaluations(config: ExperimentConfig) -> list[Trial]:
    """Everything after training, what takes longest first."""
    tests = {"tests": config.tests.model_dump(mode="json")}
    trials: list[Trial] = []
    if config.ppo is not None:
        settings = {**tests, **config.ppo.model_dump(mode="json")}
        trials += [Trial("ppo", config.seeds[0], settings, stage=ppo.STAGE)]
    plays = [*LAKES, *STARTS] + (["online_long"] if config.tests.long_steps else [])
    for source in main_trainings(config):
        model = {"model": source.arm, "training": source.settings}
        at = {**tests, **model, "seen": False, "steps": config.context_steps}
        trials.append(Trial("main", source.seed, at, stage=contexts.STAGE))
        who = model if config.film_model is None else {"film_model": config.film_model}
        film = {**tests, **who, "episodes": config.film_episodes}
        trials.append(Trial("lake", source.seed, film, stage=playing.FILM))
        trials += [
            Trial(name, source.seed, {**tests, **model, "play": name}, playing.STAGE) for name in plays
        ]
    for source in side_trainings(config):
        trials += _side_evaluations(source, tests)
    trials += [
        Trial(name, seed, {**tests, "play": name}, playing.STAGE)
        for seed in config.seeds
        for name in LEARNERS
    ]
    seed = config.tests.first_seed
    return trials + [
        Trial(family, config.seeds[0], {"tasks": config.worlds, "seed": seed}, worlds.STAGE)
        for family in FAMILIES
    ]


def _side_evaluations(source: Trial, tests: dict[str, Any]) -> list[Trial]:
    model = {**tests, "model": source.arm, "training": source.settings}
    if source.arm.startswith("pool_"):
        steps = train_config(source.settings, source.seed, "").context
        return [
            Trial(
                f"{source.arm}_{name}", source.seed, {**model, "seen": seen, "steps": steps}, contexts.STAGE
            )
            for name, seen in (("seen", True), ("unseen", False))
        ]
    noisy = "noisy_untagged" if source.arm == "dpd_untagged" else "noisy"
    return [
        Trial(f"{source.arm}_{name}", source.seed, {**model, "play": play}, playing.STAGE)
        for name, play in (
            ("online", "online"),
            ("noisy", noisy),
            ("imitation", "imitation"),
        )
    ]


def with_data(settings: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A training with other data. The mix of a method with its own is left out."""
    data = {**settings.get("data", {}), **changes}
    if data.get("method", "dpd") != "dpd":
        data.pop("mix", None)
    return {**settings, "data": data}


EXPERIMENT = Experiment(
    name="omnirl",
    title="OmniRL: in-context reinforcement learning meta-trained on randomised worlds",
    paper="Wang, Shao, Zhang, Yu, Liu, Ding, Cao, Kang, Wang: Towards Large-Scale In-Context Reinforcement "
    "Learning by Meta-Training in Randomized Worlds. NeurIPS 2025, arXiv 2502.02869",
    url="https://arxiv.org/abs/2502.02869",
    summary="Train a sequence model on random tabular worlds alone: does it, with frozen parameters, learn "
    "worlds that it has never seen, from what happens in its context?",
    config_model=ExperimentConfig,
    configs="omnirl.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
