"""Implicit process reward models: train on response labels, get a reward for every step and token.

Importing the package is light; what needs torch or transformers is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning, TokenizerMismatchError

if TYPE_CHECKING:
    from implicit_prm import functional, logprobs
    from implicit_prm.aggregation import aggregate, aggregate_all
    from implicit_prm.answers import extract_answer, grade, group_answers, same_answer
    from implicit_prm.backends.base import LogProbBackend
    from implicit_prm.backends.hf import HFBackend
    from implicit_prm.backends.openai import CompletionsServer, OpenAIBackend
    from implicit_prm.backends.vllm import VLLMBackend
    from implicit_prm.calibration import Calibration, calibration_error, fit_calibration
    from implicit_prm.config import ImplicitPRMConfig
    from implicit_prm.flops import (
        Cost,
        TokenCounts,
        compare_costs,
        measure_flops,
        reading_counts,
        writing_counts,
    )
    from implicit_prm.frames import to_frame
    from implicit_prm.functional import ImplicitRewards
    from implicit_prm.heatmap import heatmap_html, heatmap_terminal
    from implicit_prm.logprobs import causal_log_probs, linear_log_probs
    from implicit_prm.model import ImplicitPRM
    from implicit_prm.overoptimization import Curve, overoptimization_curves
    from implicit_prm.processbench import best_threshold, first_error, processbench_f1
    from implicit_prm.records import read_responses, read_rows
    from implicit_prm.responses import ScoredResponse
    from implicit_prm.sampling import HFSampler, OpenAISampler, Sample, Sampler, VLLMSampler
    from implicit_prm.selection import (
        BonRow,
        best_of_n,
        best_of_n_accuracy,
        bon_table,
        expected_best_of_n,
        vote_accuracy,
    )
    from implicit_prm.shepherd import AnnotatedResponse, annotate_steps
    from implicit_prm.steps import Step, StepSplitter
    from implicit_prm.trainer import ImplicitPRMTrainer
    from implicit_prm.voting import majority_vote, weighted_vote

__all__ = [
    "AnnotatedResponse",
    "BonRow",
    "Calibration",
    "CompletionsServer",
    "Cost",
    "Curve",
    "HFBackend",
    "HFSampler",
    "ImplicitPRM",
    "ImplicitPRMConfig",
    "ImplicitPRMError",
    "ImplicitPRMTrainer",
    "ImplicitPRMWarning",
    "ImplicitRewards",
    "LogProbBackend",
    "OpenAIBackend",
    "OpenAISampler",
    "Sample",
    "Sampler",
    "ScoredResponse",
    "Step",
    "StepSplitter",
    "TokenCounts",
    "TokenizerMismatchError",
    "VLLMBackend",
    "VLLMSampler",
    "aggregate",
    "aggregate_all",
    "annotate_steps",
    "best_of_n",
    "best_of_n_accuracy",
    "best_threshold",
    "bon_table",
    "calibration_error",
    "causal_log_probs",
    "compare_costs",
    "expected_best_of_n",
    "extract_answer",
    "first_error",
    "fit_calibration",
    "functional",
    "grade",
    "group_answers",
    "heatmap_html",
    "heatmap_terminal",
    "linear_log_probs",
    "logprobs",
    "majority_vote",
    "measure_flops",
    "overoptimization_curves",
    "processbench_f1",
    "read_responses",
    "read_rows",
    "reading_counts",
    "same_answer",
    "to_frame",
    "vote_accuracy",
    "weighted_vote",
    "writing_counts",
]

# Public name -> the module it lives in: one line a name.
_HOME = {
    "AnnotatedResponse": "shepherd",
    "BonRow": "selection",
    "Calibration": "calibration",
    "CompletionsServer": "backends.openai",
    "Cost": "flops",
    "Curve": "overoptimization",
    "HFBackend": "backends.hf",
    "HFSampler": "sampling",
    "ImplicitPRM": "model",
    "ImplicitPRMConfig": "config",
    "ImplicitPRMTrainer": "trainer",
    "ImplicitRewards": "functional",
    "LogProbBackend": "backends.base",
    "OpenAIBackend": "backends.openai",
    "OpenAISampler": "sampling",
    "Sample": "sampling",
    "Sampler": "sampling",
    "ScoredResponse": "responses",
    "Step": "steps",
    "StepSplitter": "steps",
    "TokenCounts": "flops",
    "VLLMBackend": "backends.vllm",
    "VLLMSampler": "sampling",
    "aggregate": "aggregation",
    "aggregate_all": "aggregation",
    "annotate_steps": "shepherd",
    "best_of_n": "selection",
    "best_of_n_accuracy": "selection",
    "best_threshold": "processbench",
    "bon_table": "selection",
    "calibration_error": "calibration",
    "causal_log_probs": "logprobs",
    "compare_costs": "flops",
    "expected_best_of_n": "selection",
    "extract_answer": "answers",
    "first_error": "processbench",
    "fit_calibration": "calibration",
    "grade": "answers",
    "group_answers": "answers",
    "heatmap_html": "heatmap",
    "heatmap_terminal": "heatmap",
    "linear_log_probs": "logprobs",
    "majority_vote": "voting",
    "measure_flops": "flops",
    "overoptimization_curves": "overoptimization",
    "processbench_f1": "processbench",
    "read_responses": "records",
    "read_rows": "records",
    "reading_counts": "flops",
    "same_answer": "answers",
    "to_frame": "frames",
    "vote_accuracy": "selection",
    "weighted_vote": "voting",
    "writing_counts": "flops",
}
_SUBMODULES = ("functional", "logprobs")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"implicit_prm.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'implicit_prm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"implicit_prm.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
