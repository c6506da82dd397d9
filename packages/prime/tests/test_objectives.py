from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from implicit_prime.objectives import PRMLoss, better_pairs, prm_loss, prm_weights
from implicit_prm.pairing import pair_indices

KINDS: list[PRMLoss] = ["ce", "ce_loo", "dpo", "nca"]


def whole(rewards: Tensor, outcomes: Tensor, groups: Tensor, loss: PRMLoss, balanced: bool = False) -> Tensor:
    return prm_loss(rewards, outcomes, groups, prm_weights(outcomes, groups, loss, balanced), loss)


def test_hand_values_of_all_losses() -> None:
    """h = 0 everywhere: every -log sigma is log 2."""
    zeros, outcomes, groups = torch.zeros(4), torch.tensor([1.0, 0, 0, 0]), torch.zeros(4, dtype=torch.long)
    for loss, expected in (("ce", 1), ("ce_loo", 1), ("dpo", 1), ("nca", 2)):
        assert whole(zeros, outcomes, groups, loss).item() == pytest.approx(expected * math.log(2))  # type: ignore[arg-type]


def test_leave_one_out_takes_the_mean_of_the_others_away() -> None:
    rewards, outcomes, groups = (
        torch.tensor([1.0, 3.0, 5.0]),
        torch.tensor([1.0, 0, 1]),
        torch.zeros(3).long(),
    )
    centred = torch.tensor([1 - 4.0, 3 - 3.0, 5 - 2.0])
    expected = whole(centred, outcomes, groups, "ce")
    assert whole(rewards, outcomes, groups, "ce_loo").item() == pytest.approx(expected.item())
    shifted = whole(rewards + 7, outcomes, groups, "ce_loo")
    assert shifted.item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_response_without_others_has_no_leave_one_out_loss() -> None:
    rewards = torch.tensor([2.0], requires_grad=True)
    loss = whole(rewards, torch.ones(1), torch.zeros(1).long(), "ce_loo")
    loss.backward()
    assert loss.item() == 0
    assert rewards.grad is not None
    assert rewards.grad.item() == 0


def test_balanced_weights_give_right_and_wrong_one_half_each() -> None:
    outcomes = torch.tensor([1.0, 0, 0, 0, 0.5])
    weights = prm_weights(outcomes, torch.zeros(5).long(), "ce", balanced=True)
    # right weigh 1/1.5 each, wrong 1/3.5, both halved; the fraction is half of each
    assert weights.tolist() == pytest.approx([1 / 3, *[1 / 7] * 3, 1 / 6 + 1 / 14])
    assert weights.sum().item() == pytest.approx(1)
    alike = prm_weights(torch.ones(4), torch.zeros(4).long(), "ce", balanced=True)
    assert alike.tolist() == [0.25] * 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=14))
def test_pairs_are_all_those_of_implicit_prm_and_fractions_are_compared_too(
    rows: list[tuple[int, bool]],
) -> None:
    groups, labels = torch.tensor([g for g, _ in rows]), torch.tensor([float(right) for _, right in rows])
    found = {tuple(pair) for pair in better_pairs(labels, groups).tolist()}
    try:
        expected = {tuple(pair) for pair in pair_indices(labels, groups, "all").tolist()}
    except ValueError:
        expected = set()
    assert found == expected
    assert better_pairs(torch.tensor([0.2, 0.4]), torch.zeros(2).long()).tolist() == [[1, 0]]


@pytest.mark.parametrize("loss", KINDS)
def test_micro_batches_of_whole_groups_add_up_to_the_mini_batch(loss: PRMLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(9, generator=generator, dtype=torch.float64)
    outcomes = torch.tensor([1.0, 0, 0, 1, 1, 0.3, 0, 0.7, 1])
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    weights = prm_weights(outcomes, groups, loss)
    parts = [
        prm_loss(rewards[m], outcomes[m], groups[m], weights[m], loss) for m in (groups < 2, groups == 2)
    ]
    total = prm_loss(rewards, outcomes, groups, weights, loss)
    torch.testing.assert_close(sum(parts), total, check_dtype=False)
    order = torch.randperm(9, generator=generator)
    shuffled = prm_loss(rewards[order], outcomes[order], groups[order], weights[order], loss)
    torch.testing.assert_close(shuffled, total)


def test_a_soft_label_is_met() -> None:
    """One response with outcome 0.3: the minimum of CE is sigma(h) = 0.3."""
    reward = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([reward], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        whole(reward, torch.tensor([0.3]), torch.zeros(1).long(), "ce").backward()
        optimizer.step()
    assert reward.sigmoid().item() == pytest.approx(0.3, abs=1e-4)
