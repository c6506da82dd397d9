"""How good the process rewards and the policy's steps are: numbers to log, nothing to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from implicit_prime.core.groups import GroupIds, Groups
from implicit_prime.core.tensors import check_tokens, exact, masked
from implicit_prime.errors import PrimeError
from implicit_prm import calibration, reward_metrics
from implicit_prm.functional import step_rewards


def pair_accuracy(scores: Tensor, outcomes: Tensor, group_ids: GroupIds) -> float:
    """How often the response with the higher outcome has the higher score, over all pairs of one prompt.

    `scores` [B] are outcome rewards h, `outcomes` [B] the verifier's, fractions too; pairs with one outcome
    do not count, a tie of scores counts one half. NaN where no prompt has a pair.
    Raises `PrimeError` for shapes that do not fit and values that are not finite.
    """
    scores, outcomes = _finite("scores", scores), _finite("outcomes", outcomes)
    if scores.shape != outcomes.shape or scores.ndim != 1:
        raise PrimeError(
            f"scores {list(scores.shape)} and outcomes {list(outcomes.shape)} must be one each a response"
        )
    groups = Groups(group_ids, len(scores))
    right = pairs = 0.0
    for group in range(len(groups.ids)):
        members = groups.index == group
        better = outcomes[members, None] > outcomes[members]
        gap = (scores[members, None] - scores[members])[better]
        right += float((gap > 0).sum() + 0.5 * (gap == 0).sum())
        pairs += len(gap)
    return right / pairs if pairs else float("nan")


def step_auc(
    process: Tensor, step_ends: Sequence[Sequence[int]], step_labels: Sequence[Sequence[float]]
) -> float:
    """Probability that a right step has a higher reward than a wrong one, over the steps of all responses.

    `process` [B, T]; `step_ends` the inclusive positions of each response's last tokens of steps, rising;
    `step_labels` as many, right where above 0.5. A step's reward is the sum over its tokens. NaN without
    both kinds. Raises `PrimeError` where ends and labels do not fit.
    """
    check_tokens(process=process)
    if [len(ends) for ends in step_ends] != [len(labels) for labels in step_labels]:
        raise PrimeError("step_ends and step_labels must have an entry for every step of every response")
    if len(step_ends) != len(process):
        raise PrimeError(f"step_ends of {len(step_ends)} responses do not fit {len(process)} rows of process")
    rewards = [step_rewards(row, ends) for row, ends in zip(process.detach().cpu(), step_ends, strict=True)]
    labels = [label for row in step_labels for label in row]
    return reward_metrics.auc(torch.cat(rewards).numpy(), labels) if rewards else float("nan")


def calibration_error(scores: Tensor, outcomes: Tensor, bins: int = 10) -> float:
    """Expected calibration error of P(right) = sigma(h) against the outcomes, both [B], over equal bins.

    Raises `PrimeError` for values that are not finite, `implicit_prm.ImplicitPRMError` for outcomes outside
    [0, 1] and for lengths that differ.
    """
    probabilities = _finite("scores", scores).sigmoid()
    return calibration.calibration_error(probabilities.numpy(), _finite("outcomes", outcomes).numpy(), bins)


def clip_fraction(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2
) -> float:
    """The share of tokens in `mask` whose loss is clipped, so that they give no gradient; all [B, T].

    0 where no token is in the mask. Raises `PrimeError` for shapes that do not fit.
    """
    check_tokens(logp=logp, old_logp=old_logp, advantages=advantages, mask=mask)
    ratio, wanted = masked(logp - old_logp, mask).exp(), masked(advantages, mask)
    clipped = ((ratio > 1 + clip) & (wanted > 0)) | ((ratio < 1 - clip) & (wanted < 0))
    return float(clipped.sum() / mask.bool().sum().clamp(min=1))


def _finite(name: str, x: Tensor) -> Tensor:
    """`x` in float64 on the CPU."""
    x = exact(x.detach())
    if not x.isfinite().all():
        raise PrimeError(
            f"{name} must be finite; number {int((~x.isfinite()).flatten().nonzero()[0])} is not"
        )
    return x
