"""Golden numbers of the specification, and agreement with scipy and inspect."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from medxpertqa import MedXpertQAError, stats

TEXT_LABELS = [241, 246, 239, 244, 263, 243, 263, 222, 232, 257]
"""How often each letter A to J is the label of a Text question."""

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (300, 2450, 0.1101, 0.1360),
        (24, 244, 0.0670, 0.1422),
        (744, 2450, 0.2858, 0.3222),
        (109, 244, 0.3856, 0.5094),
    ],
)
def test_golden_wilson_intervals(k: int, n: int, low: float, high: float) -> None:
    assert stats.wilson(k, n) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=50, deadline=None)
@given(counts)
def test_wilson_is_scipys(share: tuple[int, int]) -> None:
    peer = scipy.stats.binomtest(*share).proportion_ci(method="wilson")
    assert stats.wilson(*share) == pytest.approx((peer.low, peer.high), abs=1e-12)


def test_wilson_is_inspects() -> None:
    from inspect_ai.scorer import SampleScore, Score, ci_wilson

    scores = [SampleScore(score=Score(value=float(i < 24))) for i in range(244)]
    peer = ci_wilson()(scores)
    assert isinstance(peer, dict)
    assert stats.wilson(24, 244) == pytest.approx((peer["lower"], peer["upper"]), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(b=st.integers(0, 700), c=st.integers(0, 700))
def test_mcnemar_is_the_exact_binomial_test_and_symmetric(b: int, c: int) -> None:
    expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert stats.mcnemar(b, c) == pytest.approx(expected, abs=1e-12)
    assert stats.mcnemar(b, c) == stats.mcnemar(c, b)
    assert stats.mcnemar(b, c, mid_p=True) <= stats.mcnemar(b, c)


def test_mid_p_by_hand() -> None:
    # b = 1, c = 3: P(X <= 1) = 5/16, P(X = 1) = 4/16; 2 * 5/16 = 10/16, less 4/16 is 6/16.
    assert stats.mcnemar(1, 3) == 10 / 16
    assert stats.mcnemar(1, 3, mid_p=True) == 6 / 16


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 200), st.integers(1, 25))
def test_chi2_survival_is_scipys(statistic: float, dof: int) -> None:
    assert stats.chi2_survival(statistic, dof) == pytest.approx(
        scipy.stats.chi2.sf(statistic, dof), abs=1e-12
    )


def test_two_proportions_are_the_chi_squared_test_without_correction() -> None:
    peer = scipy.stats.chi2_contingency([[837, 3307 - 837], [441, 1143 - 441]], correction=False)
    assert stats.two_proportion(837, 3307, 441, 1143).p_value == pytest.approx(peer.pvalue, rel=1e-9)


def test_golden_difference_in_differences() -> None:
    # QwQ (348/1861, 93/589) against Qwen2.5-32B (261/1861, 108/589), Reasoning minus Understanding.
    found = stats.diff_in_diff((348, 1861), (93, 589), (261, 1861), (108, 589))
    assert 100 * found.difference == pytest.approx(7.22, abs=0.005)
    assert tuple(100 * end for end in found.ci) == pytest.approx((2.32, 12.13), abs=0.005)


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03 times 3, 2, 1: .03, .04, .03; the last is raised to the one before it.
    assert stats.holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


def test_golden_grim() -> None:
    assert stats.grim(20.03, 1861) == []
    assert stats.grim(22.03, 1861) == [410]
    assert stats.grim(30.0, 10, decimals=0) == [3]


@settings(max_examples=100, deadline=None)
@given(counts, st.integers(0, 3))
def test_grim_finds_the_count_of_every_rounded_percentage(share: tuple[int, int], decimals: int) -> None:
    k, n = share
    found = stats.grim(min(round(100 * k / n, decimals), 100.0), n, decimals)
    assert k in found
    assert found == [
        i
        for i in range(n + 1)
        if abs(100 * i / n - round(100 * k / n, decimals)) <= 0.5 / 10**decimals + 1e-9
    ]


def test_the_labels_of_text_are_uniform() -> None:
    letters = [letter for letter, count in zip("ABCDEFGHIJ", TEXT_LABELS, strict=True) for _ in range(count)]
    found = stats.position_bias(letters, letters, 10)
    assert (found.n, found.chi2) == (2450, pytest.approx(6.318, abs=5e-4))
    assert found.p_value == pytest.approx(0.708, abs=5e-4)
    assert set(found.recall.values()) == {1.0}
    assert found.recall_sd == 0


def test_a_model_that_always_says_a_is_seen() -> None:
    found = stats.position_bias(["A"] * 39 + [None], ["A", "B"] * 20, 5)
    assert found.n == 39
    assert found.chi2 == pytest.approx(4 * 39)  # (39 - 7.8)^2 / 7.8 + 4 * 7.8
    assert (found.recall, found.recall_sd) == ({"A": 1.0, "B": 0.0}, 0.5)


def test_a_bootstrap_of_single_questions_is_the_plain_one() -> None:
    values = np.array([1.0] * 109 + [0.0] * 135)
    plain = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, vectorized=True, rng=0
    ).confidence_interval
    assert stats.cluster_bootstrap(values) == pytest.approx((plain.low, plain.high), abs=0.006)
    assert stats.cluster_bootstrap(values, range(244)) == stats.cluster_bootstrap(values)


def test_clusters_of_equal_questions_widen_the_interval_by_the_root_of_their_size() -> None:
    values = np.repeat([1.0] * 30 + [0.0] * 70, 4)
    clusters = np.repeat(np.arange(100), 4).tolist()
    narrow, wide = stats.cluster_bootstrap(values), stats.cluster_bootstrap(values, clusters)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.05)
    ratio = stats.cluster_standard_error(values, clusters) / stats.cluster_standard_error(values)
    assert ratio == pytest.approx(2)


def test_the_standard_error_of_single_questions_is_the_binomial_one() -> None:
    assert stats.cluster_standard_error([1] * 24 + [0] * 220) == pytest.approx((24 * 220 / 244**3) ** 0.5)


def test_a_paired_difference_by_hand() -> None:
    found = stats.paired_difference([1] * 8 + [0] * 2, [1] * 4 + [0] * 5 + [1])
    assert found.difference == pytest.approx((4 - 1) / 10)
    assert found.p_value == stats.mcnemar(4, 1) == 2 * 6 / 32
    assert found.ci.low < 0.3 < found.ci.high


def test_the_smallest_difference_that_can_be_shown() -> None:
    # (1.95996 + 0.84162) sqrt(.25 / 2450)
    assert stats.minimum_detectable(2450, 0.5) == pytest.approx(0.0283, abs=5e-5)
    independent = stats.minimum_detectable(2450, 0.5, correlation=0.0)
    assert independent == pytest.approx(0.0283 * 2**0.5, abs=1e-4)
    assert stats.minimum_detectable(2450, 0.5, correlation=0.5) == pytest.approx(0.0283, abs=5e-5)


def test_impossible_counts_are_named() -> None:
    with pytest.raises(MedXpertQAError, match="5 right out of 4"):
        stats.wilson(5, 4)
    with pytest.raises(MedXpertQAError, match="3 values and 2 clusters"):
        stats.cluster_bootstrap([1, 0, 1], ["a", "b"])
    with pytest.raises(MedXpertQAError, match="the letter F is none of the 5"):
        stats.position_bias(["F"], ["A"], 5)
