"""The PRM's losses over a mini-batch, as sums that micro-batches of whole groups add up to."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from implicit_prm.functional import ce_loss, dpo_loss, nca_loss

PRMLoss = Literal["ce", "ce_loo", "dpo", "nca"]


def prm_weights(outcomes: Tensor, groups: Tensor, loss: PRMLoss = "ce", balanced: bool = False) -> Tensor:
    """What each response of a mini-batch counts in its loss: float32 [B].

    `outcomes` [B] in [0, 1], `groups` [B] whole numbers. For "ce" and "ce_loo" 1/B, or with `balanced` such
    that right and wrong ones weigh one half each, a fractional outcome being so much of each. For "dpo" and
    "nca" one over the number of pairs, 0 where there is no pair.
    """
    if loss in ("dpo", "nca"):
        pairs = len(better_pairs(outcomes, groups))
        return torch.full_like(outcomes, 1 / pairs if pairs else 0.0)
    right = outcomes.mean()
    if not balanced or not 0 < right < 1:
        return torch.full_like(outcomes, 1 / max(len(outcomes), 1))
    return (outcomes / right + (1 - outcomes) / (1 - right)) / (2 * len(outcomes))


def prm_loss(
    rewards: Tensor, outcomes: Tensor, groups: Tensor, weights: Tensor, loss: PRMLoss = "ce"
) -> Tensor:
    """The loss of outcome rewards h [B] of whole groups: scalar (sections 2.2 and 2.3).

    ce      cross-entropy of sigma(h) and the outcome, which may be a fraction (the paper)
    ce_loo  the same of h less the mean h of the others of its group; one without others has none to lose
    dpo     of all pairs of a group in which one outcome is better, -log sigma(h_w - h_l)
    nca     of the same pairs, -log sigma(h_w) - log sigma(-h_w)/2 - log sigma(-h_l)/2

    `weights` [B] are `prm_weights` of the mini-batch. Raises `implicit_prm.ImplicitPRMError` for outcomes
    outside [0, 1].
    """
    if loss in ("dpo", "nca"):
        pairs = better_pairs(outcomes, groups)
        if not len(pairs):
            return rewards.sum() * 0
        pair_loss = dpo_loss if loss == "dpo" else nca_loss
        return pair_loss(rewards[pairs[:, 0]], rewards[pairs[:, 1]]) * len(pairs) * weights[0]
    if loss == "ce_loo":
        same = (groups[:, None] == groups).to(rewards)
        others = same.sum(1) - 1
        rewards = rewards - (same @ rewards - rewards) / others.clamp(min=1)
        weights = weights * (others > 0)
    return ce_loss(rewards, outcomes, weights, reduction="none").sum()


def better_pairs(outcomes: Tensor, groups: Tensor) -> Tensor:
    """(better, worse) of every pair of one group with different outcomes: int64 [pairs, 2]."""
    better = (groups[:, None] == groups) & (outcomes[:, None] > outcomes)
    return better.nonzero()
