from __future__ import annotations

import numpy as np
import pytest

from implicit_prm import ImplicitPRMError
from implicit_prm.overoptimization import overoptimization_curves
from implicit_prm.selection import bon_table, expected_best_of_n


def tables(prompts=200, responses=32, seed=0):
    """Responses that are right with probability 1/2; "good" sees it, "noise" does not, and "hacked" sees it
    except in a rare kind of wrong response, which it prefers to all others."""
    rng = np.random.default_rng(seed)
    correct = rng.random((prompts, responses)) < 0.5
    noise = rng.normal(size=correct.shape)
    overrated = ~correct & (rng.random(correct.shape) < 0.1)
    return correct, {
        "good": correct + noise,
        "noise": noise,
        "hacked": 3 * correct + noise + 20 * overrated,
    }


def test_a_score_that_overrates_rare_wrong_responses_is_caught_and_others_are_not():
    correct, scores = tables()
    good, noise, hacked = overoptimization_curves(scores, correct)
    assert good.n == noise.n == hacked.n == (1, 2, 4, 8, 16, 32)
    assert good.alarm is None
    assert noise.alarm is None
    # an overrated one is among 32 with probability 1 - 0.95^32 = 0.81, and among 4 with 0.19
    assert hacked.accuracy[-1] == pytest.approx(0.19, abs=0.08)
    assert hacked.fall is not None
    assert (hacked.fall.n_from, hacked.fall.n_to) == (4, 32)
    assert hacked.fall.points == pytest.approx(hacked.accuracy[2] - hacked.accuracy[-1])
    assert 0 < hacked.fall.low < hacked.fall.points
    assert hacked.below == ("random",)
    assert "hacked is over-optimised: its accuracy falls from" in hacked.alarm
    assert "at n = 32 it is worse than random" in hacked.alarm


def test_the_curve_is_that_of_best_of_n_with_its_intervals():
    correct, scores = tables(prompts=50)
    curve = overoptimization_curves({"good": scores["good"]}, correct, (1, 8))[0]
    assert curve.accuracy == pytest.approx([expected_best_of_n(scores["good"], correct, n) for n in (1, 8)])
    rows = [row for row in bon_table({"good": scores["good"]}, correct, (1, 8)) if row.method == "good"]
    assert curve.low == pytest.approx([row.low for row in rows])
    assert curve.high == pytest.approx([row.high for row in rows])


def test_the_majority_is_a_rival_where_answers_are_known():
    correct, scores = tables()
    rng = np.random.default_rng(1)
    answers = np.where(correct, 0, rng.integers(1, 9, size=correct.shape))
    curves = {curve.method: curve for curve in overoptimization_curves(scores, correct, answers=answers)}
    assert curves["noise"].below == ("majority",)
    assert curves["hacked"].below == ("random", "majority")
    assert "worse than random and majority" in curves["hacked"].alarm


def test_false_alarms_of_a_score_without_any_information_are_as_rare_as_promised():
    # one-sided tests at 2.5 % together: 7 alarms or more in 60 tables of noise have probability 0.0007
    alarms = 0
    for seed in range(60):
        correct, scores = tables(prompts=60, responses=8, seed=seed)
        alarms += overoptimization_curves({"noise": scores["noise"]}, correct)[0].fall is not None
    assert alarms <= 6


def test_a_curve_of_one_point_is_refused():
    correct, scores = tables(prompts=3, responses=4)
    with pytest.raises(ImplicitPRMError, match="at least two different n"):
        overoptimization_curves(scores, correct, (4, 4))
    with pytest.raises(ImplicitPRMError, match="n is 8, and prompt 0 has 4 responses"):
        overoptimization_curves(scores, correct, (1, 8))
