"""What a context is worth to a model on data of behaviour policies: cross-entropy by position (Fig. 7)."""

from __future__ import annotations

from typing import Any

from omnirl.data.stream import TaskStream
from omnirl.data.synthesis import synthesize
from omnirl.evaluation.context import context_curves
from omnirl.reproduce.playing import TestsConfig, training_of, unseen_tasks
from omnirl.reproduce.training import load_model, train_config
from omnirl.tasks.batch import TaskBatch
from tenfold import Trial, TrialContext

STAGE = "contexts"
WINDOW = 16


def contexts_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Cross-entropy and gain d = 1 - L_t / L_0 in windows of 16 positions, on unseen or on training tasks."""
    tests = TestsConfig(**trial.settings["tests"])
    seed = tests.first_seed + trial.seed
    source = training_of(trial)
    config = train_config(source.settings, source.seed, "")
    if trial.settings["seen"]:
        tasks = _pool({"seed": source.seed, **config.data})
    else:
        tasks = unseen_tasks(tests.tasks, seed)
    mix = {key: config.data[key] for key in ("mix", "tag_mask") if key in config.data}
    data = synthesize(tasks, trial.settings["steps"], num_sequences=tests.tasks, seed=seed, **mix)
    found = context_curves(load_model(source, context).to(config.device), data)
    loss = found.cross_entropy[: len(found.cross_entropy) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1)
    return {"window": WINDOW, "cross_entropy": loss.tolist(), "gain": found.gain(WINDOW).tolist()}


def _pool(data: dict[str, Any]) -> TaskBatch:
    pool = TaskStream(**data, steps=1, batch_size=1).pool
    assert pool is not None
    return pool
