"""The reward and the losses as pure functions of tensors: the mathematics of the paper and nothing else.

B responses, T tokens, V vocabulary. Log-probs are of the chosen tokens, `logps[:, t] = log p(y_t | x, y_<t)`;
`mask` is 1 on the tokens of the response and 0 on prompt and padding. What goes in as float64 comes out as
float64; everything else is worked in float32, because a reward is a small difference of large logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from implicit_prm.errors import ImplicitPRMError

Reduction = Literal["mean", "sum", "none"]


class ImplicitRewards(NamedTuple):
    """What `implicit_rewards` returns; `outcome` is the last Q-value, h."""

    token_rewards: Tensor
    q_values: Tensor
    outcome: Tensor


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-softmax of `logits` [B, T, V] at `targets` [B, T] (whole numbers): float32 [B, T].

    `logits[:, t]` predicts `targets[:, t]`: whoever has the logits of a causal model passes `logits[:, :-1]`
    with `ids[:, 1:]`. Raises `ImplicitPRMError` for shapes that do not fit.
    """
    if logits.ndim < 2 or logits.shape[:-1] != targets.shape:
        raise ImplicitPRMError(
            f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}: "
            "every target needs its row of logits"
        )
    wide = _wide(logits)
    return wide.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - wide.logsumexp(-1)


def log_ratio(logps: Tensor, ref_logps: Tensor | None = None) -> Tensor:
    """d_t = log p(y_t) - log p_ref(y_t), elementwise (section 2.1); without a reference d_t = log p(y_t).

    Raises `ImplicitPRMError` when the two have different shapes.
    """
    if ref_logps is None:
        return _wide(logps)
    _same_shape("log-probs", logps, "the reference's log-probs", ref_logps)
    return _wide(logps) - _wide(ref_logps)


def implicit_rewards(logps: Tensor, ref_logps: Tensor | None, mask: Tensor, beta: float) -> ImplicitRewards:
    """Rewards of every token, Q-values and outcome of B responses (section 2.1).

    r_t = beta d_t inside `mask` [B, T] and exactly 0 outside; q_t = sum of r_i over i <= t, so that q stays
    constant after the last token; outcome h = q_T, [B]. `logps` and `ref_logps` are [B, T];
    `ref_logps=None` is the uniform reference, r_t = beta log p(y_t). What stands outside the mask is never
    read: NaN and infinities there do no harm.

    Raises `ImplicitPRMError` for shapes that do not fit and for beta <= 0.
    """
    check_beta(beta)
    if logps.ndim != 2:
        raise ImplicitPRMError(f"log-probs must be [responses, tokens], not {tuple(logps.shape)}")
    _same_shape("log-probs", logps, "the mask", mask)
    rewards = beta * log_ratio(logps, ref_logps).masked_fill(~mask.bool(), 0.0)
    q_values = rewards.cumsum(-1)
    # With no token at all there is no last Q-value; the empty sum is 0.
    outcome = q_values[:, -1] if q_values.shape[1] else rewards.sum(-1)
    return ImplicitRewards(rewards, q_values, outcome)


def step_rewards(token_rewards: Tensor, step_ends: Sequence[int]) -> Tensor:
    """R_s = sum of `token_rewards` [T] over the tokens (e_{s-1}, e_s] of step s: [S] (section 2.1).

    `step_ends` are inclusive indices of the steps' last tokens, rising; where the last one is T - 1 the
    rewards of the steps sum to h. Raises `ImplicitPRMError` for ends that do not rise or lie outside the
    tokens.
    """
    if token_rewards.ndim != 1:
        raise ImplicitPRMError(
            f"token rewards of one response are [tokens], not {tuple(token_rewards.shape)}"
        )
    lengths = [end - before for before, end in zip([-1, *step_ends], step_ends, strict=False)]
    if any(length < 1 for length in lengths) or (step_ends and step_ends[-1] >= len(token_rewards)):
        raise ImplicitPRMError(
            f"step ends {list(step_ends)} must rise and lie within the response's {len(token_rewards)} tokens"
        )
    device = token_rewards.device
    step_of_token = torch.repeat_interleave(torch.tensor(lengths, dtype=torch.long, device=device))
    sums = _wide(token_rewards).new_zeros(len(lengths))
    return sums.index_add(0, step_of_token, _wide(token_rewards)[: len(step_of_token)])


def ce_loss(
    outcome: Tensor, labels: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """-[l log sigma(h) + (1 - l) log sigma(-h)] of `outcome` [B] and `labels` [B] in [0, 1] (Eq. 5).

    `weight` [B] multiplies the responses' losses; the mean divides by B, not by the sum of the weights. The
    logit goes in, not its sigmoid, so that the gradient sigma(h) - l survives at any h. Scalar, or [B] with
    `reduction="none"`. Raises `ImplicitPRMError` for shapes that do not fit, no response, or labels that are
    NaN or outside [0, 1].
    """
    labels = _labels(outcome, labels)
    if weight is not None:
        _same_shape("outcomes", outcome, "the weights", weight)
        weight = weight.to(labels)
    return F.binary_cross_entropy_with_logits(_wide(outcome), labels, weight=weight, reduction=reduction)


def dpo_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-mean log sigma(h_w - h_l) over pairs; `chosen` and `rejected` are outcomes [B] (section 2.2).

    Raises `ImplicitPRMError` for shapes that differ and for no pair at all.
    """
    _pairs(chosen, rejected)
    return -F.logsigmoid(_wide(chosen) - _wide(rejected)).mean()


def nca_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-mean[log sigma(h_w) + log sigma(-h_w) / 2 + log sigma(-h_l) / 2] over pairs (section 2.2).

    `chosen` and `rejected` are outcomes [B]. Raises `ImplicitPRMError` for shapes that differ and for no
    pair at all.
    """
    _pairs(chosen, rejected)
    won, lost = _wide(chosen), _wide(rejected)
    return -(F.logsigmoid(won) + 0.5 * F.logsigmoid(-won) + 0.5 * F.logsigmoid(-lost)).mean()


def kto_loss(
    outcome: Tensor,
    labels: Tensor,
    kl: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Mean of w_D (1 - sigma(h - beta z0)) over right and w_U (1 - sigma(beta z0 - h)) over wrong responses.

    `outcome` [B] is h = beta D; `labels` [B] in [0, 1], a soft one mixes the two terms; `kl` is z0 in nats
    (section 2.2), a constant: no gradient goes through it. Raises `ImplicitPRMError` for shapes that do not
    fit, no response, labels that are NaN or outside [0, 1] and beta <= 0.
    """
    check_beta(beta)
    labels = _labels(outcome, labels)
    margin = _wide(outcome) - beta * torch.as_tensor(kl).detach().to(labels)
    # 1 - sigma(x) = sigma(-x), which keeps its digits where sigma(x) rounds to 1.
    right, wrong = desirable_weight * torch.sigmoid(-margin), undesirable_weight * torch.sigmoid(margin)
    return (labels * right + (1 - labels) * wrong).mean()


def step_loss(step_rewards: Tensor, labels: Tensor, form: Literal["signed", "absolute"] = "signed") -> Tensor:
    """Loss of the second stage on step labels l_s = 1 (right) or -1 (wrong), mean over steps (section 2.2).

    `form="signed"` is -log sigma(l_s R_s). `"absolute"` is -log sigma(l_s |R_s|), as the paper prints it:
    there the gradient only makes |R_s| larger or smaller, whatever its sign. `step_rewards` and `labels`
    have one shape, often the steps of all responses end to end. Raises `ImplicitPRMError` for shapes that
    differ, labels other than 1 and -1, no step, or another form.
    """
    if form not in ("signed", "absolute"):
        raise ImplicitPRMError(f"form must be 'signed' or 'absolute', not {form!r}")
    _same_shape("step rewards", step_rewards, "the labels", labels)
    _not_empty("step", step_rewards)
    rewards = _wide(step_rewards)
    signs = labels.to(rewards)
    if not (signs.abs() == 1).all():
        raise ImplicitPRMError("step labels must be 1 (right) or -1 (wrong); turn 0 and 1 into 2 * label - 1")
    return -F.logsigmoid(signs * (rewards if form == "signed" else rewards.abs())).mean()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _same_shape(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    if x.shape != other.shape:
        raise ImplicitPRMError(
            f"{name} {tuple(x.shape)} and {other_name} {tuple(other.shape)} must have one shape"
        )


def _not_empty(what: str, x: Tensor) -> None:
    if not x.numel():
        raise ImplicitPRMError(f"there is no {what} to take the loss of; leave the empty batch out")


def check_beta(beta: float) -> None:
    """Raise `ImplicitPRMError` for a scale of the reward that is not a finite number above 0."""
    if not 0 < beta < math.inf:
        raise ImplicitPRMError(f"beta must be above 0, not {beta}; the paper uses 0.05")


def _pairs(chosen: Tensor, rejected: Tensor) -> None:
    _same_shape("chosen outcomes", chosen, "rejected outcomes", rejected)
    _not_empty("pair", chosen)


def _labels(outcome: Tensor, labels: Tensor) -> Tensor:
    """`labels` in the dtype and on the device of the outcomes, after a look at their values."""
    _same_shape("outcomes", outcome, "the labels", labels)
    _not_empty("response", outcome)
    labels = labels.to(_wide(outcome))
    outside = ~((labels >= 0) & (labels <= 1))  # NaN is not inside either
    if outside.any():
        where = int(outside.flatten().nonzero()[0])
        value = float(labels.flatten()[where])
        raise ImplicitPRMError(f"label {where} of the batch is {value:g}; labels lie in [0, 1]")
    return labels
