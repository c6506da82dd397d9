from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from toedit import EditConfig
from toedit.randomness import document_words, gumbel
from toedit.sampling import draw, log_weights, probabilities, swap_probability

P = np.array([0.9, 0.05, 0.03, 0.015, 0.005])
IDS = np.array([4, 2, 0, 3, 1])


def q(cfg, p=P, original=4, specials=()):
    top_log_p = np.log(p)[None]
    return probabilities(log_weights(np.array([original]), IDS[None], top_log_p, cfg, specials))[0]


def draws(cfg, count=20_000, p=P, **more):
    """How often each rank is drawn at `count` positions of one document."""
    weights = log_weights(np.full(count, 4), *(np.tile(a, (count, 1)) for a in (IDS, np.log(p))), cfg, **more)
    ranks = draw(weights, gumbel(document_words(cfg.seed, "draws"), np.arange(count), len(p)))
    return np.bincount(ranks, minlength=len(p))


@pytest.mark.parametrize("temperature", [1.0, 1.5, 100.0])
def test_top_k_is_p_to_the_power_of_one_over_the_temperature_renormalised(temperature):
    expected = P ** (1 / temperature)
    assert q(EditConfig(top_k=5, temperature=temperature)) == pytest.approx(
        expected / expected.sum(), rel=1e-12
    )


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_twenty_thousand_draws_follow_q(temperature):
    cfg = EditConfig(top_k=5, temperature=temperature)
    assert chisquare(draws(cfg), 20_000 * q(cfg)).pvalue > 1e-3


def test_a_high_temperature_makes_the_draws_nearly_uniform():
    assert chisquare(draws(EditConfig(top_k=5, temperature=1e6))).pvalue > 1e-3


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 1), (0.9, 1), (0.91, 2), (0.95, 2), (0.98, 3), (1.0, 5)])
def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p, kept):
    expected = np.where(np.arange(5) < kept, P, 0.0)
    drawn = q(EditConfig(top_k=5, temperature=1.0, sampler="top_p", top_p=top_p))
    assert drawn == pytest.approx(expected / expected.sum())


def test_a_nucleus_of_the_papers_size_never_changes_a_token_above_the_papers_threshold():
    # One token reaches 0.99 alone: the ablation "top-p 0.99" at p >= 0.99 edits nothing.
    p = np.array([0.99, 0.006, 0.002, 0.001, 0.001], dtype=np.float32)
    assert q(EditConfig(top_k=5, sampler="top_p", top_p=0.99), p=p).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(("min_p", "kept"), [(1.0, 1), (0.05, 2), (0.03, 3), (0.001, 5)])
def test_min_p_is_a_share_of_the_largest_probability(min_p, kept):
    drawn = q(EditConfig(top_k=5, sampler="min_p", min_p=min_p))
    assert (drawn > 0).sum() == kept


def test_rejection_draws_what_drawing_and_accepting_gives():
    cfg = EditConfig(top_k=5, temperature=1.5, sampler="rejection", rejection_temperature=0.5)
    random = np.random.default_rng(0)
    proposed = random.choice(5, size=400_000, p=q(EditConfig(top_k=5, temperature=1.5)))
    accepted = proposed[random.random(len(proposed)) < np.exp(np.log(P / P.max()) / 0.5)[proposed]]
    seen = np.bincount(accepted, minlength=5)
    assert chisquare(seen, seen.sum() * q(cfg)).pvalue > 1e-3


def test_rejection_is_top_k_at_the_harmonic_temperature():
    cfg = EditConfig(top_k=5, temperature=1.5, sampler="rejection", rejection_temperature=0.5)
    assert q(cfg) == pytest.approx(q(EditConfig(top_k=5, temperature=1 / (1 / 1.5 + 1 / 0.5))))


def test_without_the_original_the_others_keep_their_proportions():
    cfg = EditConfig(top_k=5, temperature=1.0, exclude_original=True)
    assert q(cfg) == pytest.approx([0, 0.5, 0.3, 0.15, 0.05])
    assert chisquare(draws(cfg)[1:], 20_000 * q(cfg)[1:]).pvalue > 1e-3


def test_special_tokens_are_never_drawn_unless_allowed():
    avoiding = EditConfig(top_k=5, temperature=1.0)
    assert q(avoiding, specials={2, 3}) == pytest.approx(np.array([0.9, 0, 0.03, 0, 0.005]) / 0.935)
    assert draws(avoiding, specials={2, 3})[[1, 3]].tolist() == [0, 0]
    assert q(EditConfig(top_k=5, temperature=1.0, avoid_specials=False), specials={2, 3}) == pytest.approx(P)


def test_where_nothing_can_be_drawn_nothing_is():
    cfg = EditConfig(top_k=5, exclude_original=True, sampler="top_p", top_p=0.5)
    weights = log_weights(np.array([4]), IDS[None], np.log(P)[None], cfg)
    assert draw(weights, np.zeros((1, 5))).tolist() == [-1]
    assert probabilities(weights).tolist() == [[0.0] * 5]
    assert swap_probability(np.array([4]), IDS[None], weights).tolist() == [0.0]


def test_a_token_outside_the_set_is_always_replaced():
    weights = log_weights(np.array([99]), IDS[None], np.log(P)[None], EditConfig(top_k=5))
    assert swap_probability(np.array([99]), IDS[None], weights) == pytest.approx([1.0])


def test_impossible_tokens_are_never_drawn():
    with np.errstate(divide="ignore"):
        assert q(EditConfig(top_k=5), p=np.array([1.0, 0, 0, 0, 0])).tolist() == [1, 0, 0, 0, 0]


@given(st.floats(0.5, 1 - 1e-6), st.lists(st.floats(1e-6, 1.0), min_size=4, max_size=4), st.floats(0.1, 1.0))
@settings(deadline=None)
def test_at_temperature_one_a_candidate_changes_with_at_most_one_minus_p(largest, rest, share):
    # The top 5 hold only a part of the whole, which is what makes it "at most" (section 2.2).
    others = np.sort(rest)[::-1] / sum(rest) * (1 - largest) * share
    p = np.array([largest, *others])
    weights = log_weights(np.array([4]), IDS[None], np.log(p)[None], EditConfig(top_k=5, temperature=1.0))
    swap = swap_probability(np.array([4]), IDS[None], weights)[0]
    assert swap == pytest.approx(others.sum() / p.sum(), rel=1e-9)
    assert swap <= (1 - largest) * (1 + 1e-9)
