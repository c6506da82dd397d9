from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError
from implicit_prm.voting import majority_vote, vote_places, vote_weights, weighted_vote

ballots = st.lists(st.sampled_from([None, "1", "2", "3", "4"]), min_size=1, max_size=12)


def by_definition(answers, weights):
    """The votes summed by hand, in order; the first of equals."""
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return max(totals, key=lambda answer: totals[answer]) if totals else None


@given(ballots)
@settings(deadline=None)
def test_the_majority_is_the_most_common_answer_and_the_first_seen_of_equals(answers):
    given_ones = [answer for answer in answers if answer is not None]
    # Counter.most_common keeps the order of first appearance among equals
    assert majority_vote(answers) == (Counter(given_ones).most_common(1)[0][0] if given_ones else None)


@given(ballots, st.sampled_from(["sigmoid", "exp", "raw"]), st.floats(0.01, 30))
@settings(deadline=None)
def test_equal_weights_give_the_majority(answers, weight, score):
    assert weighted_vote(answers, [score] * len(answers), weight=weight) == majority_vote(answers)


@given(ballots, st.data())
@settings(deadline=None)
def test_a_weighted_vote_sums_the_weights_of_equal_answers(answers, data):
    n = len(answers)
    # multiples of 1/8 have exact sums, so that ties are ties
    scores = np.array(data.draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))) / 8
    assert weighted_vote(answers, scores, weight="raw") == by_definition(answers, scores)


def test_two_doubtful_responses_outweigh_one_good_one_or_not_as_the_weights_say():
    answers, scores = ["7", "9", "9"], [2.0, 0.0, 0.0]
    # sigmoid: 0.88 against 0.5 + 0.5; exp: 7.39 against 1 + 1; raw: 2 against 0
    assert weighted_vote(answers, scores) == "9"
    assert weighted_vote(answers, scores, weight="exp") == "7"
    assert weighted_vote(answers, scores, weight="raw") == "7"
    # exp at scale 0.3: 1.82 against 2
    assert weighted_vote(answers, scores, weight="exp", scale=0.3) == "9"


@pytest.mark.parametrize("weight", ["sigmoid", "exp"])
def test_scores_far_below_zero_or_above_still_weigh_differently(weight):
    assert weighted_vote(["7", "9", "9"], [-1000.0, -1002.0, -1002.0], weight=weight) == "7"
    assert vote_weights(np.array([900.0, 890.0]), np.array([True, True]), "exp", 1.0) == pytest.approx(
        [1, math.exp(-10)]
    )


def test_answers_that_are_the_same_vote_together():
    assert majority_vote(["3", "1/2", "0.5", "3", r"\frac{1}{2}"]) == "1/2"
    assert majority_vote([4, (1, 2), (1, 2)]) == (1, 2)


def test_a_response_without_an_answer_does_not_vote():
    assert majority_vote([None, None, "5"]) == "5"
    assert majority_vote([None, None]) is None
    assert weighted_vote([None, "5"], [9.0, -9.0]) == "5"
    assert weighted_vote([None, "5"], [9.0, -9.0], weight="raw") == "5"
    for weight in ("sigmoid", "exp"):  # nor does it make the others too light to tell apart
        assert weighted_vote([None, "5", "6"], [900.0, -901.0, -900.0], weight=weight) == "6"


@given(st.integers(0, 99))
@settings(deadline=None)
def test_many_votes_at_once_are_the_votes_one_by_one(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, 4, size=(3, 2, 7))
    weights = rng.integers(-2, 6, size=groups.shape) / 4
    places = vote_places(groups, weights)
    assert places.shape == (3, 2)
    for at in np.ndindex(places.shape):
        answers = [None if group < 0 else group for group in groups[at].tolist()]
        assert answers[places[at]] == by_definition(answers, weights[at])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: majority_vote([]), "no answers to vote among"),
        (lambda: weighted_vote(["1", "2"], [0.5]), r"2 answers and scores of shape \(1,\)"),
        (lambda: weighted_vote(["1", "2"], [0.5, math.nan]), "score of response 1 is not a finite number"),
        (lambda: weighted_vote(["1"], [0.5], weight="log"), "no weight is called 'log'; there are sigmoid"),
        (lambda: weighted_vote(["1"], [0.5], scale=0), "scale of the votes is 0"),
    ],
)
def test_what_cannot_be_voted_on_is_an_error(call, message):
    with pytest.raises(ImplicitPRMError, match=message):
        call()
