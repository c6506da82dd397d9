"""PROTEUS: from a proteomics table to hypotheses in which every number is checked.

Importing the package is light; what needs an optional library is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from proteus_omics import errors
from proteus_omics.errors import MissingExtraError, ProteusError, ProteusWarning

if TYPE_CHECKING:
    from proteus_omics import pl, stats, tl
    from proteus_omics.api import Run, resume, run
    from proteus_omics.auditing import audit
    from proteus_omics.checking import compare, validate, verify
    from proteus_omics.design import Design
    from proteus_omics.hypotheses import guard
    from proteus_omics.hypotheses.llm_judge import LLMJudge
    from proteus_omics.hypotheses.reviews import agreement
    from proteus_omics.io import read
    from proteus_omics.knowledge import Knowledge
    from proteus_omics.models import Budget, Hypothesis
    from proteus_omics.planner.llm import LLMPlanner
    from proteus_omics.planner.rules import RulesPlanner
    from proteus_omics.profiling import profile_dataset
    from proteus_omics.sessions import Session
    from proteus_omics.tools.registry import tool

__all__ = [
    "Budget",
    "Design",
    "Hypothesis",
    "Knowledge",
    "LLMJudge",
    "LLMPlanner",
    "MissingExtraError",
    "ProteusError",
    "ProteusWarning",
    "RulesPlanner",
    "Run",
    "Session",
    "agreement",
    "audit",
    "compare",
    "errors",
    "guard",
    "pl",
    "profile_dataset",
    "read",
    "resume",
    "run",
    "stats",
    "tl",
    "tool",
    "validate",
    "verify",
]

# Public name -> the module it lives in: one line a name.
_HOME = {
    "Budget": "models",
    "Design": "design",
    "Hypothesis": "models",
    "Knowledge": "knowledge",
    "LLMJudge": "hypotheses.llm_judge",
    "LLMPlanner": "planner.llm",
    "RulesPlanner": "planner.rules",
    "Run": "api",
    "Session": "sessions",
    "agreement": "hypotheses.reviews",
    "audit": "auditing",
    "compare": "checking",
    "profile_dataset": "profiling",
    "read": "io",
    "resume": "api",
    "run": "api",
    "tool": "tools.registry",
    "validate": "checking",
    "verify": "checking",
}
_MODULES = {"guard": "hypotheses.guard", "pl": "pl", "stats": "stats", "tl": "tl"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"proteus_omics.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'proteus_omics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"proteus_omics.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
