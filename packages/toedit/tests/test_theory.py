"""The linear model: hand cases, the recursion as the definitions have it, Monte Carlo, and the limits."""

from __future__ import annotations

import time
from itertools import pairwise
from math import e, exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toedit
from toedit import ToEditError, theory

FOUR_ONES, ONE_BY_ONE = np.ones((4, 1)), np.eye(4)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_exact_error_of_the_hand_case() -> None:
    # The fit is the mean. The first edit replaces one label by mean(z) + E: the new mean weighs that label's
    # old noise by 1/16, the three others by 1/4 + 1/16 and E by 1/4: (1 + 3 · 25 + 16)/256 = 92/256.
    errors = theory.exact_error(FOUR_ONES, ONE_BY_ONE, 1.0)
    np.testing.assert_allclose(errors, [0.25, 92 / 256, 0.49121094, 0.64837646, 0.83291245], atol=5e-9)


def test_paper_error_of_the_hand_case() -> None:
    np.testing.assert_allclose(
        theory.paper_error(FOUR_ONES, ONE_BY_ONE, 1.0), [0.25, 0.3125, 0.375, 0.4375, 0.5], rtol=1e-12
    )


@pytest.mark.parametrize("error", [theory.exact_error, theory.paper_error])
def test_full_masks_add_one_first_error_a_generation(error: object) -> None:
    n = np.arange(1, 7)
    np.testing.assert_allclose(error(FOUR_ONES, np.ones((5, 4)), 1.0), 0.25 * n, rtol=1e-12)
    X = gaussian(12, 3)
    first = 4.0 * np.trace(np.linalg.inv(X.T @ X))
    np.testing.assert_allclose(error(X, np.ones((5, 12)), 2.0), first * n, rtol=1e-10)


@settings(deadline=None)
@given(
    st.integers(1, 4), st.integers(0, 4), st.integers(0, 6), st.floats(0.1, 3.0), st.integers(0, 2**32 - 1)
)
def test_exact_error_is_the_covariance_recursion(d: int, more: int, n: int, sigma: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    T = d + more
    X, masks = random.standard_normal((T, d)), random.random((n, T)) < random.random()
    inverse = np.linalg.pinv(X)
    covariance, expected = sigma**2 * np.eye(T), []
    for M in [np.diag(mask.astype(float)) for mask in masks] + [np.zeros((T, T))]:
        expected.append(np.trace(inverse @ covariance @ inverse.T))
        A = M @ X @ inverse + np.eye(T) - M
        covariance = A @ covariance @ A.T + sigma**2 * M
    np.testing.assert_allclose(theory.exact_error(X, masks, sigma), expected, rtol=1e-7)


@pytest.mark.parametrize(
    "masks",
    [
        theory.disjoint_masks(30, [0.25] * 4),
        np.tile(np.arange(30) < 9, (6, 1)),
        theory.fresh_masks(30, [0.5 * 0.7**i for i in range(8)]),
    ],
    ids=["disjoint", "fixed", "shrinking"],
)
def test_exact_error_lies_within_four_standard_errors_of_20000_runs(masks: np.ndarray) -> None:
    X = gaussian(30, 6, seed=3)
    runs = theory.simulate(X, masks, 1.0, runs=40_000)
    error = runs.std(axis=0) / np.sqrt(len(runs))
    assert runs.shape == (40_000, len(masks) + 1)
    assert np.all(np.abs(runs.mean(axis=0) - theory.exact_error(X, masks, 1.0)) < 4 * error)
    # The simulation tells it from the paper's formula, which is off by many.
    assert np.abs(runs.mean(axis=0) - theory.paper_error(X, masks, 1.0))[-1] > 20 * error[-1]


def test_full_replacement_costs_b_a_generation_on_average_over_designs() -> None:
    runs = theory.simulate(gaussian(20_000, 20, 4), np.ones((9, 20)), 0.5, runs=1)[:, 0]
    expected = np.array([theory.collapse_error(n, 4, 20, 0.5) for n in range(1, 11)])
    assert expected[0] == pytest.approx(0.25 * 4 / 15)
    assert np.all(np.abs(runs.mean(axis=0) - expected) < 4 * runs.std(axis=0) / np.sqrt(len(runs)))


def test_the_inverse_moments_of_gaussian_designs() -> None:
    # The lemma E (XᵀX)⁻¹ = I/(T − d − 1), and the second moment in the bound (42).
    T, d = 20, 4
    inverses = np.linalg.inv(np.einsum("rti,rtj->rij", X := gaussian(20_000, T, d, seed=5), X))
    error = inverses.std(axis=0) / np.sqrt(len(X))
    assert np.all(np.abs(inverses.mean(axis=0) - np.eye(d) / (T - d - 1)) < 4 * error)
    squares = np.sum(inverses**2, axis=(1, 2))
    second = d * (T - 1) / ((T - d) * (T - d - 1) * (T - d - 3))
    assert abs(squares.mean() - second) < 4 * squares.std() / np.sqrt(len(X))


def test_bounds_of_the_paper() -> None:
    b = 10 / 89
    assert theory.paper_bound(10, 100, 3.0) == pytest.approx(2 * 9 * b)
    # 0.00142064 is E tr (XᵀX)⁻² at T = 100, d = 10.
    decay = theory.paper_decay_bound(10, 100, 1.0, edited=12.5, decay=0.9)
    assert decay == pytest.approx(b + (0.00142064 * 12.5) ** 0.5 / 0.1, rel=1e-5)


def test_disjoint_limits_by_hand_and_their_least_upper_bound() -> None:
    assert theory.disjoint_limit([1]) == 2.0
    assert theory.disjoint_limit([1 / 2] * 2) == 2.6875
    limits = [theory.disjoint_limit([1 / m] * m) for m in (5, 10, 50, 100_000)]
    np.testing.assert_allclose(limits[:3], [3.50, 3.91, 4.32], atol=0.006)
    assert limits[3] == pytest.approx(2 * e - 1, abs=1e-4)
    assert pytest.approx(2 * e - 1) == theory.DISJOINT_BOUND
    assert theory.disjoint_limit([]) == 1.0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_no_disjoint_edits_pass_the_bound(weights: list[float]) -> None:
    fractions = np.array(weights) / max(1.0, sum(weights))
    assert theory.disjoint_limit(fractions) <= min(2 * exp(fractions.sum()) - 1, theory.DISJOINT_BOUND) + 1e-9


@pytest.mark.parametrize("fractions", [[0.1] * 10, [0.3, 0.05, 0.2], [1.0]])
def test_disjoint_edits_of_many_samples_reach_the_limit(fractions: list[float]) -> None:
    X = gaussian(2000, 2)
    errors = theory.exact_error(X, theory.disjoint_masks(2000, fractions), 1.0)
    assert errors[-1] / errors[0] == pytest.approx(theory.disjoint_limit(fractions), rel=0.03)


def mean_errors(masks: np.ndarray, T: int = 100, d: int = 10, designs: int = 60) -> np.ndarray:
    """In units of b, on average over designs."""
    errors = [theory.exact_error(gaussian(T, d, seed=seed), masks, 1.0) for seed in range(designs)]
    return np.mean(errors, axis=0) / theory.collapse_error(1, d, T)


def test_ten_disjoint_edits_pass_the_paper_s_bound() -> None:
    errors = mean_errors(theory.disjoint_masks(100, [0.1] * 10))
    assert errors[-1] == pytest.approx(3.5, abs=0.1)
    assert errors[-1] > 1.5 * theory.paper_bound(10, 100) / theory.collapse_error(1, 10, 100)


def test_one_mask_for_ever_stays_bounded() -> None:
    errors = mean_errors(np.tile(np.arange(100) < 30, (120, 1)))
    assert errors[-1] == pytest.approx(1.86, abs=0.06)
    assert errors[-1] == pytest.approx(errors[80], rel=1e-3)


def test_fresh_masks_grow_for_ever_at_their_slope() -> None:
    fractions = [0.125] * 100
    errors = mean_errors(theory.fresh_masks(500, fractions), T=500, designs=4)
    limit = theory.fresh_limit(fractions)
    np.testing.assert_allclose(np.diff(limit), 0.125 * 1.875)
    np.testing.assert_allclose(errors, limit, rtol=0.1)
    slopes = [errors[j] - errors[i] for i, j in pairwise((0, 25, 50, 75, 100))]
    np.testing.assert_allclose(slopes, 25 * 0.125 * 1.875, rtol=0.15)


def test_edits_that_shrink_as_the_paper_measured_end_at_five_b() -> None:
    fractions = [0.125 * 0.941**i for i in range(150)]
    assert sum(fractions) > 1  # so they cannot be disjoint
    assert theory.fresh_limit(fractions)[-1] == pytest.approx(5.10, abs=0.005)
    errors = mean_errors(theory.fresh_masks(500, fractions), T=500, designs=4)
    assert errors[-1] == pytest.approx(5.10, rel=0.06)


def test_masks_have_their_fractions() -> None:
    masks = theory.disjoint_masks(10, [0.25, 0.25, 0.5])
    assert masks.sum() == 10
    np.testing.assert_array_equal(masks.sum(axis=0), 1)
    fresh = theory.fresh_masks(100_000, [0.2, 0.0, 1.0], seed=1)
    np.testing.assert_allclose(fresh.mean(axis=1), [0.2, 0.0, 1.0], atol=0.006)
    np.testing.assert_array_equal(fresh, theory.fresh_masks(100_000, [0.2, 0.0, 1.0], seed=1))


def test_no_edit_gives_one_error() -> None:
    X = gaussian(9, 2)
    for errors in (theory.exact_error(X, []), theory.paper_error(X, []), theory.simulate(X, [], runs=5)[0]):
        assert errors.shape == (1,)


def test_fifty_generations_of_a_thousand_samples_take_under_five_seconds_of_one_core() -> None:
    start = time.process_time()
    theory.exact_error(gaussian(1000, 100), theory.fresh_masks(1000, [0.125] * 50), 1.0)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.collapse_error(1, 4, 5, 1.0), "T >= d [+] 2"),
        (lambda: theory.paper_decay_bound(4, 7, 1.0, 1.0, 0.5), "T >= d [+] 4"),
        (lambda: theory.paper_decay_bound(4, 9, 1.0, 1.0, 1.0), "decay < 1"),
        (lambda: theory.exact_error(np.ones((4, 2)), np.eye(4), 1.0), "rank d"),
        (lambda: theory.exact_error(np.ones(4), np.eye(4), 1.0), r"\[T, d\]"),
        (lambda: theory.exact_error(np.ones((4, 1)), np.eye(3), 1.0), "T=4"),
        (lambda: theory.exact_error(np.ones((4, 1)), 0.5 * np.eye(4), 1.0), "0 or 1"),
        (lambda: theory.exact_error(gaussian(2, 4, 1), np.eye(4), 1.0), r"\(2, 4, 1\)"),
        (lambda: theory.disjoint_limit([0.6, 0.6]), "disjoint"),
        (lambda: theory.disjoint_masks(10, [-0.1]), "disjoint"),
        (lambda: theory.disjoint_limit([np.nan]), "disjoint"),
        (lambda: theory.fresh_masks(10, [0.5, 1.5]), "from 0 to 1"),
        (lambda: theory.fresh_limit([-0.5]), "from 0 to 1"),
        (lambda: theory.fresh_masks(10, [0.5], seed=-1), "seed is -1"),
        (lambda: theory.simulate(np.eye(4), np.eye(4), seed=-1), "seed is -1"),
        (lambda: theory.collapse_error(1, 4, 9, np.nan), "sigma is nan"),
        (lambda: theory.paper_error(np.eye(4), np.eye(4), -1.0), "sigma is -1"),
    ],
)
def test_what_cannot_be_says_why(call: object, message: str) -> None:
    with pytest.raises(ToEditError, match=message):
        call()


def test_the_package_offers_the_module() -> None:
    assert toedit.theory is theory
