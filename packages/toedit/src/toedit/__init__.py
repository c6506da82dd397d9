"""ToEdit: edit the tokens of a corpus that a language model finds too easy.

Importing the package is light; what needs torch or transformers is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toedit.config import EditConfig
from toedit.errors import ToEditError, ToEditWarning

if TYPE_CHECKING:
    from toedit import analysis, theory
    from toedit.documents import Document, EditFailure, EditResult
    from toedit.editing import Scores, edit_scores, swap_probabilities
    from toedit.editor import Editor, score
    from toedit.iteration import generations
    from toedit.mixing import mix
    from toedit.splicing import Edit
    from toedit.statistics import EditStats
    from toedit.tensors import edit_tokens

__all__ = [
    "Document",
    "Edit",
    "EditConfig",
    "EditFailure",
    "EditResult",
    "EditStats",
    "Editor",
    "Scores",
    "ToEditError",
    "ToEditWarning",
    "analysis",
    "edit_scores",
    "edit_tokens",
    "generations",
    "mix",
    "score",
    "swap_probabilities",
    "theory",
]

_HOME = {
    "Document": "documents",
    "Edit": "splicing",
    "EditFailure": "documents",
    "EditResult": "documents",
    "EditStats": "statistics",
    "Editor": "editor",
    "Scores": "editing",
    "edit_scores": "editing",
    "edit_tokens": "tensors",
    "generations": "iteration",
    "mix": "mixing",
    "score": "editor",
    "swap_probabilities": "editing",
}
_SUBMODULES = ("analysis", "theory")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"toedit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'toedit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"toedit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
