from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from implicit_prime import PrimeError
from implicit_prime.core import clip_fraction, kl_loss, loss_weights, ppo_clip_loss


def sample(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs, old ones, advantages and a ragged mask of 6 responses, float64."""
    random = torch.Generator().manual_seed(seed)
    logp, old, advantages = torch.randn(3, 6, 5, dtype=torch.float64, generator=random)
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 4, 2, 5])[:, None]
    return logp * 0.4, old * 0.4, advantages, mask


def test_the_loss_by_hand() -> None:
    # Ratios 1.5, 1.5, 0.5, 0.5 with clip 0.2: min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8).
    logp = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss = ppo_clip_loss(logp, torch.zeros(1, 4), advantages, torch.ones(1, 4))
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    loss.backward()
    # A clipped token gives no gradient; the others -rho A / 4.
    torch.testing.assert_close(logp.grad, torch.tensor([[0.0, 1.5, -0.5, 0.0]]) / 4)
    assert clip_fraction(logp, torch.zeros(1, 4), advantages, torch.ones(1, 4)) == 0.5


def test_on_policy_the_gradient_is_that_of_reinforce() -> None:
    logp, _, advantages, mask = sample()
    logp.requires_grad_()
    ppo_clip_loss(logp, logp, advantages, mask).backward()
    torch.testing.assert_close(logp.grad, -advantages * mask / mask.sum())


def test_padding_reaches_neither_the_loss_nor_the_gradient() -> None:
    logp, old, advantages, mask = sample()
    clean = logp.clone().requires_grad_()
    loss = ppo_clip_loss(clean, old, advantages, mask) + kl_loss(clean, old, mask)
    loss.backward()
    for filler in (math.nan, math.inf, 1e9):
        dirty = logp.masked_fill(~mask, filler).requires_grad_()
        spoiled = [x.masked_fill(~mask, filler) for x in (old, advantages)]
        again = ppo_clip_loss(dirty, *spoiled, mask) + kl_loss(dirty, spoiled[0], mask)
        again.backward()
        assert torch.equal(again, loss)
        assert torch.equal(dirty.grad, clean.grad)


def test_only_the_policy_learns() -> None:
    inputs = [x.requires_grad_() for x in sample()[:3]]
    mask = sample()[3]
    (ppo_clip_loss(*inputs, mask) + kl_loss(inputs[0], inputs[1], mask)).backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is None
    assert inputs[2].grad is None


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@pytest.mark.parametrize("loss_agg", ["token-mean", "micro-batch-mean"])
def test_micro_batches_add_up_to_their_mini_batch(loss_agg: str, size: int) -> None:
    logp, old, advantages, mask = sample()
    weights = loss_weights(mask, loss_agg, size)  # type: ignore[arg-type]
    assert (weights * mask.sum(1)).sum().item() == pytest.approx(1)
    parts = [
        ppo_clip_loss(*part, weights=weight)
        for *part, weight in zip(
            *(x.split(size) for x in (logp, old, advantages, mask, weights)), strict=True
        )
    ]
    if loss_agg == "token-mean":
        expected = ppo_clip_loss(logp, old, advantages, mask)
    else:  # the official code: each micro-batch its own mean, and the mean of those
        means = [
            ppo_clip_loss(*part)
            for part in zip(*(x.split(size) for x in (logp, old, advantages, mask)), strict=True)
        ]
        expected = torch.stack(means).mean()
    torch.testing.assert_close(sum(parts), expected, atol=1e-7, rtol=1e-6)


def test_the_two_means_differ_where_lengths_do() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert loss_weights(mask).tolist() == pytest.approx([1 / 4, 1 / 4])
    assert loss_weights(mask, "micro-batch-mean", 1).tolist() == pytest.approx([1 / 6, 1 / 2])
    assert loss_weights(torch.zeros(2, 3)).isfinite().all()


def test_no_token_gives_no_loss() -> None:
    empty = torch.zeros(2, 3)
    assert ppo_clip_loss(empty, empty, empty + 1, empty) == 0
    assert kl_loss(empty, empty + 1, empty) == 0
    assert clip_fraction(empty + 1, empty, empty + 1, empty) == 0


def test_the_kl_estimate_has_the_divergence_as_its_mean() -> None:
    policy, reference = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]).double()
    exact = (policy * (policy / reference).log()).sum()
    each = torch.stack(
        [
            kl_loss(p.log()[None, None], r.log()[None, None], torch.ones(1, 1))
            for p, r in zip(policy, reference, strict=True)
        ]
    )
    torch.testing.assert_close((policy * each).sum(), exact)
    assert (each >= 0).all()
    assert kl_loss(policy[None], policy[None], torch.ones(1, 3)) == 0


def test_what_does_not_fit_is_named() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(
        PrimeError, match=r"logp \[2, 3\] and old_logp \[2, 2\] must both be \[responses, tokens\]"
    ):
        ppo_clip_loss(x, x[:, :2], x, x)
    with pytest.raises(PrimeError, match=r"logp \[2, 3\] and advantages \[2\]"):
        ppo_clip_loss(x, x, x[:, 0], x)
    for clip in (0.0, 1.0, -0.2, math.nan):
        with pytest.raises(PrimeError, match="clip must lie between 0 and 1"):
            ppo_clip_loss(x, x, x, x, clip)
    with pytest.raises(PrimeError, match=r"weights \[3\] must have one number for each of 2 responses"):
        ppo_clip_loss(x, x, x, x, weights=torch.ones(3))
    with pytest.raises(PrimeError, match="loss_agg must be 'token-mean' or 'micro-batch-mean', not 'mean'"):
        loss_weights(x, "mean")  # type: ignore[arg-type]
    with pytest.raises(PrimeError, match="needs a micro_batch_size of at least 1, not None"):
        loss_weights(x, "micro-batch-mean")
