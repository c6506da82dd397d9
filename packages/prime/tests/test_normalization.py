from __future__ import annotations

import math

import pytest
import torch

from implicit_prime import PrimeError
from implicit_prime.core import discounted_returns, normalize_process, whiten
from implicit_prime.core.normalization import RMS_FLOOR

NAN = math.nan
REWARDS = torch.tensor([[1.0, -3.0, 1.0], [0.5, 0.25, NAN]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def test_batch_max_divides_by_the_largest_return() -> None:
    # Returns [-1, -2, 1] and [0.75, 0.25]: the largest in size is 2.
    expected = torch.tensor([[1.0, -3.0, 1.0], [0.5, 0.25, 0.0]]) / (2 + 1e-6)
    torch.testing.assert_close(normalize_process(REWARDS, MASK, "batch_max"), expected)


def test_rms_divides_by_the_root_mean_square_of_the_returns() -> None:
    rms = math.sqrt((1 + 4 + 1 + 0.75**2 + 0.25**2) / 5)
    found = normalize_process(REWARDS, MASK, "rms")
    torch.testing.assert_close(found, torch.tensor([[1.0, -3.0, 1.0], [0.5, 0.25, 0.0]]) / rms)
    returns = discounted_returns(found)[MASK.bool()]
    assert returns.square().mean().item() == pytest.approx(1)


def test_none_leaves_rewards_and_clears_padding() -> None:
    assert normalize_process(REWARDS, MASK).tolist() == [[1, -3, 1], [0.5, 0.25, 0]]


def test_the_noise_of_an_untrained_prm_grows_to_full_size_with_batch_max_alone() -> None:
    noise = 1e-5 * torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(8, 50)
    size = {
        how: discounted_returns(normalize_process(noise, mask, how)).abs().max()
        for how in ("batch_max", "rms")
    }
    assert size["batch_max"] > 0.95
    assert size["rms"] == pytest.approx(discounted_returns(noise).abs().max() / RMS_FLOOR)
    assert size["rms"] < 0.01


@pytest.mark.parametrize("how", ["none", "batch_max", "rms"])
def test_no_reward_at_all_stays_zero(how: str) -> None:
    for shape in ((2, 3), (2, 0), (0, 3)):
        for mask in (torch.ones(shape), torch.zeros(shape)):
            found = normalize_process(torch.zeros(shape), mask, how)  # type: ignore[arg-type]
            assert found.shape == shape
            assert not found.any()


def test_whitened_tokens_have_mean_0_and_variance_1_and_padding_is_not_read() -> None:
    x = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5 + 3
    mask = torch.arange(9) < torch.tensor([9, 1, 4, 0, 7, 2])[:, None]
    found = whiten(x.masked_fill(~mask, NAN), mask)
    assert found[mask].mean().abs() < 1e-12
    assert found[mask].var().item() == pytest.approx(1, abs=1e-8)
    assert not found[~mask].any()
    assert torch.equal(
        whiten(torch.nn.functional.pad(x, (0, 5)), torch.nn.functional.pad(mask, (0, 5))),
        torch.nn.functional.pad(found, (0, 5)),
    )


def test_whitening_by_hand() -> None:
    # Mean 2, squares 1 + 1 + 0, divided by n - 1 = 2: variance 1.
    found = whiten(torch.tensor([[1.0, 3.0], [2.0, 100.0]]), torch.tensor([[1, 1], [1, 0]]))
    torch.testing.assert_close(found, torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))


def test_one_token_or_none_whitens_to_zero() -> None:
    assert whiten(torch.tensor([[4.0, 5.0]]), torch.tensor([[1, 0]])).tolist() == [[0, 0]]
    assert whiten(torch.tensor([[4.0, 5.0]]), torch.tensor([[0, 0]])).tolist() == [[0, 0]]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(PrimeError, match="process_norm must be 'none', 'batch_max' or 'rms', not 'max'"):
        normalize_process(REWARDS, MASK, "max")  # type: ignore[arg-type]
    with pytest.raises(PrimeError, match=r"process \[2, 3\] and mask \[2, 2\]"):
        normalize_process(REWARDS, MASK[:, :2])
    with pytest.raises(PrimeError, match=r"x \[2, 3\] and mask \[2\]"):
        whiten(REWARDS, MASK[:, 0])
