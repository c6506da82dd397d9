"""How well an agent learns inside its context: protocol, exact normalisers, controls, results."""

from omnirl.evaluation.normalisers import Normaliser, exact_normaliser
from omnirl.evaluation.protocol import evaluate, evaluate_steps
from omnirl.evaluation.results import EvalResult, StepResult
from omnirl.evaluation.teachers import Teacher

__all__ = [
    "EvalResult",
    "Normaliser",
    "StepResult",
    "Teacher",
    "evaluate",
    "evaluate_steps",
    "exact_normaliser",
]
