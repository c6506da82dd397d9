"""The implicit PRM experiment: generators, reward models trained on labels of responses, who chooses better.

Stages: the generators; then the reward models of every arm, Math-Shepherd, and the study of real solutions.
Parts that a scale leaves out, and those whose data are not to be had, are not run, and their claims are not
tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from implicit_prm.reproduce.claims import CLAIMS, PRIOR, PROBLEMS, SOLUTIONS
from implicit_prm.reproduce.figures import figures
from implicit_prm.reproduce.generation import ChainConfig, generation_trial
from implicit_prm.reproduce.metrics import arm_metrics, chain_metrics, overoptimization_metrics
from implicit_prm.reproduce.prm_study import MAIN, UNTRAINED, Arm, RewardConfig, reward_trial
from implicit_prm.reproduce.real_responses import RealConfig, real_metrics, real_trial
from implicit_prm.reproduce.shepherd_study import ShepherdConfig, shepherd_metrics, shepherd_trial
from tenfold import Estimate, Experiment, Run, Trial
from tenfold.trials import by_arm


class ChainStudy(BaseModel):
    """A task with its generator, and the reward models that are trained for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: ChainConfig
    reward: RewardConfig
    arms: tuple[Arm, ...] = Field(min_length=1)


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=1)
    modchain: ChainStudy
    gsm8k: ChainStudy | None = None
    shepherd: ShepherdConfig | None = None
    real: RealConfig | None = None


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Do all parts and return the metrics that the claims name."""
    studies = {"modchain": config.modchain}
    if config.gsm8k is not None and run.has_data(PROBLEMS):
        studies["gsm8k"] = config.gsm8k
    real = config.real if config.real is not None and _has(run, PRIOR, SOLUTIONS) else None

    found = run.map(
        PARTS,
        [
            Trial(name, seed, study.chain.model_dump(mode="json"), stage="generation")
            for name, study in studies.items()
            for seed in config.seeds
        ],
    )
    # The longest first, so that none is left to run alone.
    rest = [] if real is None else [Trial("smollm2", 0, real.model_dump(mode="json"), stage="real")]
    rest += shepherd_trials(config)
    rest += [trial for name, study in studies.items() for trial in reward_trials(config, name, study)]
    found |= run.map(PARTS, rest)

    chains = by_arm(found, "modchain")
    metrics: dict[str, Any] = chain_metrics(chains, MAIN) | arm_metrics(chains)
    metrics |= overoptimization_metrics(chains, MAIN)
    if "gsm8k" in studies:
        metrics |= chain_metrics(by_arm(found, "gsm8k"), studies["gsm8k"].arms[0].name, "gsm8k_")
    metrics |= shepherd_metrics(by_arm(found, "shepherd"), chains[MAIN])
    metrics |= real_metrics(by_arm(found, "real"))
    return {name: Estimate.of(value) for name, value in metrics.items()}


PARTS = {
    "generation": generation_trial,
    "modchain": reward_trial,
    "gsm8k": reward_trial,
    "shepherd": shepherd_trial,
    "real": real_trial,
}


def reward_trials(config: ExperimentConfig, name: str, study: ChainStudy) -> list[Trial]:
    """Every arm with its seeds, the longest first; and the generator's own likelihood with all seeds."""
    settings = {"chain": study.chain.model_dump(mode="json"), "reward": study.reward.model_dump(mode="json")}
    arms = sorted(study.arms, key=lambda arm: -arm.prompts * arm.responses * arm.epochs)
    trials = [
        Trial(arm.name, seed, settings | {"arm": arm.model_dump(mode="json")}, stage=name)
        for arm in arms
        for seed in (config.seeds if arm.every_seed else config.seeds[:1])
    ]
    return trials + [Trial(UNTRAINED, seed, settings, stage=name) for seed in config.seeds]


def shepherd_trials(config: ExperimentConfig) -> list[Trial]:
    """Math-Shepherd with every seed, on the responses of the main arm."""
    if config.shepherd is None:
        return []
    settings = {
        "chain": config.modchain.chain.model_dump(mode="json"),
        "reward": config.modchain.reward.model_dump(mode="json"),
        "shepherd": config.shepherd.model_dump(mode="json"),
    }
    return [Trial("math-shepherd", seed, settings, stage="shepherd") for seed in config.seeds]


def _has(run: Run, *names: str) -> bool:
    return all(map(run.has_data, names))


EXPERIMENT = Experiment(
    name="implicit-prm",
    title="Implicit PRM: free process rewards without process labels",
    paper="Yuan, Li, Chen, Cui, Ding, Zhang, Zhou, Liu, Peng: Free Process Rewards without Process Labels. "
    "ICML 2025, arXiv 2412.01981",
    url="https://arxiv.org/abs/2412.01981",
    summary="Train on labels of whole responses, with the reward as a log-ratio of two language models: do "
    "the rewards of single steps come for free, and do they choose better responses?",
    config_model=ExperimentConfig,
    configs="implicit_prm.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
