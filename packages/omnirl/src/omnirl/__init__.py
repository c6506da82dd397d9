"""OmniRL: in-context reinforcement learning, meta-trained on randomised worlds.

Three layers, useful alone: tasks (numpy), data (numpy), learner (torch, imported when first used).
Importing the package makes its environments known to Gymnasium: omnirl/AnyMDP-v0 and others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from omnirl.envs.registration import register_environments
from omnirl.errors import MissingExtraError, OmniRLError, OmniRLWarning, SamplingError, TrainingError

if TYPE_CHECKING:
    from omnirl.data.sequences import Dataset, pack_episodes
    from omnirl.data.stream import TaskStream
    from omnirl.data.synthesis import synthesize
    from omnirl.evaluation.context import ContextCurves, context_curves
    from omnirl.evaluation.protocol import evaluate, evaluate_steps
    from omnirl.evaluation.results import EvalResult, StepResult
    from omnirl.inference.agent import ICRLAgent
    from omnirl.model.config import OmniRLConfig
    from omnirl.model.modeling import OmniRL, OmniRLOutput
    from omnirl.tasks.batch import TaskBatch
    from omnirl.tasks.sampling import sample_tasks
    from omnirl.tasks.solver import policy_value, solve
    from omnirl.tasks.task import Task
    from omnirl.training.config import TrainConfig
    from omnirl.training.loop import TrainResult, train

__all__ = [
    "ContextCurves",
    "Dataset",
    "EvalResult",
    "ICRLAgent",
    "MissingExtraError",
    "OmniRL",
    "OmniRLConfig",
    "OmniRLError",
    "OmniRLOutput",
    "OmniRLWarning",
    "SamplingError",
    "StepResult",
    "Task",
    "TaskBatch",
    "TaskStream",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "context_curves",
    "evaluate",
    "evaluate_steps",
    "pack_episodes",
    "policy_value",
    "sample_tasks",
    "solve",
    "synthesize",
    "train",
]

_HOME = {
    "Dataset": "data.sequences",
    "TaskStream": "data.stream",
    "pack_episodes": "data.sequences",
    "synthesize": "data.synthesis",
    "TrainConfig": "training.config",
    "TrainResult": "training.loop",
    "train": "training.loop",
    "ContextCurves": "evaluation.context",
    "context_curves": "evaluation.context",
    "EvalResult": "evaluation.results",
    "StepResult": "evaluation.results",
    "evaluate": "evaluation.protocol",
    "evaluate_steps": "evaluation.protocol",
    "ICRLAgent": "inference.agent",
    "OmniRL": "model.modeling",
    "OmniRLConfig": "model.config",
    "OmniRLOutput": "model.modeling",
    "Task": "tasks.task",
    "TaskBatch": "tasks.batch",
    "policy_value": "tasks.solver",
    "sample_tasks": "tasks.sampling",
    "solve": "tasks.solver",
}
_LEARNER = ("torch", "safetensors", "huggingface_hub")
"""What the learner's extra brings."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnirl' has no attribute {name!r}")
    try:
        home = importlib.import_module(f"omnirl.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _LEARNER:
            raise
        raise MissingExtraError(f"{name} needs {error.name}: pip install 'omnirl-icrl[train]'") from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_environments()
