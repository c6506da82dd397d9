"""Implicit process reward models: train on response labels, get a reward for every step and token.

Importing the package is light; what needs torch or transformers is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning, TokenizerMismatchError

if TYPE_CHECKING:
    from implicit_prm import functional
    from implicit_prm.aggregation import aggregate, aggregate_all
    from implicit_prm.answers import extract_answer, grade, group_answers, same_answer
    from implicit_prm.backends.base import LogProbBackend
    from implicit_prm.frames import to_frame
    from implicit_prm.functional import ImplicitRewards
    from implicit_prm.model import ImplicitPRM
    from implicit_prm.responses import ScoredResponse
    from implicit_prm.selection import (
        BonRow,
        best_of_n,
        best_of_n_accuracy,
        bon_table,
        expected_best_of_n,
        vote_accuracy,
    )
    from implicit_prm.voting import majority_vote, weighted_vote

__all__ = [
    "BonRow",
    "ImplicitPRM",
    "ImplicitPRMError",
    "ImplicitPRMWarning",
    "ImplicitRewards",
    "LogProbBackend",
    "ScoredResponse",
    "TokenizerMismatchError",
    "aggregate",
    "aggregate_all",
    "best_of_n",
    "best_of_n_accuracy",
    "bon_table",
    "expected_best_of_n",
    "extract_answer",
    "functional",
    "grade",
    "group_answers",
    "majority_vote",
    "same_answer",
    "to_frame",
    "vote_accuracy",
    "weighted_vote",
]

# Public name -> the module it lives in: one line a name.
_HOME = {
    "BonRow": "selection",
    "ImplicitPRM": "model",
    "ImplicitRewards": "functional",
    "LogProbBackend": "backends.base",
    "ScoredResponse": "responses",
    "aggregate": "aggregation",
    "aggregate_all": "aggregation",
    "best_of_n": "selection",
    "best_of_n_accuracy": "selection",
    "bon_table": "selection",
    "expected_best_of_n": "selection",
    "extract_answer": "answers",
    "grade": "answers",
    "group_answers": "answers",
    "majority_vote": "voting",
    "same_answer": "answers",
    "to_frame": "frames",
    "vote_accuracy": "selection",
    "weighted_vote": "voting",
}
_SUBMODULES = ("functional",)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"implicit_prm.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'implicit_prm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"implicit_prm.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
