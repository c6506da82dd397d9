"""What to compare with: tabular learners for N worlds at once, and stable-baselines3, under one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnirl.baselines.conservative import ConservativeQLearning
from omnirl.baselines.learner import TabularLearner
from omnirl.baselines.psrl import PSRL
from omnirl.baselines.q_learning_released import ReleasedQLearning
from omnirl.baselines.q_learning_ucb import QLearningUCB
from omnirl.baselines.thompson import ThompsonBandit

if TYPE_CHECKING:
    from omnirl.baselines.sb3 import LearningCurve, sb3_learning_curve

__all__ = [
    "PSRL",
    "ConservativeQLearning",
    "LearningCurve",
    "QLearningUCB",
    "ReleasedQLearning",
    "TabularLearner",
    "ThompsonBandit",
    "sb3_learning_curve",
]


def __getattr__(name: str) -> Any:
    if name not in ("LearningCurve", "sb3_learning_curve"):
        raise AttributeError(f"module 'omnirl.baselines' has no attribute {name!r}")
    from omnirl.baselines import sb3  # brings torch, so only when it is asked for

    return getattr(sb3, name)
