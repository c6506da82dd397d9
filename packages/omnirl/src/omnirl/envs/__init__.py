"""Environments for Gymnasium, PettingZoo and Stable-Baselines3; each module is imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnirl.envs.darkroom import DarkRoomEnv, DarkRoomVectorEnv, darkroom_task
    from omnirl.envs.grids import ActionLevels, Grid, GridObservation, discretize
    from omnirl.envs.partial import PartiallyObserved
    from omnirl.envs.sb3 import SB3VecEnv
    from omnirl.envs.shaping import RawStep, ScaledShaping, ShapedReward, Shaping, named_shaping
    from omnirl.envs.single import AnyMDPEnv
    from omnirl.envs.switch2 import Switch2, switch2_observation, switch2_task
    from omnirl.envs.vector import AnyMDPVectorEnv

__all__ = [
    "ActionLevels",
    "AnyMDPEnv",
    "AnyMDPVectorEnv",
    "DarkRoomEnv",
    "DarkRoomVectorEnv",
    "Grid",
    "GridObservation",
    "PartiallyObserved",
    "RawStep",
    "SB3VecEnv",
    "ScaledShaping",
    "ShapedReward",
    "Shaping",
    "Switch2",
    "darkroom_task",
    "discretize",
    "named_shaping",
    "switch2_observation",
    "switch2_task",
]

_HOME = {
    "ActionLevels": "grids",
    "AnyMDPEnv": "single",
    "AnyMDPVectorEnv": "vector",
    "DarkRoomEnv": "darkroom",
    "DarkRoomVectorEnv": "darkroom",
    "Grid": "grids",
    "GridObservation": "grids",
    "PartiallyObserved": "partial",
    "RawStep": "shaping",
    "SB3VecEnv": "sb3",
    "ScaledShaping": "shaping",
    "ShapedReward": "shaping",
    "Shaping": "shaping",
    "Switch2": "switch2",
    "darkroom_task": "darkroom",
    "discretize": "grids",
    "named_shaping": "shaping",
    "switch2_observation": "switch2",
    "switch2_task": "switch2",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnirl.envs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"omnirl.envs.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
