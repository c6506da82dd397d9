"""The steps with which a bank of questions becomes a benchmark (section 2.5): each alone, or as a pipeline.

The paper's order: human filter, AI filter, edit and semantic similarity, pruning and expansion of the
options, rewriting, shuffling, expert review, labels. The authors did not release theirs.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AIFilter": "voting",
    "HumanFilter": "human",
    "SimilarPair": "edit_pairs",
    "TfidfEmbedder": "semantic",
    "TransformersEmbedder": "semantic",
    "Votes": "voting",
    "agreement": "agreements",
    "ai_expert_filter": "voting",
    "audit_rate": "labelling",
    "audit_sample": "labelling",
    "brier": "human",
    "deduplicate": "removal",
    "edit_fences": "nearest_edits",
    "edit_similar_pairs": "edit_pairs",
    "expand_options": "options",
    "export_review": "review",
    "human_filter": "human",
    "import_review": "review",
    "iqr_fence": "semantic",
    "iqr_outliers": "semantic",
    "label_question": "labelling",
    "prune_options": "options",
    "rewrite": "rewriting",
    "run_pipeline": "pipeline",
    "scan_for_phi": "phi",
    "semantic_similar_pairs": "semantic",
    "shuffle_options": "options",
    "validate_options": "options",
    "validate_rewrite": "rewriting",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medxpertqa.construct' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medxpertqa.construct.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
