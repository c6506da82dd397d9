"""ToEdit: edit the tokens of a corpus that a language model finds too easy.

Importing the package is light; what needs torch or transformers is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toedit.config import EditConfig
from toedit.errors import ToEditError, ToEditWarning

if TYPE_CHECKING:
    from toedit.editing import Scores, edit_scores, swap_probabilities
    from toedit.statistics import EditStats
    from toedit.tensors import edit_tokens

__all__ = [
    "EditConfig",
    "EditStats",
    "Scores",
    "ToEditError",
    "ToEditWarning",
    "edit_scores",
    "edit_tokens",
    "swap_probabilities",
]

_HOME = {
    "EditStats": "statistics",
    "Scores": "editing",
    "edit_scores": "editing",
    "edit_tokens": "tensors",
    "swap_probabilities": "editing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'toedit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"toedit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
