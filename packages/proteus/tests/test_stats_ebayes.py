from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as ss
from scipy.special import polygamma

from proteus_omics.errors import DesignError, ProteusWarning
from proteus_omics.stats import lm_fit
from proteus_omics.stats.fdist import log_upper_tail, winsorised_log_moments
from proteus_omics.stats.priors import smyth_prior, spline_basis, trigamma_inverse, unequal_df_prior
from proteus_omics.stats.robust import robust_prior

GROUPS = pd.get_dummies(pd.Series(list("AAAABBBB"))).astype(float)
B_A = {"B_vs_A": {"B": 1, "A": -1}}


def simulated(proteins: int = 4000, d0: float = 6.0, s0: float = 0.04, seed: int = 0) -> np.ndarray:
    """Samples x proteins whose variances have the prior s0 d0 / chi2(d0); one in 20 differs by 1 in B."""
    rng = np.random.default_rng(seed)
    sd = np.sqrt(s0 * d0 / rng.chisquare(d0, proteins))
    y = rng.normal(size=(8, proteins)) * sd + rng.uniform(20, 30, proteins)
    y[4:, : proteins // 20] += 1
    return y


@pytest.fixture(scope="module")
def contrasts():
    return lm_fit(simulated(), GROUPS).contrasts(B_A)


def test_the_prior_of_simulated_variances_is_found(contrasts):
    for prior in (contrasts.ebayes().prior, contrasts.ebayes(legacy=False).prior):
        assert prior.df == pytest.approx(6, rel=0.15)
        assert prior.s2 == pytest.approx(0.04, rel=0.05)


def test_trigamma_inverse_inverts_over_its_whole_range():
    for x in (1e-9, 1e-3, 0.5, 3.0, 1e4, 1e9):
        assert polygamma(1, trigamma_inverse(x)) == pytest.approx(x, rel=1e-6)


def test_equal_variances_give_an_infinite_prior_and_a_common_variance():
    s2, df = np.full(50, 2.0), np.full(50, 5.0)
    assert smyth_prior(s2, df).df == np.inf
    assert smyth_prior(s2, df).s2 == pytest.approx(2.0)
    y = np.tile([0.0, 1.0, -1.0, 0.0, 3.0, 4.0, 2.0, 3.0], (50, 1)).T
    fit = lm_fit(y, GROUPS).contrasts(B_A).ebayes()
    np.testing.assert_allclose(fit.t, 3 / np.sqrt(2 / 3 * 2 / 4))  # s0 = sd, and u = 1/4 + 1/4
    np.testing.assert_allclose(fit.df_total, 50 * 6)
    assert np.isfinite(fit.b).all()


def test_posterior_variance_lies_between_that_of_the_protein_and_of_the_prior(contrasts):
    fit, s2 = contrasts.ebayes(), contrasts.fit.sigma2
    np.testing.assert_allclose(fit.s2_post, (fit.prior.df * fit.prior.s2 + 6 * s2) / (fit.prior.df + 6))
    assert np.all((fit.s2_post - s2) * (fit.prior.s2 - fit.s2_post) >= 0)


def test_p_values_of_proteins_that_do_not_differ_are_uniform(contrasts):
    null = contrasts.ebayes().p_value[200:, 0]
    assert ss.kstest(null, "uniform").pvalue > 0.01
    table = contrasts.ebayes().top_table(sort=False)
    hits = table["q_value"] < 0.05
    assert hits[:200].mean() > 0.9
    assert hits[200:].sum() / hits.sum() < 0.08


def test_one_contrast_has_f_equal_to_t_squared(contrasts):
    fit = contrasts.ebayes()
    np.testing.assert_allclose(fit.f_test()["f"], fit.t[:, 0] ** 2, rtol=1e-10)
    np.testing.assert_allclose(fit.f_test()["p_value"], fit.p_value[:, 0], rtol=1e-8)


def test_f_does_not_depend_on_which_contrasts_span_the_levels():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(9, 40))
    y[rng.random(y.shape) < 0.1] = np.nan
    x = pd.get_dummies(pd.Series(list("AAABBBCCC"))).astype(float)
    fit = lm_fit(y, x)
    b_a, c_a, c_b = ({"B": 1, "A": -1}, {"C": 1, "A": -1}, {"C": 1, "B": -1})
    two = fit.contrasts({"b": b_a, "c": c_a}).ebayes().f_test(observed=True)
    three = fit.contrasts({"b": b_a, "c": c_a, "cb": c_b}).ebayes().f_test(observed=True)
    assert (three["df1"] == 2).all()
    np.testing.assert_allclose(three["f"], two["f"], rtol=1e-9)


def test_the_swapped_contrast_flips_signs_and_keeps_p(contrasts):
    one = contrasts.ebayes().top_table(sort=False)
    other = contrasts.fit.contrasts({"A_vs_B": {"A": 1, "B": -1}}).ebayes().top_table(sort=False)
    for column in ("log2fc", "t"):
        np.testing.assert_allclose(other[column], -one[column], rtol=1e-12)
    np.testing.assert_allclose(other["ci_low"], -one["ci_high"], rtol=1e-12)
    np.testing.assert_allclose(other["p_value"], one["p_value"], rtol=1e-10)


def test_the_interval_leaves_out_zero_just_where_p_is_below_5_percent(contrasts):
    table = contrasts.ebayes().top_table()
    np.testing.assert_array_equal(table["ci_low"] * table["ci_high"] > 0, table["p_value"] < 0.05)


def test_treat_without_a_threshold_is_the_t_test_and_is_stricter_with_one(contrasts):
    fit = contrasts.ebayes()
    np.testing.assert_allclose(fit.treat(0, sort=False)["p_value"], fit.p_value[:, 0], rtol=1e-12)
    strict = fit.treat(0.5, sort=False)
    assert np.all(strict["p_value"] >= fit.p_value[:, 0])
    assert np.all(strict["t"][np.abs(strict["log2fc"]) <= 0.5] == 0)
    with pytest.raises(DesignError, match="lfc = -1"):
        fit.treat(-1)


def test_a_robust_prior_does_not_follow_outlying_variances():
    y = simulated(1000, d0=20)
    y[:, 500:510] += 20 * np.random.default_rng(1).normal(size=(8, 10))
    contrasts = lm_fit(y, GROUPS).contrasts(B_A)
    plain, robust = contrasts.ebayes().prior, contrasts.ebayes(robust=True).prior
    assert plain.df < 8
    assert 14 < np.median(robust.df) < 30
    assert robust.df[500:510].max() < 1
    assert contrasts.diagnose().outlying < 0.05


def test_diagnostics_ask_for_a_trend_just_where_variance_follows_intensity():
    y = simulated(1000)
    assert not lm_fit(y, GROUPS).contrasts(B_A).diagnose().trend
    mean = y.mean(axis=0)
    y = mean + (y - mean) * np.exp((25 - mean) / 5)
    contrasts = lm_fit(y, GROUPS).contrasts(B_A)
    assert contrasts.diagnose().trend
    prior = contrasts.ebayes(trend=True).prior
    assert prior.df > contrasts.ebayes().prior.df
    assert np.corrcoef(np.log(prior.s2), mean)[0, 1] < -0.95


def test_the_spline_is_linear_outside_and_smooth_inside():
    x = np.sort(np.random.default_rng(0).uniform(15, 35, 200))
    basis = spline_basis(x)
    assert basis.shape == (200, 4)
    line = np.column_stack([np.ones(200), x])
    assert np.linalg.matrix_rank(np.column_stack([basis, line])) == 4
    assert spline_basis(np.ones(5)) is None
    assert spline_basis(np.array([1.0, 2.0, 3.0])).shape == (3, 2)


def test_proteins_without_residual_variance_take_the_prior_and_leave_that_of_others_alone():
    y = simulated(300)
    few = np.full((8, 2), np.nan)
    few[[0, 4]] = [[20.0, 28.0], [21.0, 28.5]]
    for settings in ({"trend": True}, {"robust": True}, {"legacy": True}, {"trend": True, "robust": True}):
        alone = lm_fit(y, GROUPS).contrasts(B_A).ebayes(**settings)
        both = lm_fit(np.hstack([y, few]), GROUPS).contrasts(B_A).ebayes(**settings)
        np.testing.assert_allclose(both.t[:300], alone.t, rtol=1e-10)
        np.testing.assert_allclose(both.s2_post[300:], np.broadcast_to(both.prior.s2, 302)[300:])
        assert np.isfinite(both.p_value[300:]).all()


def test_one_protein_is_an_ordinary_t_test():
    y = simulated(1)
    for settings in ({}, {"robust": True}, {"trend": True}):
        fit = lm_fit(y, GROUPS).contrasts(B_A).ebayes(**settings)
        assert fit.p_value[0, 0] == pytest.approx(ss.ttest_ind(y[:4, 0], y[4:, 0]).pvalue)


def test_few_proteins_with_trend_or_robust_do_not_fail():
    for count in (2, 3, 4, 6, 11):
        fit = lm_fit(simulated(count), GROUPS).contrasts(B_A)
        for settings in ({}, {"robust": True}, {"trend": True}, {"trend": True, "robust": True}):
            assert np.isfinite(fit.ebayes(**settings).p_value).all()


def test_mostly_constant_proteins_are_warned_of():
    y = simulated(10)
    y[:, :6] = 25.0
    with pytest.warns(ProteusWarning, match="more than half of the residual variances are 0"):
        lm_fit(y, GROUPS).contrasts(B_A).ebayes()


def test_the_newer_prior_of_equal_and_unequal_degrees_of_freedom():
    rng = np.random.default_rng(0)
    df = rng.integers(1, 12, 5000).astype(float)
    s2 = 0.3 * rng.chisquare(df) / df / (rng.chisquare(5, 5000) / 5)
    prior = unequal_df_prior(s2, df)
    assert prior.df == pytest.approx(5, rel=0.1)
    assert prior.s2 == pytest.approx(0.3, rel=0.05)
    contrasts = lm_fit(simulated(100), GROUPS).contrasts(B_A)
    assert contrasts.ebayes().prior.kind == "limma < 3.61"  # all d_g are equal
    with pytest.raises(NotImplementedError, match="weighted lowess"):
        contrasts.ebayes(trend=True, legacy=False)


def test_winsorised_moments_are_those_of_a_sample():
    sample = np.log(ss.f.rvs(6, 9, size=400_000, random_state=0))
    low, high = np.quantile(sample, [0.05, 0.9])
    mean, variance = winsorised_log_moments(6, 9, (0.05, 0.1))
    clipped = np.clip(sample, low, high)
    assert mean == pytest.approx(clipped.mean(), abs=0.003)
    assert variance == pytest.approx(clipped.var(), rel=0.01)
    assert winsorised_log_moments(6, 1e9, (0.05, 0.1)) == pytest.approx(
        winsorised_log_moments(6, np.inf, (0.05, 0.1)), rel=1e-6
    )


def test_the_logarithm_of_a_tail_goes_on_where_the_tail_is_zero_in_floating_point():
    f = np.array([1e2, 1e4, 1e8])
    np.testing.assert_allclose(log_upper_tail(f[:1], 4, 20), np.log(ss.f.sf(f[:1], 4, 20)), rtol=1e-10)
    far = log_upper_tail(f, 4, 400.0)
    assert np.isfinite(far).all()
    # With 4 and d2 degrees of freedom P = y^a (1 + a (1 - y)), a = d2/2, y = d2/(d2 + 4 f).
    y = 400 / (400 + 4 * f)
    np.testing.assert_allclose(far, 200 * np.log(y) + np.log1p(200 * (1 - y)), rtol=1e-4)


def test_a_constant_variance_in_all_but_one_protein_is_robust():
    s2 = np.r_[np.full(99, 1.0), 1e6]
    prior = robust_prior(s2, np.full(100, 6.0))
    assert prior.df[-1] < 1
    assert prior.s2 == pytest.approx(1.0, rel=0.5)


def test_the_table_is_sorted_says_which_prior_and_names_unknown_contrasts(contrasts):
    table = contrasts.ebayes(trend=True).top_table("B_vs_A")
    assert table["p_value"].is_monotonic_increasing
    assert table.attrs["prior"] == "limma < 3.61, trend"
    assert list(table)[:4] == ["protein", "contrast", "log2fc", "ci_low"]
    with pytest.raises(DesignError, match="no contrast 'x'; there are B_vs_A"):
        contrasts.ebayes().top_table("x")
