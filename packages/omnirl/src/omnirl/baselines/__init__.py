"""What to compare with: tabular learners for N worlds at once, and stable-baselines3, under one protocol."""

from omnirl.baselines.conservative import ConservativeQLearning
from omnirl.baselines.learner import TabularLearner
from omnirl.baselines.psrl import PSRL
from omnirl.baselines.q_learning_released import ReleasedQLearning
from omnirl.baselines.q_learning_ucb import QLearningUCB
from omnirl.baselines.thompson import ThompsonBandit

__all__ = [
    "PSRL",
    "ConservativeQLearning",
    "QLearningUCB",
    "ReleasedQLearning",
    "TabularLearner",
    "ThompsonBandit",
]
