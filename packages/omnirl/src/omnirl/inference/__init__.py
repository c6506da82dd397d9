"""A model at work: the agent that learns in its context, and the demonstrations that it may begin with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnirl.inference.agent import ICRLAgent
    from omnirl.inference.animation import animate_lake
    from omnirl.inference.demonstrations import Demonstrations
    from omnirl.inference.live import Episode, play
    from omnirl.inference.temperature import TemperatureSchedule

__all__ = ["Demonstrations", "Episode", "ICRLAgent", "TemperatureSchedule", "animate_lake", "play"]

_HOME = {
    "Demonstrations": "demonstrations",
    "Episode": "live",
    "ICRLAgent": "agent",
    "TemperatureSchedule": "temperature",
    "animate_lake": "animation",
    "play": "live",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnirl.inference' has no attribute {name!r}")
    return getattr(importlib.import_module(f"omnirl.inference.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
