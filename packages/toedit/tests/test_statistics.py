from __future__ import annotations

import json
import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import EditStats, ToEditError
from toedit.editing import DROPPED, EditedTokens

counts = st.integers(0, 2**40)
statistics = st.builds(
    EditStats,
    n_documents=counts,
    n_tokens=counts,
    n_scored=counts,
    n_candidates=counts,
    n_changed=counts,
    histogram=st.tuples(*[counts] * 10),
    log_p_units=counts.map(lambda n: -n * 2**32 - 1),
    swap_units=counts,
)


def document(p, swap=None, **more) -> EditStats:
    """The statistics of a document with these probabilities, nothing edited unless told."""
    n = len(p)
    none = np.zeros(n, dtype=bool)
    edited = EditedTokens(np.arange(n), none, none, np.ones(n, dtype=np.float32))._replace(**more)
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array(p, dtype=np.float64))
    return EditStats.of_document(log_p, edited, np.zeros(n) if swap is None else np.array(swap))


def test_a_document_by_hand():
    stats = document(
        [math.nan, 0.5, 0.25, 0.995, 0.999],
        swap=[0, 0, 0, 0.04, 0.02],
        ids=np.array([0, DROPPED, 2, 9, 4]),
        candidate_mask=np.array([False, False, False, True, True]),
        changed_mask=np.array([False, False, False, True, False]),
    )
    assert (stats.n_documents, stats.n_tokens, stats.n_scored) == (1, 5, 4)
    assert (stats.n_candidates, stats.n_changed, stats.n_dropped) == (2, 1, 1)
    assert stats.histogram == (0, 0, 1, 0, 0, 1, 0, 0, 0, 2)
    assert stats.perplexity == pytest.approx((0.5 * 0.25 * 0.995 * 0.999) ** (-1 / 4), rel=1e-8)
    assert stats.expected_changes == pytest.approx(0.06)
    assert stats.mean_swap_probability == pytest.approx(0.03)
    assert (stats.candidate_rate, stats.change_rate) == (2 / 5, 1 / 5)


def test_the_bins_of_the_histogram_include_their_lower_end_and_the_last_one_both():
    stats = document([0.0, 0.0999999, 0.1000001, 0.5000001, 0.8999999, 0.9000001, 1.0])
    assert stats.histogram == (2, 1, 0, 0, 0, 1, 0, 0, 1, 2)


def test_a_uniform_prior_has_the_perplexity_of_its_size():
    assert document([1 / 50] * 300).perplexity == pytest.approx(50, rel=1e-8)


def test_an_impossible_token_makes_the_perplexity_infinite():
    stats = document([0.5, 0.0])
    assert stats.n_impossible == 1
    assert stats.sum_log_p == -math.inf
    assert stats.perplexity == math.inf


def test_shares_of_nothing_are_not_numbers():
    nothing = EditStats()
    assert nothing == document([]) + EditStats(n_documents=-1)
    for share in ("perplexity", "mean_swap_probability", "candidate_rate", "change_rate"):
        assert math.isnan(getattr(nothing, share))


@given(st.lists(statistics, max_size=6), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_sums_are_exactly_the_same_in_any_order_and_grouping(parts, shuffler):
    total = sum(parts, EditStats())
    shuffler.shuffle(parts)
    cut = shuffler.randint(0, len(parts))
    assert reduce(EditStats.__add__, parts[:cut], EditStats()) + EditStats().merge(*parts[cut:]) == total


def test_statistics_of_two_documents_are_those_of_both_together():
    first, second = [0.3, 0.7, 0.99], [0.1, 0.995]
    assert document(first) + document(second) == document(first + second) + EditStats(n_documents=1)


@given(statistics)
@settings(deadline=None)
def test_statistics_survive_json(stats):
    assert EditStats.from_dict(json.loads(json.dumps(stats.to_dict()))) == stats


@pytest.mark.parametrize("change", [{"n_edits": 3}, {"histogram": [0] * 9}])
def test_other_keys_and_other_histograms_are_refused(change):
    with pytest.raises(ToEditError, match="not the statistics of an edit"):
        EditStats.from_dict({**EditStats().to_dict(), **change})
    with pytest.raises(ToEditError, match="needed are histogram, log_p_units"):
        EditStats.from_dict({})
