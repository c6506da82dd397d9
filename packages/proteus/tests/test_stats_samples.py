"""Missing values, normalisation, batches, proportions and power."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact, norm, power_divergence, t, ttest_ind

from proteus_omics.errors import DataError, DesignError
from proteus_omics.stats import (
    bh,
    count_cells,
    detectable_effect,
    detection_test,
    enough_valid,
    impute,
    lm_fit,
    n_needed,
    normalize,
    ratio_to_reference,
    remove_batch_effect,
    t_test_power,
    transform_proportions,
)

GROUPS = np.array(list("AAABBB"))


def table(n: int = 6, proteins: int = 200, missing: float = 0.2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.uniform(20, 30, proteins), 0.5, (n, proteins))
    x[rng.random(x.shape) < missing] = np.nan
    return x


def test_enough_valid_counts_within_groups():
    x = np.full((6, 3), np.nan)
    x[:3, 0] = 1  # all of A, none of B
    x[[0, 1, 3, 4], 1] = 1  # two thirds of both
    x[0, 2] = 1
    assert enough_valid(x, GROUPS).tolist() == [True, True, False]
    assert enough_valid(x, GROUPS, rule="all").tolist() == [False, True, False]
    assert enough_valid(x).tolist() == [True, True, False]
    assert enough_valid(x, GROUPS, 2 / 3, "all").tolist() == [False, True, False]


@pytest.mark.parametrize("method", ["minprob", "downshift", "knn", "mixed"])
def test_imputation_fills_the_missing_cells_only_and_repeats_with_its_seed(method):
    x = table()
    x[:3, 0] = np.nan
    one, again = (impute(x, method, groups=GROUPS, seed=1) for _ in range(2))
    assert np.isfinite(one.values).all()
    np.testing.assert_array_equal(one.mask, np.isnan(x))
    np.testing.assert_array_equal(one.values[~one.mask], x[~one.mask])
    np.testing.assert_array_equal(one.values, again.values)
    if method != "knn":
        assert not np.array_equal(one.values, impute(x, method, groups=GROUPS, seed=2).values)


def test_left_censored_imputations_are_low_and_knn_is_near_the_protein():
    x = table(n=8, proteins=2000)
    cells = np.isnan(x)
    minprob, downshift = impute(x, "minprob").values[cells], impute(x, "downshift").values[cells]
    assert minprob.mean() == pytest.approx(np.nanquantile(x, 0.01), abs=0.1)
    assert minprob.std() == pytest.approx(0.5, rel=0.1)
    sd = np.nanstd(x, axis=1).mean()
    assert downshift.mean() == pytest.approx(np.nanmean(x) - 1.8 * sd, abs=0.1)
    assert downshift.std() == pytest.approx(0.3 * sd, rel=0.1)
    means = np.broadcast_to(np.nanmean(x, axis=0), x.shape)[cells]
    assert np.abs(impute(x, "knn").values[cells] - means).mean() < 0.5


def test_mixed_takes_absence_from_a_whole_group_for_low_and_the_rest_for_chance():
    x = table(proteins=300, missing=0.0) + 5
    x[:3, 0] = np.nan
    x[4, 1] = np.nan
    filled = impute(x, "mixed", groups=GROUPS).values
    assert filled[:3, 0].max() < np.nanquantile(x, 0.05)
    assert filled[4, 1] == pytest.approx(np.nanmean(x[:, 1]), abs=1.5)
    with pytest.raises(DataError, match="needs the groups"):
        impute(x, "mixed")


def test_imputation_refuses_what_it_cannot_fill():
    x = table()
    x[0] = np.nan
    with pytest.raises(DataError, match="1 samples have no value"):
        impute(x)
    x = table()
    x[:, 0] = np.nan
    with pytest.raises(DataError, match="1 proteins have no value"):
        impute(x, "knn")
    with pytest.raises(DataError, match="no imputation 'zero'"):
        impute(x, "zero")


def test_detection_is_fishers_test_of_each_protein():
    seen = np.random.default_rng(0).random((20, 60)) < np.linspace(0, 1, 60)
    groups = np.repeat(["ctrl", "case"], [12, 8])
    result = detection_test(pd.DataFrame(seen).add_prefix("P"), groups, "case", "ctrl")
    for k in range(60):
        a, b = seen[12:, k].sum(), seen[:12, k].sum()
        if 0 < a + b < 20:
            assert result["p_value"][k] == pytest.approx(fisher_exact([[a, 8 - a], [b, 12 - b]]).pvalue)
            assert result["difference"][k] == pytest.approx(a / 8 - b / 12)
        else:
            assert np.isnan(result["p_value"][k])
    np.testing.assert_array_equal(result["q_value"], bh(result["p_value"]))
    assert set(result["contrast"]) == {"case_vs_ctrl"}
    with pytest.raises(DesignError, match="no group 'x'; there are ctrl, case"):
        detection_test(seen, groups, "x", "ctrl")


def test_detection_over_several_groups_is_the_likelihood_ratio_of_the_table():
    seen = np.random.default_rng(0).random((30, 5)) < 0.5
    seen[:, 4] = True
    groups = np.repeat(list("abc"), 10)
    result = detection_test(seen, groups)
    for k in range(4):
        counts = np.array([[v.sum(), 10 - v.sum()] for v in (seen[groups == g, k] for g in "abc")])
        expected = counts.sum(1, keepdims=True) * counts.sum(0) / 30
        g = power_divergence(counts, expected, ddof=3, axis=None, lambda_="log-likelihood")
        assert result["stat"][k] == pytest.approx(g.statistic)
        assert result["p_value"][k] == pytest.approx(g.pvalue)
    assert np.isnan(result["p_value"][4])


def test_median_and_mad_align_the_samples():
    x = table(missing=0.1) * np.linspace(1, 1.5, 6)[:, None] + np.arange(6)[:, None]
    by_median, by_mad = normalize(x), normalize(x, "mad")
    np.testing.assert_allclose(np.nanmedian(by_median, axis=1), np.nanmedian(x, axis=1).mean())
    assert np.nanstd(by_median - x, axis=1).max() < 1e-12
    spread = np.nanmedian(np.abs(by_mad - np.nanmedian(by_mad, axis=1, keepdims=True)), axis=1)
    np.testing.assert_allclose(spread, spread[0])
    np.testing.assert_array_equal(np.isnan(by_mad), np.isnan(x))
    np.testing.assert_array_equal(normalize(x, "none"), x)


def test_quantile_normalisation_gives_one_distribution_and_keeps_order():
    x = table(missing=0.0) * np.linspace(1, 1.5, 6)[:, None]
    result = normalize(x, "quantile")
    np.testing.assert_allclose(np.sort(result, axis=1), np.tile(np.sort(x, axis=1).mean(axis=0), (6, 1)))
    np.testing.assert_array_equal(np.argsort(result, axis=1), np.argsort(x, axis=1))
    x[0, :50] = np.nan
    result = normalize(x, "quantile")
    np.testing.assert_array_equal(np.isnan(result), np.isnan(x))
    assert np.nanmin(result[0]) == pytest.approx(result[1].min())
    assert np.nanmax(result[0]) == pytest.approx(result[1].max())


def test_normalisation_refuses_what_it_cannot_do():
    with pytest.raises(DataError, match="no normalisation 'vsn'"):
        normalize(table(), "vsn")
    with pytest.raises(DataError, match="1 samples have no value"):
        normalize(np.array([[1.0, 2], [np.nan, np.nan]]))
    with pytest.raises(DataError, match="deviation of 0"):
        normalize(np.ones((2, 5)), "mad")


def test_ratios_are_to_the_pool_of_the_same_plex():
    x = np.array([[1.0, 10], [3, np.nan], [4, 20], [6, 21]])
    pool, plex = [True, False, True, False], ["p", "p", "q", "q"]
    np.testing.assert_array_equal(ratio_to_reference(x, pool, plex), [[0, 0], [2, np.nan], [0, 0], [2, 1]])
    np.testing.assert_array_equal(ratio_to_reference(x, pool)[:, 0], [-1.5, 0.5, 1.5, 3.5])
    with pytest.raises(DesignError, match="'q' has no reference"):
        ratio_to_reference(x, [True, False, False, False], plex)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.3))
def test_a_removed_batch_effect_is_gone_and_the_groups_differences_stay(seed, missing):
    x = table(n=12, proteins=30, missing=0, seed=seed)
    batch, group = np.tile(["p", "q", "r"], 4), np.repeat([0.0, 1.0], 6)
    x += 2 * group[:, None] + np.tile([0, 5, -3], 4)[:, None]
    x[np.random.default_rng(seed).random(x.shape) < missing] = np.nan
    design = pd.DataFrame({"intercept": 1.0, "group": group})
    clean = remove_batch_effect(x, batch, design)
    kept = ~np.isnan(clean)
    assert (kept <= ~np.isnan(x)).all()
    whole = np.all(kept == ~np.isnan(x), axis=0)
    np.testing.assert_allclose(np.nanmean(clean[:, whole], axis=0), np.nanmean(x[:, whole], axis=0))
    dummies = pd.get_dummies(pd.Series(batch)).iloc[:, 1:].astype(float)
    full = pd.concat([design, dummies], axis=1)
    before, after = lm_fit(x, full).coefficients, lm_fit(clean, full).coefficients
    np.testing.assert_allclose(after["group"][whole], before["group"][whole], atol=1e-9)
    np.testing.assert_allclose(after.loc[whole & after.notna().all(axis=1), ["q", "r"]], 0, atol=1e-9)


def test_a_batch_effect_that_cannot_be_told_from_the_groups_is_not_guessed():
    x, batch = table(missing=0), np.array(list("ppqpqq"))
    x[[2, 3], 0] = np.nan  # protein 0 is left with A in p and B in q
    design = pd.get_dummies(pd.Series(GROUPS)).astype(float)
    clean = remove_batch_effect(x, batch, design)
    assert np.isnan(clean[:, 0]).all()
    assert np.isfinite(clean[:, 1:]).all()
    with pytest.raises(DesignError, match="follow from those before them: batch=B"):
        remove_batch_effect(x, GROUPS, design)
    np.testing.assert_array_equal(remove_batch_effect(x, ["one"] * 6, design), x)


def test_proportions_are_of_each_samples_cells():
    counts = count_cells(["T", "B", "T", "T"], ["s1", "s1", "s1", "s2"])
    assert counts.to_numpy().tolist() == [[1, 2], [0, 1]]
    assert list(counts) == ["B", "T"]
    np.testing.assert_allclose(np.sin(transform_proportions(counts)) ** 2, [[1 / 3, 2 / 3], [0, 1]])
    logit = transform_proportions(counts, "logit")
    np.testing.assert_allclose(logit["B"], -logit["T"])
    assert np.isfinite(logit).all(axis=None)
    with pytest.raises(DataError, match="at least 0"):
        transform_proportions(counts * 0)


def test_power_is_the_share_of_significant_simulations():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 2, (6, 20_000)), rng.normal(1.8, 2, (9, 20_000))
    seen = (ttest_ind(a, b).pvalue < 0.05).mean()
    assert t_test_power(1.8, 2, 6, 9) == pytest.approx(seen, abs=0.01)
    assert t_test_power(0, 2, 6, 9) == pytest.approx(0.05, abs=1e-6)
    assert t_test_power(1e6, 2, 6, 9) == 1


def test_the_number_needed_is_the_least_that_has_the_power():
    assert n_needed(0.5, 1) == 64  # Cohen 1988, table 2.4.1
    assert n_needed(-0.8, 1) == 26
    for effect in (0.1, 1.0, 3.0):
        n = n_needed(effect, 1)
        assert t_test_power(effect, 1, n, n) >= 0.8
        assert n == 2 or t_test_power(effect, 1, n - 1, n - 1) < 0.8
    assert n_needed(0, 1) is None
    assert n_needed(1e-9, 1) is None
    assert n_needed(float("nan"), 1) is None
    assert n_needed(1e5, 1) == 2


def test_the_detectable_effect_is_where_power_is_80_percent():
    effect = detectable_effect(0.7, 10, 12)
    assert t_test_power(effect, 0.7, 10, 12) == pytest.approx(0.8, abs=1e-6)
    with pytest.raises(DataError, match="sd = 0"):
        detectable_effect(0, 10, 10)
    with pytest.raises(DataError, match="df = 0"):
        t_test_power(1, 1, 1, 1)


def test_a_moderated_t_has_the_power_of_its_own_degrees_of_freedom():
    assert detectable_effect(0.7, 10, 12, df=20) == detectable_effect(0.7, 10, 12)
    rng = np.random.default_rng(0)
    df, alpha = 23.5, 1e-3
    noise = np.sqrt(rng.chisquare(df, 200_000) / df)
    effect = detectable_effect(0.5, 6, 6, alpha=alpha, df=df)
    seen = np.abs(rng.normal(effect / (0.5 * np.sqrt(1 / 3)), 1, 200_000) / noise) > t.isf(alpha / 2, df)
    assert seen.mean() == pytest.approx(0.8, abs=0.01)
    normal = (norm.isf(alpha / 2) + norm.isf(0.2)) * 0.5 * np.sqrt(1 / 3)
    assert detectable_effect(0.5, 6, 6, alpha=alpha, df=1e9) == pytest.approx(normal, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-5, 1e-8])
def test_the_least_effect_that_is_seen_has_the_power_that_was_asked(alpha: float) -> None:
    for n in (2, 6, 50):
        effect = detectable_effect(0.4, n, n, alpha=alpha)
        assert t_test_power(effect, 0.4, n, n, alpha) == pytest.approx(0.8, abs=1e-6)
