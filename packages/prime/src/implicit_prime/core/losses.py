"""The policy's loss, and how the tokens of a mini-batch are averaged (section 2.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from implicit_prime.core.tensors import check_tokens, masked
from implicit_prime.errors import PrimeError

LossAgg = Literal["token-mean", "micro-batch-mean"]


def ppo_clip_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
    weights: Tensor | None = None,
) -> Tensor:
    """-mean of min(rho A, clip(rho, 1 - clip, 1 + clip) A) over the tokens in `mask`, rho = p/p_old: scalar.

    All [B, T]; gradients go through `logp` alone. `weights` [B], from `loss_weights`, takes the place of the
    mean: the loss is then the sum over tokens of each times its response's weight, so that the losses of
    micro-batches add up to that of their mini-batch. 0 where no token is in the mask.

    Raises `PrimeError` for shapes that do not fit and clip outside (0, 1).
    """
    check_tokens(logp=logp, old_logp=old_logp, advantages=advantages, mask=mask)
    if not 0 < clip < 1:
        raise PrimeError(f"clip must lie between 0 and 1, not {clip}; the paper uses 0.2")
    # The mask comes before exp: behind it, NaN or infinity in padding would still reach the gradient.
    ratio = masked(logp - old_logp.detach(), mask).exp()
    wanted = masked(advantages.detach(), mask)
    losses = -torch.minimum(ratio * wanted, ratio.clamp(1 - clip, 1 + clip) * wanted)
    return _weigh(losses, mask, weights)


def kl_loss(logp: Tensor, ref_logp: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over tokens of the estimate exp(d) - d - 1 of KL(policy | reference), d = ref_logp - logp: scalar.

    Unbiased for tokens drawn from the policy, and never below 0. All [B, T]; `weights` as in `ppo_clip_loss`.
    Raises `PrimeError` for shapes that do not fit.
    """
    check_tokens(logp=logp, ref_logp=ref_logp, mask=mask)
    gap = masked(ref_logp.detach() - logp, mask)
    return _weigh(gap.expm1() - gap, mask, weights)


def loss_weights(
    mask: Tensor, loss_agg: LossAgg = "token-mean", micro_batch_size: int | None = None
) -> Tensor:
    """What a token of each response counts in the loss of the mini-batch whose mask [B, T] this is: [B].

    Over the tokens they sum to 1. "token-mean" is one mean over all tokens of the mini-batch;
    "micro-batch-mean" the mean over consecutive micro-batches of `micro_batch_size` responses of the mean
    over their tokens, as the official code has it: there a token in a batch of short responses counts more.

    Raises `PrimeError` for another shape, another `loss_agg` and a size below 1.
    """
    check_tokens(mask=mask)
    lengths = mask.bool().sum(dim=1)
    if loss_agg == "token-mean":
        return (1 / lengths.sum().clamp(min=1)).expand(len(mask))
    if loss_agg != "micro-batch-mean":
        raise PrimeError(f"loss_agg must be 'token-mean' or 'micro-batch-mean', not {loss_agg!r}")
    if micro_batch_size is None or micro_batch_size < 1:
        raise PrimeError(f"'micro-batch-mean' needs a micro_batch_size of at least 1, not {micro_batch_size}")
    parts = lengths.split(micro_batch_size)
    weight = [(1 / (len(parts) * part.sum().clamp(min=1))).expand(len(part)) for part in parts]
    return torch.cat(weight)


def _weigh(losses: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of token losses, 0 outside the mask already, or their weighted sum."""
    if weights is None:
        return losses.sum() / mask.bool().sum().clamp(min=1)
    if weights.shape != mask.shape[:1]:
        raise PrimeError(
            f"weights {list(weights.shape)} must have one number for each of {len(mask)} responses"
        )
    return (losses * weights.to(losses)[:, None]).sum()
