from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError
from implicit_prm.aggregation import AGGREGATIONS, aggregate, aggregate_all

HOWS = [how.replace("TAU", "0.5") for how in AGGREGATIONS]

rewards = st.floats(-50, 50, allow_subnormal=False)
responses = st.lists(st.lists(rewards, min_size=1, max_size=12), min_size=1, max_size=8)


def test_every_aggregation_of_three_steps_by_hand():
    # R = 0.3, -0.5, 0.1 and so q = 0.3, -0.2, -0.1
    steps = [0.3, -0.5, 0.1]
    want = {
        "min": -0.5,
        "sum": -0.1,
        "mean": -0.1 / 3,
        "last": 0.1,
        "last_q": -0.1,
        "min_q": -0.2,
        "softmin(0.5)": -0.5 * math.log((math.exp(-0.6) + math.exp(1.0) + math.exp(-0.2)) / 3),
    }
    assert {how: aggregate(steps, how) for how in HOWS} == pytest.approx(want, abs=1e-15)


def test_the_worked_example_of_the_specification_has_minimum_minus_a_fifth():
    assert aggregate([0.05, -0.2]) == -0.2


@given(responses)
@settings(deadline=None)
def test_softmin_lies_between_minimum_and_mean_and_reaches_both(rows):
    low, mean = aggregate_all(rows, "min"), aggregate_all(rows, "mean")
    between = aggregate_all(rows, "softmin(0.7)")
    assert (low - 1e-9 <= between).all()
    assert (between <= mean + 1e-9).all()
    # -tau log mean exp(-R/tau) is at most tau log S above the minimum, and within range^2/(8 tau) of the mean
    np.testing.assert_allclose(aggregate_all(rows, "softmin(1e-9)"), low, atol=1e-8)
    np.testing.assert_allclose(aggregate_all(rows, "softmin(1e7)"), mean, atol=1e-3)


@given(responses, st.sampled_from(HOWS))
@settings(deadline=None)
def test_a_score_is_the_same_bits_alone_and_in_company(rows, how):
    assert aggregate_all(rows, how).tolist() == [aggregate(row, how) for row in rows]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 12), st.sampled_from(HOWS), st.integers(0, 9))
@settings(deadline=None)
def test_an_array_gives_what_its_rows_give(prompts, samples, steps, how, seed):
    table = np.random.default_rng(seed).normal(size=(prompts, samples, steps)).astype(np.float32)
    scores = aggregate_all(table, how)
    assert scores.shape == (prompts, samples)
    assert scores.tolist() == [aggregate_all(list(prompt), how).tolist() for prompt in table]


def test_no_responses_have_no_scores():
    assert aggregate_all([]).shape == (0,)


@pytest.mark.parametrize(
    "how", ["max", "softmin", "softmin(0)", "softmin(-1)", "softmin(1.2.3)", "softmin(inf)"]
)
def test_an_unknown_aggregation_is_told_what_there_is(how):
    with pytest.raises(
        ImplicitPRMError, match=r"no aggregation is called .*min, sum, mean, last, last_q, min_q"
    ):
        aggregate([1.0], how)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0], []], "response 1 has no steps"),
        ([[1.0], [2.0, math.nan]], "response 1 has a step reward that is not a finite number"),
        ([[math.inf]], "response 0 has a step reward that is not a finite number"),
        ([1.0, 2.0], "response 0 has step rewards of shape"),
        (np.array([[[1.0, 2.0], [3.0, math.nan]]]), "response 0, 1 has a step reward that is not"),
    ],
)
def test_what_has_no_score_is_named(rows, message):
    with pytest.raises(ImplicitPRMError, match=message):
        aggregate_all(rows)
