from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_ind

from proteus_omics.design import Design
from proteus_omics.errors import DataError, DesignError, MetadataError, NoReplicatesError
from proteus_omics.stats import bh, design_matrix, level_contrasts, lm_fit

GROUPS = pd.get_dummies(pd.Series(list("AAABBB"))).astype(float)
B_A = {"B_vs_A": {"B": 1, "A": -1}}


def table(n: int, proteins: int, missing: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y = rng.normal(25, 1, (n, proteins))
    y[rng.random(y.shape) < missing] = np.nan
    return y


def slow_fit(y: np.ndarray, x: np.ndarray, c: np.ndarray) -> tuple[float, float, float, float]:
    """l, sqrt(u), s^2 and d of one protein, by pseudo-inverse; NaN where c is not in the row space."""
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    inverse = np.linalg.pinv(x.T @ x)
    beta = inverse @ x.T @ y
    df = len(y) - np.linalg.matrix_rank(x) if len(y) else 0
    s2 = np.sum((y - x @ beta) ** 2) / df if df else np.nan
    if not len(y) or not np.allclose(np.linalg.pinv(x) @ x @ c, c, atol=1e-8):
        return np.nan, np.nan, s2, df
    return c @ beta, np.sqrt(c @ inverse @ c), s2, df


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.9), st.integers(2, 5))
def test_every_pattern_of_missing_values_gives_what_a_fit_of_that_protein_alone_gives(seed, missing, terms):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, 9)
    group[:2] = 0, 1
    x = np.column_stack([group == 0, group == 1, rng.normal(size=(9, terms - 2))]).astype(float)
    y, c = table(9, 12, missing, seed), np.eye(terms)[1] - np.eye(terms)[0]
    fit = lm_fit(y, x).contrasts({"d": {"x2": 1, "x1": -1}})
    slow = np.array([slow_fit(column, x, c) for column in y.T])
    np.testing.assert_allclose(fit.estimate[:, 0], slow[:, 0], atol=1e-9)
    np.testing.assert_allclose(fit.stdev_unscaled[:, 0], slow[:, 1], rtol=1e-8)
    np.testing.assert_array_equal(fit.fit.df_residual, slow[:, 3])
    tested = slow[:, 3] > 0
    np.testing.assert_allclose(fit.fit.sigma2[tested], slow[tested, 2], rtol=1e-8, atol=1e-16)
    assert np.isnan(fit.fit.sigma2[~tested]).all()


def test_a_group_that_was_not_measured_gives_nan_and_not_zero():
    y = table(6, 3)
    y[3:, 1] = np.nan
    fit = lm_fit(y, GROUPS)
    contrasts = fit.contrasts({**B_A, "A_alone": {"A": 1}})
    assert np.isnan(contrasts.estimate[:, 0]).tolist() == [False, True, False]
    assert contrasts.estimate[1, 1] == pytest.approx(y[:3, 1].mean())
    assert np.isnan(fit.coefficients.loc["y2", "B"])
    assert fit.df_residual.tolist() == [4, 2, 4]


def test_a_protein_without_any_value_is_kept_as_nan():
    y = table(6, 4)
    y[:, 2] = np.nan
    top = lm_fit(y, GROUPS).contrasts(B_A).ebayes().top_table(sort=False)
    assert top.loc[2, ["log2fc", "t", "p_value", "q_value", "b", "ave_expr"]].isna().all()
    assert top.loc[[0, 1, 3], "q_value"].notna().all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(-1000, 1000))
def test_a_constant_added_to_a_protein_changes_nothing(seed, constant):
    y = table(6, 20, 0.2, seed)
    before = lm_fit(y, GROUPS).contrasts(B_A)
    after = lm_fit(y + constant, GROUPS).contrasts(B_A)
    np.testing.assert_allclose(after.estimate, before.estimate, atol=1e-10)
    np.testing.assert_allclose(after.fit.sigma2, before.fit.sigma2, rtol=1e-9, atol=1e-20)


def test_the_order_of_samples_and_proteins_does_not_matter():
    y = pd.DataFrame(table(6, 30, 0.2), columns=[f"P{k}" for k in range(30)])
    samples, proteins = np.random.default_rng(1).permutation(6), np.random.default_rng(2).permutation(30)
    one = lm_fit(y, GROUPS).contrasts(B_A).ebayes().top_table().set_index("protein")
    other = lm_fit(y.to_numpy()[samples][:, proteins], GROUPS.to_numpy()[samples])
    other = other.contrasts({"B_vs_A": {"x2": 1, "x1": -1}}).ebayes().top_table(sort=False)
    other.index = y.columns[proteins]
    np.testing.assert_allclose(other.loc[one.index, "p_value"], one["p_value"], rtol=1e-10)


def test_digits_of_nearly_constant_proteins_survive_a_large_mean():
    noise = np.random.default_rng(0).normal(size=(6, 5))
    y = 2.0**20 + np.round(noise * 2**10) / 2**20  # exact in floating point, sd 0.001
    plain = lm_fit(y - 2.0**20, GROUPS)
    np.testing.assert_allclose(lm_fit(y, GROUPS).sigma2, plain.sigma2, rtol=1e-6)


def test_without_shrinkage_the_moderated_t_is_students():
    y = table(6, 50)
    fit = lm_fit(y, GROUPS).contrasts(B_A)
    ordinary = fit.estimate[:, 0] / np.sqrt(fit.fit.sigma2) / fit.stdev_unscaled[:, 0]
    np.testing.assert_allclose(ordinary, ttest_ind(y[3:], y[:3]).statistic, rtol=1e-10)


def test_a_design_of_one_term_is_the_test_of_one_sample():
    y = table(6, 50, missing=0.3)
    fit = lm_fit(y, np.ones((6, 1))).contrasts({"mean": {"x1": 1}})
    ordinary = fit.estimate[:, 0] / np.sqrt(fit.fit.sigma2) / fit.stdev_unscaled[:, 0]
    tested = fit.fit.df_residual > 0
    t = ttest_1samp(y, 0, nan_policy="omit").statistic
    np.testing.assert_allclose(ordinary[tested], t[tested], rtol=1e-10)


def test_a_repeated_term_is_refused_by_name():
    x = GROUPS.assign(C=GROUPS["A"] + GROUPS["B"])
    with pytest.raises(DesignError, match=r"follow from those before them: C$"):
        lm_fit(table(6, 2), x)
    with pytest.raises(DesignError, match="same name"):
        lm_fit(table(6, 2), pd.concat([GROUPS, GROUPS], axis=1))


def test_wrong_input_is_named():
    y = pd.DataFrame(table(6, 2), index=list("abcdef"))
    with pytest.raises(MetadataError, match="'a' and 'f'"):
        lm_fit(y, GROUPS.set_axis(list("fedcba")))
    with pytest.raises(MetadataError, match="6 samples, the design has 5"):
        lm_fit(table(6, 2), GROUPS.iloc[:5])
    with pytest.raises(DataError, match="1 values are infinite"):
        lm_fit(np.where(np.eye(6) * np.eye(6)[:, [0] * 6], np.inf, 1.0), GROUPS)
    with pytest.raises(DataError, match="not numbers"):
        lm_fit(pd.DataFrame({"P": list("abcdef")}), GROUPS)
    with pytest.raises(DesignError, match="missing or infinite values in B"):
        lm_fit(table(6, 2), GROUPS.replace({"B": {1.0: np.nan}}))
    fit = lm_fit(table(6, 2), GROUPS)
    with pytest.raises(DesignError, match="no term 'C'; it has A, B"):
        fit.contrasts({"C_vs_A": {"C": 1, "A": -1}})
    with pytest.raises(DesignError, match="not all 0"):
        fit.contrasts({"nothing": {"A": 0}})
    with pytest.raises(DesignError, match="no contrast"):
        fit.contrasts({})


def test_one_sample_a_group_is_no_replicate():
    with pytest.raises(NoReplicatesError, match="no variance"):
        lm_fit(table(2, 5), GROUPS.iloc[[0, 3]]).contrasts(B_A).ebayes()


def test_q_values_follow_the_definition_and_leave_out_what_was_not_tested():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(bh(p), [0.04, np.nan, 0.16 / 3, 0.16 / 3, 0.5])
    assert bh([]).shape == (0,)
    assert np.isnan(bh([np.nan])).all()


SHEET = pd.DataFrame(
    {
        "group": ["A", "A", "B", "B", "B", None],
        "sex": ["M", "F", "M", "F", "M", "F"],
        "age": [30, 40, 50, 60, 70, 80],
        "patient": ["p", "q", "p", "q", "r", "s"],
    },
    index=list("abcdef"),
)


def test_the_design_has_a_term_for_each_level_and_leaves_out_samples_that_lack_a_value():
    x = design_matrix(SHEET, Design(condition="group", covariates=("sex", "age")))
    assert list(x) == ["A", "B", "sex=M", "age"]
    assert list(x.index) == list("abcde")
    assert x["age"].tolist() == [-20, -10, 0, 10, 20]
    assert x["sex=M"].tolist() == [1, 0, 1, 0, 1]


def test_the_subject_takes_part_only_in_a_paired_design():
    paired = design_matrix(SHEET, Design(condition="group", subject="patient"))
    assert list(paired) == ["A", "B", "patient=q", "patient=r"]
    assert np.linalg.matrix_rank(paired) == 4
    alone = design_matrix(SHEET.assign(patient=list("uvwxyz")), Design(condition="group", subject="patient"))
    assert list(alone) == ["A", "B"]


def test_a_paired_design_gives_the_paired_t():
    from scipy.stats import ttest_rel

    obs = pd.DataFrame({"group": ["A", "A", "A", "B", "B", "B"], "patient": list("xyzxyz")})
    y = table(6, 10)
    x = design_matrix(obs, Design(condition="group", subject="patient"))
    fit = lm_fit(y, x).contrasts(B_A)
    t = fit.estimate[:, 0] / np.sqrt(fit.fit.sigma2) / fit.stdev_unscaled[:, 0]
    np.testing.assert_allclose(t, ttest_rel(y[3:], y[:3]).statistic, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.8), st.booleans())
def test_absorbed_subjects_give_the_same_fit_as_subjects_that_are_kept(seed, missing, weighted):
    rng = np.random.default_rng(seed)
    subject = np.r_[np.repeat(np.arange(6), 2), 6, rng.integers(0, 6, 3)]
    group = np.r_[np.tile([0, 1], 6), 0, rng.integers(0, 3, 3)]
    group[-1] = 2
    terms = {f"s{k}": (subject == k) for k in range(1, 7)}
    x = pd.DataFrame(
        {name: group == at for at, name in enumerate("ABC")} | {"age": rng.normal(size=16)} | terms
    )
    x, y = x.astype(float), table(16, 40, missing, seed)
    if weighted:  # as the bootstrap of subjects does
        weight = np.sqrt(rng.exponential(size=7))[subject]
        x, y = x * weight[:, None], y * weight[:, None]
    contrasts = {**B_A, "C_vs_B": {"C": 1, "B": -1}, "age": {"age": 1}}
    kept, swept = (lm_fit(y, x, absorb).contrasts(contrasts) for absorb in ([], terms))
    assert swept.fit.terms == ("A", "B", "C", "age")
    np.testing.assert_allclose(swept.estimate, kept.estimate, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(swept.stdev_unscaled, kept.stdev_unscaled, rtol=1e-7)
    np.testing.assert_array_equal(swept.fit.df_residual, kept.fit.df_residual)
    np.testing.assert_allclose(swept.fit.sigma2, kept.fit.sigma2, rtol=1e-7, atol=1e-12)
    known = np.isfinite(kept.estimate)
    both = known[:, :, None] & known[:, None, :]
    np.testing.assert_allclose(swept.correlation()[both], kept.correlation()[both], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(swept.correlation(observed=False), kept.correlation(observed=False), atol=1e-9)


def test_only_indicators_are_absorbed():
    y, x = table(6, 2), GROUPS.assign(p=[0, 1, 0, 0, 1, 0.0], age=np.arange(6.0))
    for absorb, problem in (
        (["nobody"], "no term 'nobody' to absorb"),
        (["age"], "are indicators"),
        (["p", "A"], "at most one"),
        (list(x), "at most one"),
        (["A", "B"], None),
    ):
        if problem is None:
            assert lm_fit(y, x, absorb).terms == ("p", "age")
            continue
        with pytest.raises(DesignError, match=problem):
            lm_fit(y, x, absorb)
    with pytest.raises(DesignError, match="nothing is left to ask"):
        lm_fit(y, GROUPS, "AB")


def test_contrasts_are_named_level_vs_reference():
    assert level_contrasts(["T2D", "healthy"], "healthy") == {"T2D_vs_healthy": {"T2D": 1, "healthy": -1}}
    with pytest.raises(DesignError, match="'x' is not one of the levels a, b"):
        level_contrasts("ab", "x")
    with pytest.raises(DesignError, match="no column nothing; it has group, sex, age, patient"):
        design_matrix(SHEET, Design(condition="nothing"))


def test_paired_designs_with_lost_subjects_and_nearly_singular_masks_are_those_of_one_protein_alone():
    group = np.tile([0, 1], 8)
    subject = np.repeat(np.arange(8), 2)[:, None] == np.arange(1, 8)
    noise = np.random.default_rng(0).normal(size=16)
    nearly = np.where(np.arange(16) == 3, 1.0, 1e-4 * noise)[:, None]  # without sample 3 it is 1e-4
    x = np.column_stack([group == 0, group == 1, subject, nearly]).astype(float)
    y = table(16, 60, 0.3, seed=2)
    y[3] = np.nan
    fit = lm_fit(y, x).contrasts({"d": {"x2": 1, "x1": -1}})
    c = np.eye(10)[1] - np.eye(10)[0]
    slow = np.array([slow_fit(column, x * np.r_[np.ones(9), 1e4], c) for column in y.T])
    np.testing.assert_allclose(fit.estimate[:, 0], slow[:, 0], atol=1e-6)
    np.testing.assert_allclose(fit.stdev_unscaled[:, 0], slow[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(fit.fit.df_residual, slow[:, 3])
    assert np.isfinite(slow[:, 0]).sum() > 30
