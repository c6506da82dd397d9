"""The paper that the tests install, with NAME and PACKAGE filled in by conftest.py.

A chaotic recursion: the smallest difference in what a resumed trial starts from shows in its result.
"""

import json
import os
import time

from pydantic import BaseModel, ConfigDict, Field

from tenfold import AtLeast, Below, Claim, Equals, Estimate, Experiment, Trial
from tenfold.storage import write_atomically


class Growth(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rate: float = Field(gt=0, le=4)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(gt=0)
    seeds: tuple[int, ...] = (0, 1, 2)
    pause: float = 0.0
    raising: tuple[int, ...] = ()
    exiting: tuple[int, ...] = ()
    growth: Growth


def recursion(trial, context):
    settings = trial.settings
    checkpoint = context.checkpoint_dir / "state.json"
    state = (
        json.loads(checkpoint.read_text())
        if checkpoint.exists()
        else {"step": 0, "x": 0.1 + trial.seed / 100}
    )
    for step in range(state["step"], settings["steps"]):
        if step % 5 == 0:
            write_atomically(checkpoint, json.dumps({"step": step, "x": state["x"]}))
        state["x"] = settings["rate"] * state["x"] * (1 - state["x"])
        context.log(step, x=state["x"])
        context.progress(step + 1, settings["steps"])
        time.sleep(settings["pause"])
    print("a library says hello")
    if trial.seed in settings["raising"]:
        raise ValueError(f"seed {trial.seed} is unlucky")
    if trial.seed in settings["exiting"]:
        os._exit(7)
    return {"x": state["x"], "threads": os.environ["OMP_NUM_THREADS"], "process": os.getpid()}


def run(config, run):
    settings = {
        "steps": config.steps,
        "pause": config.pause,
        "raising": config.raising,
        "exiting": config.exiting,
    }
    trials = [
        Trial(arm, seed, settings | {"rate": rate})
        for arm, rate in (("slow", 2.5), ("fast", config.growth.rate))
        for seed in config.seeds
    ]
    results = run.map(recursion, trials)
    metrics = {a: Estimate.of(results[t]["x"] for t in trials if t.arm == a) for a in ("slow", "fast")}
    return metrics | {"trials": len(trials)}


CLAIMS = [
    Claim("C1", "Slow growth settles at 1 - 1/r.", "section 1", "slow", Equals(0.6, tolerance=0.05)),
    Claim("C2", "Fast growth stays below slow.", "section 2", "fast", Below("slow", every_seed=True)),
    Claim("C3", "There are many trials.", "table 1", "trials", AtLeast(), paper_value=1000),
    Claim("C4", "It scales.", "figure 2", "slow", AtLeast(0), scales=("paper",)),
]

EXPERIMENT = Experiment(
    name="NAME",
    title="Growth",
    paper="May, Nature 261, 1976",
    url="https://doi.org/10.1038/261459a0",
    config_model=Config,
    configs="PACKAGE",
    run=run,
    claims=CLAIMS,
)
