"""Data of in-context reinforcement learning: behaviour policies, synthesis, sequences, files. numpy only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnirl.data.sequences import Dataset, pack_episodes, split_episodes

_HOME = {
    "Dataset": "sequences",
    "pack_episodes": "sequences",
    "split_episodes": "sequences",
}

__all__ = ["Dataset", "pack_episodes", "split_episodes"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnirl.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"omnirl.data.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
