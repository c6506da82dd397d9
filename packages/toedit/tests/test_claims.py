"""The claims' rules, on results made up for the purpose, and the numbers that they look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev
from typing import Any

import numpy as np
import pytest

from tenfold import Estimate, Trial, Verdict
from tenfold.claims import judge
from toedit.reproduce.claims import CLAIMS
from toedit.reproduce.effect_study import EDITED, HELDOUT, SOURCE, effect_metrics, power
from toedit.reproduce.features import curve
from toedit.reproduce.iteration_study import ARMS, iteration_metrics
from toedit.reproduce.linear_model import LONG, LinearConfig, linear_metrics, linear_trial, shares
from toedit.reproduce.mixing_study import mixing_metrics
from toedit.reproduce.prior import bin_leads, share_steps
from toedit.reproduce.texts import SHORTEST, count_words, cut_to_words, pieces
from toedit.theory import fresh_limit

BY_ID = {claim.id: claim for claim in CLAIMS}
TABLE_6 = (347, 81, 54, 44, 38, 36, 37, 40, 52, 271)


def verdict(claim: str, metrics: dict[str, Any], scale: str = "laptop") -> Verdict:
    estimates = {name: Estimate.of(value) for name, value in metrics.items()}
    return judge(BY_ID[claim], estimates, scale, lambda name: True)[0]


@pytest.fixture(scope="module")
def linear() -> dict[str, float]:
    class Silent:
        def progress(self, done: float, total: float) -> None: ...

    sizes = LinearConfig(samples=100, dimensions=10, designs=300, runs=300)
    trial = Trial("linear model", 0, sizes.model_dump())
    return linear_metrics(linear_trial(trial, Silent()))  # type: ignore[arg-type]


def test_t1_disjoint_edits_pass_the_bound_of_two_and_shrinking_ones_stop(linear: dict[str, float]) -> None:
    assert verdict("T1", linear) == Verdict.HELD
    assert verdict("T1-constant", linear) == Verdict.DID_NOT_HOLD
    assert verdict("T1-bounded", linear) == Verdict.HELD
    # At T = 100, d = 10; for T much larger than d it is 3.91 and 5.10 by the closed forms.
    assert linear["disjoint_error"] == pytest.approx(3.5, rel=0.03)
    assert linear["shrinking_limit"] == pytest.approx(4.82, rel=0.05)
    assert fresh_limit(shares(LONG - 1))[-1] == pytest.approx(5.10, abs=0.01)
    assert linear["constant_share_slope"] == pytest.approx(0.125 * (2 - 0.125), rel=0.15)


def test_t1_allows_three_standard_errors(linear: dict[str, float]) -> None:
    assert verdict("T1", linear | {"replacement_largest_z": 3.1}) == Verdict.DID_NOT_HOLD
    assert verdict("T1", linear | {"recursion_largest_z": 3.1}) == Verdict.DID_NOT_HOLD
    assert verdict("T1-bounded", linear | {"shrinking_growth": 0.02}) == Verdict.DID_NOT_HOLD


def leads(where: str, histogram: Sequence[int]) -> dict[str, float]:
    first, last = bin_leads(histogram)
    return {f"first_bin_lead_{where}": first, f"last_bin_lead_{where}": last}


@pytest.mark.parametrize(("claim", "where"), [("T2", "docs"), ("T2-outside", "outside")])
def test_t2_holds_of_the_paper_s_table_and_asks_for_both_ends(claim: str, where: str) -> None:
    assert bin_leads(TABLE_6) == pytest.approx((0.076, 0.271 - 0.043))
    assert verdict(claim, leads(where, TABLE_6)) == Verdict.HELD
    assert verdict(claim, leads(where, (200, *TABLE_6[1:]))) == Verdict.DID_NOT_HOLD
    assert verdict(claim, leads(where, (*TABLE_6[:9], 43))) == Verdict.DID_NOT_HOLD


def edited_again(*candidates: Sequence[int]) -> dict[str, Any]:
    return {
        "candidates": [list(c) for c in candidates],
        "tokens": [[100] * len(candidates[0])] * len(candidates),
    }


def test_t3_wants_both_steps_down_and_at_the_laptop_scale_their_intervals_too() -> None:
    falling = edited_again([12] * 40, [11] * 40, [10] * 40)
    steps, highs = share_steps([falling])
    assert steps == pytest.approx([-0.01, -0.01])
    assert highs == pytest.approx([-0.01, -0.01])  # every document falls alike: nothing to bootstrap
    both = {"candidate_share_steps_docs": steps, "candidate_share_steps_high_docs": highs}
    assert verdict("T3", both, "quick") == Verdict.HELD
    assert verdict("T3", both, "laptop") == Verdict.NOT_TESTED
    assert verdict("T3-interval", both) == Verdict.HELD
    assert verdict("T3", {"candidate_share_steps_docs": [-0.01, 0.0]}, "quick") == Verdict.DID_NOT_HOLD
    # One document of forty falls, by a lot: resamples without it, more than 2.5% of them, see no fall.
    lucky = edited_again([12] * 40, [2] + [12] * 39, [1] + [12] * 39)
    steps, highs = share_steps([lucky])
    assert steps[0] < 0
    assert highs == [0, 0]
    assert verdict("T3-interval", {"candidate_share_steps_high_docs": highs}) == Verdict.DID_NOT_HOLD


def mixed(ppl: dict[float, list[float]], loss: dict[float, float]) -> dict[str, Any]:
    return mixing_metrics(
        {
            Trial(f"docs-{share}", seed, {"of": "docs"}): {
                "ppl": value,
                "training_loss": loss[share],
                "share": share,
            }
            for share, values in ppl.items()
            for seed, value in enumerate(values)
        }
    )


def test_t4_wants_a_fifth_more_perplexity_in_order_and_falling_training_loss() -> None:
    ppl = {0.0: [30.0, 32.0], 0.25: [29.0, 31.0], 0.5: [33.0, 33.0], 0.75: [40.0, 40.0], 1.0: [60.0, 64.0]}
    loss = {0.0: 3.0, 0.25: 2.9, 0.5: 2.8, 0.75: 2.7, 1.0: 2.6}
    found = mixed(ppl, loss)
    assert found["ppl_ratio_docs"] == [2.0, 2.0]
    assert verdict("T4-prior", found) == Verdict.HELD  # from 0 to 25% it may fall
    assert verdict("T4-prior", mixed(ppl | {1.0: [36.0, 38.0]}, loss)) == Verdict.DID_NOT_HOLD
    assert verdict("T4-prior", mixed(ppl | {0.75: [32.0, 32.0]}, loss)) == Verdict.DID_NOT_HOLD
    assert verdict("T4-prior", mixed(ppl, loss | {0.75: 2.85})) == Verdict.DID_NOT_HOLD


def iterated(**growth: float) -> dict[str, Any]:
    rates = dict.fromkeys(ARMS, 0.0) | {name.replace("_", "-"): rate for name, rate in growth.items()}
    return iteration_metrics(
        {Trial(arm, 0): {"ppl": [30 * math.exp(rate * n) for n in range(5)]} for arm, rate in rates.items()}
    )


def test_t5_allows_edits_a_tenth_of_the_slope_in_either_direction() -> None:
    assert iterated(replace=0.1)["slope_replace"] == pytest.approx([0.1])
    assert verdict("T5", iterated(replace=0.1, edit=0.009)) == Verdict.HELD
    assert verdict("T5", iterated(replace=0.1, edit=0.011)) == Verdict.DID_NOT_HOLD
    assert verdict("T5", iterated(replace=0.1, edit=-0.011)) == Verdict.DID_NOT_HOLD
    assert verdict("T5", iterated(replace=-0.1)) == Verdict.DID_NOT_HOLD
    assert verdict("T5-most", iterated(replace=0.1, edit=0.1, edit_most=0.009)) == Verdict.HELD


def test_t6_wants_fewer_buckets_for_synthetic_text_and_as_many_for_edited_text() -> None:
    assert verdict("T6", {"effective_buckets_synthetic_over_human": 0.99}) == Verdict.HELD
    assert verdict("T6", {"effective_buckets_synthetic_over_human": 1.0}) == Verdict.DID_NOT_HOLD
    assert verdict("T6-edited", {"effective_buckets_edited_change": 0.011}) == Verdict.DID_NOT_HOLD


def test_t7_is_reported_and_never_judged() -> None:
    results = {
        Trial(arm, seed): dict.fromkeys(HELDOUT, 4.0 + 0.01 * seed * (arm == EDITED))
        for arm in (SOURCE, EDITED)
        for seed in range(5)
    }
    found = effect_metrics(results)
    assert found["edited_minus_source"] == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    assert verdict("T7", found) == Verdict.NOT_TESTED


def test_the_power_calculation_is_that_of_the_normal_formula() -> None:
    gaps = [0.0, 0.01, 0.02, 0.03, 0.04]
    found = power(gaps)
    width = (1.959964 + 0.841621) * stdev(gaps)  # two-sided 5%, power 80%
    assert found["smallest_effect"] == pytest.approx(width / math.sqrt(5), rel=1e-6)
    assert found["seeds_needed"] == math.ceil((width / 0.02) ** 2) == 5
    assert power([0.1]) == {}


def test_half_of_all_counts_in_one_bucket_of_a_hundred_is_the_first_point_of_the_curve() -> None:
    counts = np.full(100, 1)
    counts[7] = 99
    assert curve(counts)[0] == pytest.approx(0.5)
    assert curve(counts)[-1] == pytest.approx(1.0)


def test_pieces_lose_only_what_is_too_short() -> None:
    text = "word " * 200
    found = list(pieces([text, "stub"], 300))
    assert "".join(found) == text[: len("".join(found))]
    assert all(SHORTEST <= len(piece) <= 300 for piece in found)
    assert len(text) - len("".join(found)) < SHORTEST


def test_words_are_cut_where_the_n_gram_features_cut_them() -> None:
    texts = ["It's a test.", "Another one."]
    assert count_words(texts) == 6 + 3  # It ' s a test . Another one .
    assert cut_to_words(texts, 7) == ["It's a test.", "Another"]
    assert cut_to_words(texts, 2) == ["It'"]
