"""MedXpertQA: an evaluation harness for expert medical questions, and the pipeline that builds them.

Importing the package is light; what needs an optional library is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medxpertqa.errors import DataError, MedXpertQAError, MedXpertQAWarning, MissingExtraError

if TYPE_CHECKING:
    from medxpertqa import construct, leakage, paper, stats
    from medxpertqa.attributes import dataset_statistics, load_attributes
    from medxpertqa.engine.batch import export_batch, import_batch
    from medxpertqa.engine.running import EvalRun, evaluate
    from medxpertqa.hub import load_questions
    from medxpertqa.images import ImageStore, image_clusters
    from medxpertqa.importing import load_results
    from medxpertqa.parsing import ParsedAnswer, parse_answer
    from medxpertqa.protocols import Protocol, get_protocol
    from medxpertqa.questions import Question
    from medxpertqa.reporting.document import report
    from medxpertqa.results import Record, Results, score_records, write_results
    from medxpertqa.sharing import find_leaks, share
    from medxpertqa.summaries import Comparison, Summary, compare, compare_all, summarize

__all__ = [
    "Comparison",
    "DataError",
    "EvalRun",
    "ImageStore",
    "MedXpertQAError",
    "MedXpertQAWarning",
    "MissingExtraError",
    "ParsedAnswer",
    "Protocol",
    "Question",
    "Record",
    "Results",
    "Summary",
    "compare",
    "compare_all",
    "construct",
    "dataset_statistics",
    "evaluate",
    "export_batch",
    "find_leaks",
    "get_protocol",
    "image_clusters",
    "import_batch",
    "leakage",
    "load_attributes",
    "load_questions",
    "load_results",
    "paper",
    "parse_answer",
    "report",
    "score_records",
    "share",
    "stats",
    "summarize",
    "write_results",
]

_HOME = {
    "Comparison": "summaries",
    "EvalRun": "engine.running",
    "ImageStore": "images",
    "ParsedAnswer": "parsing",
    "Protocol": "protocols",
    "Question": "questions",
    "Record": "results",
    "Results": "results",
    "Summary": "summaries",
    "compare": "summaries",
    "compare_all": "summaries",
    "dataset_statistics": "attributes",
    "evaluate": "engine.running",
    "export_batch": "engine.batch",
    "find_leaks": "sharing",
    "get_protocol": "protocols",
    "image_clusters": "images",
    "import_batch": "engine.batch",
    "load_attributes": "attributes",
    "load_questions": "hub",
    "load_results": "importing",
    "parse_answer": "parsing",
    "report": "reporting.document",
    "score_records": "results",
    "share": "sharing",
    "summarize": "summaries",
    "write_results": "results",
}
_SUBMODULES = ("construct", "leakage", "paper", "stats")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"medxpertqa.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'medxpertqa' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medxpertqa.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
