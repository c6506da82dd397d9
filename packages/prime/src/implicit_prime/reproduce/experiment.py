"""The PRIME experiment: one fitted policy a seed, trained on with process rewards and without.

Stages: the policies; every arm with every seed; some steps of PRIME once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from implicit_prime.reproduce.arm_study import Arm, StudyConfig, arm_trial
from implicit_prime.reproduce.claims import CLAIMS
from implicit_prime.reproduce.figures import figures
from implicit_prime.reproduce.metrics import MAIN, OUTCOMES, all_metrics, by_arm
from implicit_prm.reproduce.generation import generation_trial
from tenfold import Estimate, Experiment, Run, Trial


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=1)
    study: StudyConfig
    arms: tuple[Arm, ...]
    repeat_steps: int = Field(gt=0)

    @model_validator(mode="after")
    def _arms_can_be(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names) or not {MAIN, OUTCOMES} <= set(names):
            raise ValueError(f"the arms are {names}; each once, and {MAIN} and {OUTCOMES} among them")
        for arm in self.arms:
            self.study.settings(arm)
        return self


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Train every arm with every seed and return the metrics that the claims name."""
    chain = config.study.chain.model_dump(mode="json")
    fitted = run.map(
        generation_trial, [Trial("policy", seed, chain, stage="generation") for seed in config.seeds]
    )
    found = run.map(arm_trial, trials(config))
    metrics: dict[str, Any] = dict(all_metrics(by_arm(found, "training"), by_arm(found, "repeat")[MAIN]))
    metrics["pass1"] = [result["pass1"]["1"] for result in fitted.values()]
    return {name: Estimate.of(value) for name, value in metrics.items()}


def trials(config: ExperimentConfig) -> list[Trial]:
    """Every arm with every seed, seed by seed; and the first seed's PRIME again, in short."""
    found = [
        Trial(arm.name, seed, _settings(config, arm), stage="training")
        for seed in config.seeds
        for arm in config.arms
    ]
    main = next(arm for arm in config.arms if arm.name == MAIN)
    short = main.model_copy(update={"training": main.training | {"max_steps": config.repeat_steps}})
    return [*found, Trial(MAIN, config.seeds[0], _settings(config, short), stage="repeat")]


def _settings(config: ExperimentConfig, arm: Arm) -> dict[str, Any]:
    return {"study": config.study.model_dump(mode="json"), "arm": arm.model_dump(mode="json")}


EXPERIMENT = Experiment(
    name="prime",
    title="PRIME: process reinforcement through implicit rewards",
    paper="Cui, Yuan, Wang, Wang, Zhang, Chen, Li, He, et al.: Process Reinforcement through Implicit "
    "Rewards. arXiv 2502.01456",
    url="https://arxiv.org/abs/2502.01456",
    summary="Reinforcement learning with rewards of every token, from a reward model that learns online from "
    "outcomes alone: does it learn, and does the policy learn more from as many responses?",
    config_model=ExperimentConfig,
    configs="implicit_prime.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
