from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from implicit_prime import PrimeError
from implicit_prime.core import accuracy_filter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_both_bounds_are_kept_in_every_dtype(dtype: torch.dtype) -> None:
    # 0 to 5 right of 5; 1/5 and 4/5 are the bounds, and no float is 0.2 or 0.8.
    outcomes = torch.tensor([[float(k < right) for k in range(5)] for right in range(6)]).to(dtype)
    assert accuracy_filter(outcomes).tolist() == [False, True, True, True, True, False]


def test_with_four_responses_the_filter_is_not_all_equal() -> None:
    outcomes = torch.cartesian_prod(*[torch.tensor([0, 1])] * 4)
    mixed = (outcomes.sum(1) > 0) & (outcomes.sum(1) < 4)
    assert torch.equal(accuracy_filter(outcomes), mixed)


@given(
    st.integers(2, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n), st.integers(0, n))
    )
)
def test_the_bounds_are_exact_fractions(case: tuple[int, int, int, int]) -> None:
    n, right, low, high = case
    low, high = sorted((low, high))
    outcomes = torch.zeros(1, n)
    outcomes[0, :right] = 1
    assert accuracy_filter(outcomes, low / n, high / n).tolist() == [low <= right <= high]


def test_fractions_of_passed_tests_count_as_they_are() -> None:
    outcomes = torch.tensor([[0.1, 0.3], [0.1, 0.2], [0.5, 0.5], [1.0, 0.6], [1.0, 0.7]])
    assert accuracy_filter(outcomes).tolist() == [True, False, True, True, False]


def test_a_response_without_a_verdict_does_not_count() -> None:
    nan = math.nan
    outcomes = torch.tensor([[1, 0, nan, nan], [1, 1, nan, 1], [0.5, nan, nan, nan], [nan] * 4])
    assert accuracy_filter(outcomes).tolist() == [True, False, False, False]


def test_no_prompt_gives_no_answer() -> None:
    assert accuracy_filter(torch.zeros(0, 4)).shape == (0,)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(PrimeError, match=r"2 responses or more, not \[3, 1\]"):
        accuracy_filter(torch.zeros(3, 1))
    with pytest.raises(PrimeError, match=r"2 responses or more, not \[4\]"):
        accuracy_filter(torch.zeros(4))
    for low, high in ((0.8, 0.2), (-0.1, 0.5), (0.2, 80), (math.nan, 0.8)):
        with pytest.raises(PrimeError, match=r"accuracy_range must be 0 <= low <= high <= 1, not"):
            accuracy_filter(torch.zeros(3, 4), low, high)
