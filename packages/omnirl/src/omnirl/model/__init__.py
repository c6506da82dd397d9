"""The meta-trained model: a causal trunk over an agent's whole history, with a policy head (section 2.5)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnirl.model.memory import fork, join, select_rows

__all__ = ["fork", "join", "select_rows"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'omnirl.model' has no attribute {name!r}")
    return getattr(importlib.import_module("omnirl.model.memory"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
