"""The algorithm as pure functions of tensors; no trainer, no model, no process group."""

from implicit_prime.core.advantages import (
    gae_advantage,
    grpo_advantage,
    implicit_value_advantage,
    reinforce_advantage,
    rloo_advantage,
)
from implicit_prime.core.filtering import accuracy_filter
from implicit_prime.core.losses import kl_loss, loss_weights, ppo_clip_loss
from implicit_prime.core.measures import calibration_error, clip_fraction, pair_accuracy, step_auc
from implicit_prime.core.normalization import normalize_process, whiten
from implicit_prime.core.returns import discounted_returns

__all__ = [
    "accuracy_filter",
    "calibration_error",
    "clip_fraction",
    "discounted_returns",
    "gae_advantage",
    "grpo_advantage",
    "implicit_value_advantage",
    "kl_loss",
    "loss_weights",
    "normalize_process",
    "pair_accuracy",
    "ppo_clip_loss",
    "reinforce_advantage",
    "rloo_advantage",
    "step_auc",
    "whiten",
]
