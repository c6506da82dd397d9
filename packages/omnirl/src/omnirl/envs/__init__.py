"""Environments for Gymnasium, PettingZoo and Stable-Baselines3; each module is imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnirl.envs.single import AnyMDPEnv
    from omnirl.envs.vector import AnyMDPVectorEnv

__all__ = [
    "AnyMDPEnv",
    "AnyMDPVectorEnv",
]

_HOME = {
    "AnyMDPEnv": "single",
    "AnyMDPVectorEnv": "vector",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnirl.envs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"omnirl.envs.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
