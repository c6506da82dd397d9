from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError
from implicit_prm.processbench import best_threshold, first_error, processbench_f1

PROCESSBENCH = Path(os.environ.get("TENFOLD_DATA", "")) / "implicit-prm/processbench_gsm8k_upto_error.jsonl"


@st.composite
def samples(draw):
    """Step scores with ties within and between samples, and labels of both kinds."""
    scores = draw(st.lists(st.lists(st.integers(-4, 4), min_size=1, max_size=5), min_size=2, max_size=8))
    labels = [draw(st.integers(-1, len(row) - 1)) for row in scores]
    return [*scores, [1], [0]], [*labels, 0, -1]


def f1_at(threshold, scores, labels):
    return processbench_f1([first_error(row, threshold) for row in scores], labels)["f1"]


def test_the_first_error_is_the_first_score_below_the_threshold():
    assert first_error([0.5, -0.1, -0.3], 0.0) == 1
    assert first_error([0.5, -0.1, -0.3], -0.1) == 2
    assert first_error([0.5, -0.1, -0.3], -0.3) == -1
    assert first_error([0.5, -0.1, -0.3], math.inf) == 0
    assert first_error([], 0.0) == -1


def test_a_threshold_that_is_no_number_is_an_error():
    with pytest.raises(ImplicitPRMError, match="the threshold is NaN"):
        first_error([0.5], float("nan"))


def test_f1_is_the_harmonic_mean_of_the_two_accuracies():
    # with an error: 2 of 4 found; without: 3 of 4 left alone
    result = processbench_f1([1, 0, 2, -1, -1, -1, -1, 0], [1, 0, 1, 3, -1, -1, -1, -1])
    assert result == pytest.approx({"error_acc": 0.5, "correct_acc": 0.75, "f1": 0.6})


def test_an_accuracy_of_no_samples_is_not_a_number():
    result = processbench_f1([0], [0])
    assert result["error_acc"] == 1
    assert math.isnan(result["correct_acc"])
    assert math.isnan(result["f1"])


@given(samples())
@settings(deadline=None)
def test_no_threshold_is_better_than_the_best(case):
    scores, labels = case
    threshold, f1 = best_threshold(scores, labels)
    assert f1_at(threshold, scores, labels) == pytest.approx(f1, abs=1e-12)
    # below, at, between and above all the scores that there can be
    assert f1 >= max(f1_at(k / 2, scores, labels) for k in range(-10, 11)) - 1e-12


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_the_best_threshold_of_real_numbers_is_that_of_all_observed_scores(seed):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=size).astype(np.float32) for size in rng.integers(1, 9, size=30)]
    labels = [-1, 0] + [int(rng.integers(-1, len(row))) for row in scores[2:]]
    threshold, f1 = best_threshold(scores, labels)
    observed = np.concatenate(scores)
    assert f1 == pytest.approx(max(f1_at(value, scores, labels) for value in observed))
    assert f1_at(threshold, scores, labels) == pytest.approx(f1)


def test_the_threshold_lies_in_the_middle_of_what_separates():
    # right for thresholds in (-3, 1] and for those up to -1
    assert best_threshold([[1.0, -3.0], [2.0, -1.0]], [1, -1]) == (-2.0, 1.0)
    # no number lies between these two
    above = np.nextafter(0.5, 1)
    assert best_threshold([[0.5], [above]], [0, -1]) == (above, 1.0)


def test_a_threshold_between_two_float32_scores_still_separates_them():
    low = np.float32(0.5)
    scores = [np.array([low]), np.array([np.nextafter(low, np.float32(1))])]
    threshold, f1 = best_threshold(scores, [0, -1])
    assert f1 == 1
    assert [first_error(row, threshold) for row in scores] == [0, -1]


def test_where_nothing_can_be_found_f1_is_zero():
    threshold, f1 = best_threshold([[1.0, 2.0], [3.0]], [1, -1])
    assert f1 == 0
    assert math.isfinite(threshold)


@pytest.mark.skipif(not PROCESSBENCH.is_file(), reason="$TENFOLD_DATA has no ProcessBench")
def test_of_the_400_gsm8k_samples_207_have_an_error_and_minus_one_finds_none():
    labels = [json.loads(line)["label"] for line in PROCESSBENCH.read_text().splitlines()]
    assert len(labels) == 400
    assert sum(label >= 0 for label in labels) == 207
    assert processbench_f1([-1] * 400, labels) == {"error_acc": 0, "correct_acc": 1, "f1": 0}
    assert processbench_f1(labels, labels) == {"error_acc": 1, "correct_acc": 1, "f1": 1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: processbench_f1([0, 1], [0]), "2 predictions and 1 labels"),
        (lambda: processbench_f1([], []), "0 predictions and 0 labels"),
        (lambda: best_threshold([[1.0]], [0, -1]), "scores of 1 samples and 2 labels"),
        (lambda: best_threshold([[1.0], [2.0]], [-1, 1]), "sample 1: the label is 1 and there are 1 steps"),
        (lambda: best_threshold([[1.0], []], [0, -1]), "sample 1 has no step scores"),
        (
            lambda: best_threshold([[1.0], [math.nan]], [0, -1]),
            "sample 1 has no step scores, or one that is NaN",
        ),
        (lambda: best_threshold([[1.0], [2.0]], [-1, -1]), "0 of 2 samples have a wrong step"),
        (lambda: best_threshold([[1.0], [2.0]], [0, 0]), "2 of 2 samples have a wrong step"),
    ],
)
def test_what_has_no_f1_is_an_error(call, message):
    with pytest.raises(ImplicitPRMError, match=message):
        call()
