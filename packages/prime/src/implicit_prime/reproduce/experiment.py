"""The PRIME experiment: one fitted policy a seed, trained on with process rewards and without.

Stages: the policies; every arm with every seed; some steps of PRIME once more. On longer chains and on
GSM8K's calculations, PRIME and outcomes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from implicit_prime.reproduce.arm_study import Arm, StudyConfig, arm_trial
from implicit_prime.reproduce.claims import CLAIMS
from implicit_prime.reproduce.figures import figures
from implicit_prime.reproduce.metrics import GSM8K, LONGER, MAIN, OUTCOMES, all_metrics, metrics_on
from implicit_prm.reproduce.claims import PROBLEMS
from implicit_prm.reproduce.generation import generation_trial
from tenfold import Estimate, Experiment, Run, Trial
from tenfold.trials import by_arm

POLICY = "policy"


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=1)
    study: StudyConfig
    arms: tuple[Arm, ...]
    repeat_steps: int = Field(gt=0)
    longer_steps: int | None = Field(default=None, gt=0, description="of chains that are right less often")
    gsm8k: StudyConfig | None = None

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
    others = other_tasks(config)
    if GSM8K in others and not run.has_data(PROBLEMS):
        del others[GSM8K]
    fitted = run.map(generation_trial, policies(config, others))
    found = run.map(arm_trial, trials(config, others))
    metrics: dict[str, Any] = dict(all_metrics(by_arm(found, "training"), by_arm(found, "repeat")[MAIN]))
    for name in others:
        metrics |= metrics_on(by_arm(found, name), name)
    metrics["pass1"] = [result["pass1"]["1"] for trial, result in fitted.items() if trial.arm == POLICY]
    return {name: Estimate.of(value) for name, value in metrics.items()}


def other_tasks(config: ExperimentConfig) -> dict[str, StudyConfig]:
    """What else PRIME is compared with outcomes alone on, by name: all as in the main task but the task."""
    found = {}
    if config.longer_steps is not None:
        chain, steps = config.study.chain, config.longer_steps
        room = max(chain.generator.max_position_embeddings, 2 * steps + 16)
        longer = chain.model_copy(
            update={
                "steps": steps,
                "max_tokens": steps + 2,
                "generator": replace(chain.generator, max_position_embeddings=room),
            }
        )
        found[LONGER] = config.study.model_copy(update={"chain": longer})
    if config.gsm8k is not None:
        found[GSM8K] = config.gsm8k
    return found


def policies(config: ExperimentConfig, others: Mapping[str, StudyConfig]) -> list[Trial]:
    """The fitted policy of every task and seed."""
    chains = {POLICY: config.study.chain} | {
        f"{POLICY}-{name}": study.chain for name, study in others.items()
    }
    return [
        Trial(name, seed, chain.model_dump(mode="json"), stage="generation")
        for name, chain in chains.items()
        for seed in config.seeds
    ]


def trials(config: ExperimentConfig, others: Mapping[str, StudyConfig]) -> list[Trial]:
    """PRIME and outcomes alone on other tasks, the longest; every arm, seed by seed; some of PRIME again."""
    found = [
        Trial(arm.name, seed, _settings(study, arm), stage=name)
        for name, study in others.items()
        for seed in config.seeds
        for arm in config.arms
        if arm.name in (MAIN, OUTCOMES)
    ]
    found += [
        Trial(arm.name, seed, _settings(config.study, arm), stage="training")
        for seed in config.seeds
        for arm in config.arms
    ]
    main = next(arm for arm in config.arms if arm.name == MAIN)
    short = main.model_copy(update={"training": main.training | {"max_steps": config.repeat_steps}})
    return [*found, Trial(MAIN, config.seeds[0], _settings(config.study, short), stage="repeat")]


def _settings(study: StudyConfig, arm: Arm) -> dict[str, Any]:
    return {"study": study.model_dump(mode="json"), "arm": arm.model_dump(mode="json")}


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
