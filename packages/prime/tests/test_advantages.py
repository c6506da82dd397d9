from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from implicit_prime import PrimeError
from implicit_prime.core import (
    discounted_returns,
    gae_advantage,
    grpo_advantage,
    implicit_value_advantage,
    ppo_clip_loss,
    reinforce_advantage,
    rloo_advantage,
    whiten,
)

# Two responses of two tokens to one prompt; their mean process rewards are 2 and 1.
PROCESS = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
OUTCOME = torch.tensor([1.0, 0.0])
MASK = torch.ones(2, 2)
IDS = torch.tensor([7, 7])

gammas = st.sampled_from([0.0, 0.3, 0.9, 1.0])
seeds = st.integers(0, 2**31)


class Batch(NamedTuple):
    process: Tensor
    outcome: Tensor
    mask: Tensor
    ids: Tensor


def ragged_batch(seed: int) -> Batch:
    """Groups of 2 to 4 responses in any order, each one run of 1 to 7 tokens anywhere in its row."""
    random = np.random.default_rng(seed)
    ids = np.repeat(np.arange(3) * 5 - 5, random.integers(2, 5, 3))
    random.shuffle(ids)
    lengths = random.integers(1, 8, len(ids))
    starts = random.integers(0, 8 - lengths)
    positions = np.arange(7)
    mask = (positions >= starts[:, None]) & (positions < (starts + lengths)[:, None])
    process = np.where(mask, random.standard_normal(mask.shape), np.nan)
    return Batch(*map(torch.tensor, (process, random.random(len(ids)), mask, ids)))


def token_by_token(
    batch: Batch, gamma: float, outcome_gamma: float, term: Callable[..., float], score: Callable[..., float]
) -> Tensor:
    """Any of the equations, as it is printed: two sums over the later tokens of the response."""
    process, outcome, mask, ids = (x.numpy() for x in batch)
    means = np.array([row[inside].mean() for row, inside in zip(process, mask, strict=True)])
    found = torch.zeros(mask.shape, dtype=torch.float64)
    for i in range(len(ids)):
        tokens = np.flatnonzero(mask[i])
        group = [j for j in range(len(ids)) if ids[j] == ids[i]]
        others = [j for j in group if j != i]
        for t in tokens:
            later = tokens[tokens >= t]
            shaped = sum(gamma ** (s - t) * term(process[i, s], means, group, others) for s in later)
            found[i, t] = shaped + outcome_gamma ** (tokens[-1] - t) * score(i, outcome, group, others)
    return found


def leave_one_out(i: int, outcome: Any, group: list[int], others: list[int]) -> float:
    return outcome[i] - outcome[others].mean()


def test_leave_one_out_by_hand() -> None:
    # Tokens less the other's mean: [1-1, 3-1], [0-2, 2-2]; summed from each token on: [2, 2], [-2, 0]; +-1.
    assert rloo_advantage(PROCESS, OUTCOME, MASK, IDS).tolist() == [[3, 3], [-3, -1]]


def test_official_baseline_by_hand() -> None:
    # Tokens 2 r - (2 + 1): [-1, 3], [-3, 1]: the first token's advantage is the paper's, the later ones' not.
    assert rloo_advantage(PROCESS, OUTCOME, MASK, IDS, baseline="official").tolist() == [[3, 4], [-3, 0]]


def test_without_process_baseline_by_hand() -> None:
    assert rloo_advantage(PROCESS, OUTCOME, MASK, IDS, baseline="none").tolist() == [[5, 4], [1, 1]]


def test_discounted_by_hand() -> None:
    assert rloo_advantage(PROCESS, OUTCOME, MASK, IDS, gamma=0.5).tolist() == [[2, 3], [-3, -1]]
    assert rloo_advantage(None, OUTCOME, MASK, IDS, outcome_gamma=0.5).tolist() == [[0.5, 1], [-0.5, -1]]
    assert rloo_advantage(PROCESS, OUTCOME, MASK, IDS, gamma=0, outcome_gamma=0).tolist() == [
        [0, 3],
        [-2, -1],
    ]


@settings(deadline=None, max_examples=25)
@given(seeds, gammas, gammas)
def test_rloo_is_equation_5_and_the_official_formula(seed: int, gamma: float, outcome_gamma: float) -> None:
    batch = ragged_batch(seed)

    def paper(r: float, means: Any, group: list[int], others: list[int]) -> float:
        return r - means[others].mean()

    def official(r: float, means: Any, group: list[int], others: list[int]) -> float:
        return r * len(group) / len(others) - means[group].sum() / len(others)

    for name, term in (("paper", paper), ("official", official), ("none", lambda r, *_: r)):
        expected = token_by_token(batch, gamma, outcome_gamma, term, leave_one_out)
        found = rloo_advantage(*batch, gamma, outcome_gamma, baseline=name)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=25)
@given(seeds, gammas, gammas)
def test_grpo_and_reinforce_are_equations_7_and_8(seed: int, gamma: float, outcome_gamma: float) -> None:
    batch = ragged_batch(seed)

    def standard(r: float, means: Any, group: list[int], others: list[int]) -> float:
        return (r - means[group].mean()) / (means[group].std(ddof=1) + 1e-3)

    def score(i: int, outcome: Any, group: list[int], others: list[int]) -> float:
        return (outcome[i] - outcome[group].mean()) / (outcome[group].std(ddof=1) + 1e-3)

    expected = token_by_token(batch, gamma, outcome_gamma, standard, score)
    found = grpo_advantage(*batch, gamma, outcome_gamma, eps=1e-3)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)

    expected = token_by_token(batch, gamma, outcome_gamma, lambda r, *_: r, lambda i, outcome, *_: outcome[i])
    found = reinforce_advantage(batch.process, batch.outcome, batch.mask, gamma, outcome_gamma)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=20)
@given(seeds, gammas, st.sampled_from(["paper", "official"]))
def test_what_changes_nothing(seed: int, gamma: float, baseline: Any) -> None:
    process, outcome, mask, ids = ragged_batch(seed)

    def advantage(process: Tensor, outcome: Tensor, mask: Tensor, ids: Any) -> Tensor:
        return rloo_advantage(process, outcome, mask, ids, gamma, 0.9, baseline)

    found = advantage(process, outcome, mask, ids)
    assert not found[~mask].any()
    same = {"atol": 1e-12, "rtol": 0.0}
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed % 1000))
    torch.testing.assert_close(
        advantage(process[order], outcome[order], mask[order], ids[order]), found[order], **same
    )
    names = [f"prompt {i}" for i in ids.tolist()]
    torch.testing.assert_close(advantage(process, outcome, mask, names), found, **same)
    torch.testing.assert_close(advantage(process, outcome + 3.0 * ids, mask, ids), found, **same)

    wider = (torch.nn.functional.pad(x, (3, 40)) for x in (process, mask))
    wide_process, wide_mask = wider
    wide = advantage(wide_process.masked_fill(~wide_mask, math.inf), outcome, wide_mask, ids)
    torch.testing.assert_close(wide[:, 3:10], found, **same)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_both_baselines_agree_at_the_first_token_only(seed: int) -> None:
    batch = ragged_batch(seed)
    mask = batch.mask
    apart = rloo_advantage(*batch, baseline="official") - rloo_advantage(*batch)
    first = mask & (mask.cumsum(1) == 1)
    assert apart[first].abs().max() < 1e-12
    assert (mask.sum(1) < 2).all() or apart[mask & ~first].abs().max() > 1e-6


@pytest.mark.parametrize("advantage", [rloo_advantage, grpo_advantage])
def test_rewards_of_zero_give_the_gradient_of_outcomes_alone_bit_for_bit(advantage: Any) -> None:
    _, outcome, mask, ids = ragged_batch(1)
    old = torch.randn(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for process in (None, torch.zeros(mask.shape, dtype=torch.float64)):
        logp = (old + 0.1).requires_grad_()
        ppo_clip_loss(logp, old, advantage(process, outcome, mask, ids), mask).backward()
        gradients.append(logp.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


def test_process_rewards_telescope_to_the_potential() -> None:
    # Eighths add up exactly, so that A_1 - A_t = q_{t-1} holds to the last bit (section 2.6).
    rewards = torch.randint(-40, 40, (5, 12), generator=torch.Generator().manual_seed(0)) / 8
    q = rewards.cumsum(1)
    advantages = reinforce_advantage(rewards, torch.rand(5).round(), torch.ones(5, 12))
    assert torch.equal(advantages[:, :1] - advantages[:, 1:], q[:, :-1])


def test_a_group_of_one_is_an_error() -> None:
    for advantage in (rloo_advantage, grpo_advantage):
        with pytest.raises(PrimeError, match=r"response 2 is the only one of its prompt.*at least 2"):
            advantage(None, torch.rand(3), torch.ones(3, 4), ["a", "a", "b"])


def test_grpo_without_any_spread_is_finite() -> None:
    equal_means = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    found = grpo_advantage(equal_means, torch.ones(2), MASK, IDS)
    assert found.isfinite().all()
    assert found[:, 0].abs().max() == 0  # the whole response's terms sum to 0, and so do equal outcomes


def test_an_empty_response_has_mean_reward_zero_and_no_advantage() -> None:
    mask = torch.tensor([[1, 1], [0, 0]])
    assert rloo_advantage(PROCESS, OUTCOME, mask, IDS).tolist() == [[5, 4], [0, 0]]
    assert rloo_advantage(PROCESS[:, :0], OUTCOME, mask[:, :0], IDS, outcome_gamma=0.5).shape == (2, 0)
    assert rloo_advantage(None, OUTCOME[:0], mask[:0], IDS[:0]).shape == (0, 2)


def test_whitening_is_the_last_step() -> None:
    batch = ragged_batch(3)
    assert torch.equal(rloo_advantage(*batch, whiten=True), whiten(rloo_advantage(*batch), batch.mask))


def test_half_precision_is_worked_in_float32_and_float64_stays() -> None:
    half = rloo_advantage(PROCESS.bfloat16(), OUTCOME.long(), MASK.long(), IDS)
    assert half.dtype == torch.float32
    assert half.tolist() == [[3, 3], [-3, -1]]
    for process, outcome in ((PROCESS.double(), OUTCOME), (PROCESS, OUTCOME.double())):
        assert grpo_advantage(process, outcome, MASK, IDS).dtype == torch.float64


def test_values_by_hand() -> None:
    # q = [1, 4], [0, 2]; the outcome less q one token before.
    assert implicit_value_advantage(PROCESS, OUTCOME, MASK).tolist() == [[1, 0], [0, 0]]


@settings(deadline=None, max_examples=20)
@given(seeds, gammas, gammas)
def test_gae_is_the_recursion(seed: int, gamma: float, lam: float) -> None:
    process, outcome, mask, _ = ragged_batch(seed)
    values = torch.tensor(np.random.default_rng(seed).standard_normal(mask.shape)).masked_fill(
        ~mask, math.nan
    )
    expected = torch.zeros(mask.shape, dtype=torch.float64)
    for i, row in enumerate(mask):
        tokens = row.nonzero()[:, 0].tolist()
        rewards = process[i].clone()
        rewards[tokens[-1]] += outcome[i]
        running = value_after = torch.zeros((), dtype=torch.float64)
        for t in reversed(tokens):
            running = rewards[t] + gamma * value_after - values[i, t] + gamma * lam * running
            expected[i, t], value_after = running, values[i, t]
    torch.testing.assert_close(
        gae_advantage(process, outcome, values, mask, gamma, lam), expected, atol=1e-12, rtol=0
    )


def test_gae_with_both_factors_1_is_the_return_less_the_value() -> None:
    values = torch.tensor([[0.5, 0.25], [1.0, 2.0]])
    found = gae_advantage(PROCESS, OUTCOME, values, MASK)
    assert torch.equal(found, reinforce_advantage(PROCESS, OUTCOME, MASK) - values)
    assert torch.equal(gae_advantage(None, OUTCOME, values, MASK), OUTCOME[:, None] - values)


def test_gae_refuses_a_mask_with_a_hole() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 1]])
    with pytest.raises(PrimeError, match="mask of response 1 has a hole"):
        gae_advantage(None, OUTCOME, torch.zeros(2, 3), mask)


@pytest.mark.parametrize("gamma", [0.0, 1e-200, 0.1, 0.5, 0.99, 1.0])
def test_returns_of_long_rows_are_the_recursion(gamma: float) -> None:
    # 0.1^3000 is far below the smallest float64: where powers were divided by, this would be 0/0.
    rewards = torch.randn(2, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, running = torch.empty_like(rewards), torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(rewards.shape[1])):
        running = expected[:, t] = rewards[:, t] + gamma * running
    torch.testing.assert_close(discounted_returns(rewards, gamma), expected, atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(
        discounted_returns(rewards.float(), gamma),
        expected.float(),
        atol=1e-3 if gamma == 1 else 1e-4,
        rtol=0,
    )


def test_verl_gives_the_same_for_outcomes_alone() -> None:
    algorithms = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl has its own environment")
    _, outcome, mask, ids = ragged_batch(5)
    rewards = outcome[:, None] * (mask & (mask.cumsum(1) == mask.sum(1, keepdim=True)))
    theirs, _ = algorithms.compute_rloo_outcome_advantage(rewards, mask.double(), ids.numpy())
    torch.testing.assert_close(rloo_advantage(None, outcome, mask, ids), theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": PROCESS[:, :1]}, r"process \[2, 1\] and mask \[2, 2\] must both be"),
        ({"mask": MASK[0]}, r"process \[2, 2\] and mask \[2\]"),
        ({"process": None, "mask": MASK[0]}, r"mask must be \[responses, tokens\], not \[2\]"),
        ({"outcome": torch.ones(3)}, r"outcome \[3\] must have one score for each of the mask's 2 responses"),
        ({"outcome": OUTCOME[:, None]}, r"outcome \[2, 1\] must have one score"),
        ({"group_ids": [1]}, r"group_ids \[1\] must name the prompt of each of the 2 responses"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], not 1.5"),
        ({"gamma": math.nan}, r"gamma must lie in \[0, 1\], not nan"),
        ({"outcome_gamma": -0.1}, r"outcome_gamma must lie in \[0, 1\], not -0.1"),
        ({"baseline": "loo"}, "process_baseline must be 'paper', 'official' or 'none', not 'loo'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"process": PROCESS, "outcome": OUTCOME, "mask": MASK, "group_ids": IDS} | change
    with pytest.raises(PrimeError, match=message):
        rloo_advantage(**arguments)
