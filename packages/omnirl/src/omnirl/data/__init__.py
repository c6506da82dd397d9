"""Data of in-context reinforcement learning: behaviour policies, synthesis, sequences, files. numpy only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnirl.data.airsoul import read_airsoul, write_airsoul
    from omnirl.data.dataset_stream import DatasetStream
    from omnirl.data.executors import RayExecutor
    from omnirl.data.minari import from_minari, to_minari
    from omnirl.data.mixtures import METHODS, MIXES, Behaviour
    from omnirl.data.sequences import TAGS, Dataset, pack_episodes, split_episodes
    from omnirl.data.shards import load_dataset, save_dataset
    from omnirl.data.stream import TaskStream
    from omnirl.data.synthesis import synthesize
    from omnirl.data.worlds import Worlds, soft_labels
    from omnirl.tasks.xenoverse import load_xenoverse_tasks, read_xenoverse

_HOME = {
    "Behaviour": "omnirl.data.mixtures",
    "Dataset": "omnirl.data.sequences",
    "DatasetStream": "omnirl.data.dataset_stream",
    "METHODS": "omnirl.data.mixtures",
    "MIXES": "omnirl.data.mixtures",
    "RayExecutor": "omnirl.data.executors",
    "TAGS": "omnirl.data.sequences",
    "TaskStream": "omnirl.data.stream",
    "Worlds": "omnirl.data.worlds",
    "from_minari": "omnirl.data.minari",
    "load_dataset": "omnirl.data.shards",
    "load_xenoverse_tasks": "omnirl.tasks.xenoverse",
    "pack_episodes": "omnirl.data.sequences",
    "read_airsoul": "omnirl.data.airsoul",
    "read_xenoverse": "omnirl.tasks.xenoverse",
    "save_dataset": "omnirl.data.shards",
    "soft_labels": "omnirl.data.worlds",
    "split_episodes": "omnirl.data.sequences",
    "synthesize": "omnirl.data.synthesis",
    "to_minari": "omnirl.data.minari",
    "write_airsoul": "omnirl.data.airsoul",
}

__all__ = [
    "METHODS",
    "MIXES",
    "TAGS",
    "Behaviour",
    "Dataset",
    "DatasetStream",
    "RayExecutor",
    "TaskStream",
    "Worlds",
    "from_minari",
    "load_dataset",
    "load_xenoverse_tasks",
    "pack_episodes",
    "read_airsoul",
    "read_xenoverse",
    "save_dataset",
    "soft_labels",
    "split_episodes",
    "synthesize",
    "to_minari",
    "write_airsoul",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnirl.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
