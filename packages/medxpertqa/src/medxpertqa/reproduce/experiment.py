"""The experiment: random quadratics of one condition number, descended with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from medxpertqa.reproduce.claims import CLAIMS
from medxpertqa.reproduce.descent import descend, gradient_descent, heavy_ball
from medxpertqa.reproduce.figures import figures
from tenfold import Estimate, Experiment, Run, Trial, TrialContext

ARMS = {"gradient_descent": gradient_descent, "heavy_ball": heavy_ball}


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=3)
    dimension: int = Field(ge=2)
    condition_number: float = Field(gt=1)
    steps: int = Field(gt=0)
    tolerance: float = Field(gt=0, lt=1)


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Return, for each arm, the steps to the tolerance and the contraction a step; a sample a seed."""
    settings = config.model_dump(mode="json", exclude={"seeds"})
    trials = [Trial(arm, seed, settings) for arm in ARMS for seed in config.seeds]
    results = run.map(descend_one, trials)
    return {
        f"{key}_{arm}": Estimate.of([results[trial][key] for trial in trials if trial.arm == arm])
        for arm in ARMS
        for key in ("steps", "contraction")
    }


def descend_one(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Descend one random quadratic and measure; the same quadratic for every arm of a seed."""
    settings, random = trial.settings, np.random.default_rng(trial.seed)
    inner = random.uniform(1.0, settings["condition_number"], settings["dimension"] - 2)
    curvature = np.array([1.0, *inner, settings["condition_number"]])
    start = random.standard_normal(settings["dimension"])
    steps = ARMS[trial.arm](1.0, settings["condition_number"])
    path = descend(lambda x: curvature * x, start, steps, count=settings["steps"])
    error = np.linalg.norm(path, axis=1) / np.linalg.norm(start)
    for step in range(0, settings["steps"] + 1, 25):
        context.log(step, error=error[step])
    reached = np.flatnonzero(error <= settings["tolerance"])
    if not reached.size:
        raise ValueError(f"{trial} did not reach {settings['tolerance']} in {settings['steps']} steps")
    # The first half is left out: the slowest direction has to win before the rate can be seen.
    last = int(reached[0])
    contraction = (error[last] / error[last // 2]) ** (1 / (last - last // 2))
    return {"steps": last, "contraction": contraction}


EXPERIMENT = Experiment(
    name="medxpertqa",
    title="MedXpertQA: expert-level medical questions, evaluated and built",
    paper="Polyak: Some methods of speeding up the convergence of iteration methods. 1964",
    url="https://doi.org/10.1016/0041-5553(64)90137-5",
    config_model=ExperimentConfig,
    configs="medxpertqa.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
