from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError
from implicit_prm.answers import group_answers
from implicit_prm.selection import (
    best_of_n,
    best_of_n_accuracy,
    bon_table,
    bootstrap_means,
    expected_best_of_n,
    vote_accuracy,
)
from implicit_prm.voting import majority_vote, weighted_vote

# Few different values, so that there are ties.
prompts = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=8)


def brute_force(scores, correct, n):
    chosen = [max(subset, key=lambda i: (scores[i], -i)) for subset in combinations(range(len(scores)), n)]
    return sum(correct[i] for i in chosen) / len(chosen)


@given(prompts, st.data())
@settings(deadline=None)
def test_all_subsets_by_order_statistics_are_all_subsets_one_by_one(prompt, data):
    scores, correct = zip(*prompt, strict=True)
    n = data.draw(st.integers(1, len(prompt)))
    assert expected_best_of_n(scores, correct, n) == pytest.approx(brute_force(scores, correct, n), abs=1e-12)


def test_three_of_eight_by_hand():
    # The best of 3 of 8 is the k-th with probability C(8-k, 2)/56 = 21, 15, 10, 6, 3, 1 of 56
    scores = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert expected_best_of_n(scores, [0, 1, 0, 1, 0, 0, 0, 1], 3) == pytest.approx(21 / 56)
    assert expected_best_of_n(scores, [0.5] * 8, 3) == pytest.approx(0.5)
    assert expected_best_of_n([scores, scores[::-1]], [[1] + [0] * 7] * 2, 3) == pytest.approx(21 / 56 / 2)


def test_one_of_n_is_chance_and_all_of_n_is_the_best():
    rng = np.random.default_rng(0)
    scores, correct = rng.normal(size=(5, 64)), rng.integers(0, 2, size=(5, 64))
    assert best_of_n_accuracy(scores, correct, 1) == pytest.approx(correct.mean(axis=1))
    best = correct[np.arange(5), scores.argmax(axis=1)]
    assert best_of_n_accuracy(scores, correct, 64) == pytest.approx(best)


def test_the_best_response_has_the_highest_lowest_step_and_comes_first_of_equals():
    responses = [[5.0, -2.0], [0.1], [0.1, 7.0, 0.1], [-1.0, 30.0]]
    assert best_of_n(responses) == 1
    assert best_of_n(responses, aggregate="sum") == 3
    assert best_of_n(responses, aggregate="last") == 3
    assert best_of_n(responses, aggregate="mean") == 3
    assert best_of_n([[1.0], [1.0]]) == 0


def test_first_and_blocks_look_at_consecutive_responses():
    scores = [[1, 3, 2, 9, 4, 7, 99]]
    correct = [[0, 1, 0, 0, 1, 1, 1]]
    # first 2: index 1, right; blocks of 2: indices 1, 3, 5: right, wrong, right; the seventh stands alone
    assert best_of_n_accuracy(scores, correct, 2, "first").tolist() == [1.0]
    assert best_of_n_accuracy(scores, correct, 2, "blocks") == pytest.approx([2 / 3])
    groups = [[0, 1, 1, 2, 0, 1, 3]]
    # majorities of the blocks of 3: group 1 by index 1, right; group 2 by index 3, first of equals, wrong
    assert vote_accuracy(groups, correct, 3, subset="first").tolist() == [1.0]
    assert vote_accuracy(groups, correct, 3, subset="blocks").tolist() == [0.5]
    # weighted, the blocks' winners are group 1 (3 + 2) by index 1 and group 2 (9) by index 3
    assert vote_accuracy(groups, correct, 3, scores=scores, weight="raw", subset="blocks").tolist() == [0.5]


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_prompts_may_have_different_numbers_of_responses(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 7, size=6)
    scores = [rng.normal(size=size).tolist() for size in sizes]
    correct = [rng.integers(0, 2, size=size).tolist() for size in sizes]
    want = [brute_force(score, right, 3) for score, right in zip(scores, correct, strict=True)]
    assert best_of_n_accuracy(scores, correct, 3) == pytest.approx(want)


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_the_vote_of_all_n_is_the_vote(seed):
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 4, size=(5, 9))
    truth = rng.integers(0, 4, size=5)
    correct = answers == truth[:, None]
    scores = rng.normal(size=(5, 9))
    plain = [majority_vote(row) == right for row, right in zip(answers.tolist(), truth, strict=True)]
    assert vote_accuracy(answers, correct, 9).tolist() == plain
    for weight in ("sigmoid", "exp", "raw"):
        votes = [
            weighted_vote(row, score, weight, 2.0)
            for row, score in zip(answers.tolist(), scores, strict=True)
        ]
        accuracy = vote_accuracy(answers, correct, 9, scores=scores, weight=weight, scale=2.0)
        assert accuracy.tolist() == (votes == truth).tolist()


def test_votes_of_few_subsets_are_counted_out():
    rng = np.random.default_rng(4)
    answers = rng.integers(0, 3, size=(5, 6))
    scores, correct = rng.normal(size=answers.shape), answers == 0
    subsets = [list(subset) for n in (1, 2, 5) for subset in combinations(range(6), n)]
    for n in (1, 2, 5):
        exact = [
            np.mean([weighted_vote(row[s].tolist(), score[s]) == 0 for s in subsets if len(s) == n])
            for row, score in zip(answers, scores, strict=True)
        ]
        assert vote_accuracy(answers, correct, n, scores=scores).tolist() == pytest.approx(exact)
        # no vote is right where no response is
        oracle = best_of_n_accuracy(correct, correct, n)
        assert (vote_accuracy(answers, correct, n) <= oracle + 1e-12).all()


def test_sampled_votes_come_near_to_the_votes_of_all_subsets():
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 3, size=(40, 11))
    correct = answers == 0
    exact = np.mean(
        [
            [majority_vote(row[list(subset)].tolist()) == 0 for subset in combinations(range(11), 3)]
            for row in answers
        ]
    )
    sampled = vote_accuracy(answers, correct, 3)
    # 40 prompts x 128 subsets: a standard error of at most sqrt(.25 / 5120) = 0.007
    assert sampled.mean() == pytest.approx(exact, abs=0.02)
    assert (vote_accuracy(answers, correct, 3) == sampled).all()
    assert (vote_accuracy(answers, correct, 3, seed=1) != sampled).any()


def test_the_table_has_every_method_at_every_n():
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 5, size=(100, 16))
    correct = (answers == 0).astype(float)
    scores = {"good": correct + rng.normal(size=answers.shape), "noise": rng.normal(size=answers.shape)}
    rows = bon_table(scores, correct, (1, 4, 16), answers=answers)
    table = {(row.method, row.n): row for row in rows}
    assert list(table) == [
        (method, n)
        for n in (1, 4, 16)
        for method in ("random", "majority", "good", "vote by good", "noise", "vote by noise", "oracle")
    ]
    assert all(row.low <= row.accuracy <= row.high for row in rows)
    for method in ("random", "majority", "good", "noise", "oracle"):
        assert table[method, 1].accuracy == pytest.approx(correct.mean())
    # 1 - C(N - c, n)/C(N, n): no right one among the n
    right = correct.sum(axis=1).astype(int)
    pass_at_4 = np.mean([1 - math.comb(16 - c, 4) / math.comb(16, 4) for c in right])
    assert table["oracle", 4].accuracy == pytest.approx(pass_at_4)
    assert table["good", 16].accuracy == pytest.approx(expected_best_of_n(scores["good"], correct, 16))
    assert table["good", 16].low > table["noise", 16].high
    assert not any(
        "vote" in row.method or row.method == "majority" for row in bon_table(scores, correct, [4])
    )


def test_the_interval_is_that_of_the_mean_over_prompts():
    # 400 prompts, each right or wrong: the mean has a standard error of sqrt(p q / 400)
    correct = (np.arange(400) % 4 == 0).astype(float)[:, None]
    row = bon_table({}, correct, [1])[0]
    error = math.sqrt(0.25 * 0.75 / 400)
    assert (row.low, row.high) == pytest.approx((0.25 - 1.96 * error, 0.25 + 1.96 * error), abs=0.004)
    narrow = bon_table({}, correct, [1], confidence=0.5)[0]
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * error, abs=0.006)
    means = bootstrap_means(np.hstack([correct, 1 - correct]), 50)
    assert means.sum(axis=1) == pytest.approx(np.ones(50))


def test_answers_that_are_the_same_are_grouped_in_a_table():
    answers = [["1/2", "3", "0.5", None], ["7", "7.0", "8", "8"]]
    correct = [[1, 0, 1, 0], [0, 0, 1, 1]]
    row = next(row for row in bon_table({}, correct, [4], answers=answers) if row.method == "majority")
    assert row.accuracy == 0.5
    assert [group_answers(row).tolist() for row in answers] == [[0, 1, 0, -1], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_of_n([]), "no responses to choose from"),
        (lambda: best_of_n([[1.0], []]), "response 1 has no steps"),
        (lambda: best_of_n_accuracy([], [], 1), "there are no prompts"),
        (lambda: expected_best_of_n([1.0, 2.0], [0, 1], 3), "n is 3, and prompt 0 has 2 responses"),
        (lambda: expected_best_of_n([1.0, 2.0], [0, 1], 0), "n is 0, and prompt 0 has 2 responses"),
        (
            lambda: best_of_n_accuracy([[1], [1, 2]], [[1], [1]], 1),
            "prompt 1 has 2 responses in one table, 1",
        ),
        (lambda: best_of_n_accuracy([[1], [1]], [[1]], 1), "one table has 2 prompts, another 1"),
        (
            lambda: best_of_n_accuracy([[1], [math.nan]], [[1], [0]], 1),
            "prompt 1, response 0: its score is nan",
        ),
        (lambda: best_of_n_accuracy([[1, 2]], [[1, 1.5]], 1), "prompt 0, response 1: its correctness is 1.5"),
        (lambda: best_of_n_accuracy([[1, 2]], [[1, 1]], 1, "some"), "no subset is called 'some'"),
    ],
)
def test_what_cannot_be_selected_from_is_an_error(call, message):
    with pytest.raises(ImplicitPRMError, match=message):
        call()
