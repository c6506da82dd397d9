"""The training loss (section 2.6).

L = Σ_t w_t CE(policy_t, a*_t) / Σ_t w_t [label valid] + λ_s CE(next state) + λ_r MSE(reward)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


def context_weights(start: int | Tensor, length: int, warmup: int = 512) -> Tensor:
    """w_t for steps `start` to `start + length - 1` of the context: from 1e-3 up to 1 within `warmup` steps.

    (length,), or (B, length) when `start` is (B,). The official code also divides by the sum over 48,000
    steps (47,744.256 with a warm-up of 512), which cancels in the loss.
    """
    steps = torch.arange(length)
    if isinstance(start, Tensor):
        steps = start[:, None] + steps.to(start.device)
    else:
        steps = start + steps
    if warmup < 2:
        return torch.ones(steps.shape, device=steps.device)
    return (1e-3 + (1 - 1e-3) * steps / (warmup - 1)).clamp(max=1.0)


def policy_loss(logits: Tensor, labels: Tensor, weights: Tensor, targets: Tensor | None = None) -> Tensor:
    """Σ w CE over the steps with a valid label, not divided by Σ w.

    `logits` (B, T, A), `labels` (B, T), `weights` (T,) or (B, T). Labels
    outside [0, A) are ignored. `targets` (B, T, A), where given, are the probabilities p* of a stochastic
    reference policy, a* ~ p*; the labels then only say which steps count.
    """
    valid = (labels >= 0) & (labels < logits.shape[-1])
    if targets is None:
        target = labels.masked_fill(~valid, IGNORED).flatten()
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), target, ignore_index=IGNORED, reduction="none"
        ).view(labels.shape)
    else:
        losses = -(targets * logits.float().log_softmax(-1)).sum(-1)
    return (losses * weights * valid).sum()


def policy_weight(labels: Tensor, weights: Tensor, num_actions: int) -> Tensor:
    """Σ w [label valid], by which the sum of `policy_loss` over all segments is divided."""
    return (weights * ((labels >= 0) & (labels < num_actions))).sum()


def world_losses(
    next_state_logits: Tensor, reward: Tensor | None, history: dict[str, Tensor], num_actions: int
) -> tuple[Tensor, Tensor]:
    """Σ CE(s_{t+1}) and Σ (r - r_t)², over the steps with a real action, not divided.

    `history` has observations (B, T + 1) and actions and rewards (B, T): the last observation is only a
    target. Filler steps are left out: what follows them is drawn anew.
    """
    real = history["actions"] < num_actions
    target = history["observations"][:, 1:].masked_fill(~real, IGNORED)
    states = F.cross_entropy(
        next_state_logits.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    if reward is None:
        return states, states.new_zeros(())
    return states, (((reward.float() - history["rewards"]) ** 2) * real).sum()
