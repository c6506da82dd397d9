"""The trainings of the experiment: each leaves its model in the run's folder, where evaluations find it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from omnirl.data.stream import TaskStream
from omnirl.model.modeling import OmniRL
from omnirl.tasks.batch import TaskBatch
from omnirl.training.config import TrainConfig
from omnirl.training.loop import Progress, train
from tenfold import Trial, TrialContext

STAGE = "training"
_TASKS = "tasks.txt"


def training_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train as `settings` say (a `TrainConfig`); a killed trial goes on from its last checkpoint."""
    config = train_config(trial.settings, trial.seed, context.checkpoint_dir / "run")
    stream = TaskStream(
        **{"seed": trial.seed, **config.data},
        steps=config.length,
        longest=config.context,
        batch_size=config.batch_size,
    )

    def report(progress: Progress) -> None:
        context.progress(progress.update, config.updates)
        if progress.update % config.log_every == 0 or progress.update == config.updates:
            context.log(progress.update, loss=progress.terms[0], steps=progress.steps)

    result = train(config, stream, on_update=report)
    _keep(result.folder / "model", model_folder(trial, context), stream.pool)
    return {
        "parameters": result.model.num_parameters(),
        "steps": result.steps,
        "updates": result.updates,
        "skipped_updates": result.skipped,
    }


def train_config(settings: Mapping[str, Any], seed: int, out: str | Path) -> TrainConfig:
    """The training config of a trial's settings."""
    return TrainConfig.from_dict({**settings, "seed": seed, "out": str(out)})


def model_folder(trial: Trial, context: TrialContext) -> Path:
    """Where the model of a training trial is kept, for any trial of the same run."""
    return context.checkpoint_dir.parents[1] / "models" / trial.folder_name


def load_model(trial: Trial, context: TrialContext) -> OmniRL:
    """The model that the training trial has left."""
    return OmniRL.from_pretrained(model_folder(trial, context))


def changed_parameters(model: OmniRL, trial: Trial, context: TrialContext) -> int:
    """How many tensors of `model` differ in any bit from the ones that training has left."""
    kept = load_file(model_folder(trial, context) / "model.safetensors")
    state = model.state_dict()
    return sum(kept[name].numpy().tobytes() != state[name].cpu().numpy().tobytes() for name in kept | state)


def trained_on(trial: Trial, context: TrialContext) -> set[str]:
    """The hashes of the tasks that the training trial has drawn from; none where it had no pool."""
    return set((model_folder(trial, context) / _TASKS).read_text().split())


def task_hashes(tasks: TaskBatch) -> list[str]:
    """For each task 16 hexadecimal digits that depend on its transitions and rewards."""
    tables = (
        np.ascontiguousarray(tasks.transition),
        np.ascontiguousarray(tasks.reward),
        np.ascontiguousarray(tasks.reward_noise),
    )
    return [
        hashlib.sha256(b"".join(table[i].tobytes() for table in tables)).hexdigest()[:16]
        for i in range(len(tasks))
    ]


def _keep(model: Path, folder: Path, pool: TaskBatch | None) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(model, partial)
    hashes = [] if pool is None else task_hashes(pool)
    (partial / _TASKS).write_text("".join(f"{digest}\n" for digest in hashes))
    partial.rename(folder)
