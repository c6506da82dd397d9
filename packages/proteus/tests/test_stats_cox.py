from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proteus_omics.errors import DataError, DesignError, MetadataError
from proteus_omics.stats import cox_fit, schoenfeld_test

DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "proteus/golden/input_flchain.csv.gz"


def cohort(n: int = 60, proteins: int = 6, ties: int = 12, seed: int = 0, missing: float = 0.0):
    """Values, times with many ties, events; the first protein raises the hazard."""
    rng = np.random.default_rng(seed)
    x = rng.normal(25, 2, (n, proteins))
    time = np.ceil(rng.exponential(size=n) * np.exp(-0.4 * (x[:, 0] - 25)) * ties)
    x[rng.random(x.shape) < missing] = np.nan
    return x, time, rng.random(n) < 0.6


def log_likelihood(beta: np.ndarray, x: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Efron's log partial likelihood, as it is written; x is n x p, or n x p x times of death."""
    total = 0.0
    for k, t in enumerate(np.unique(time[event])):
        now = x if x.ndim == 2 else x[:, :, k]
        eta = now @ beta
        deaths, at_risk = event & (time == t), time >= t
        d = deaths.sum()
        for l in range(d):  # noqa: E741
            total -= np.log(np.exp(eta[at_risk]).sum() - l / d * np.exp(eta[deaths]).sum())
        total += eta[deaths].sum()
    return total


@pytest.mark.skipif(not DATA.is_file(), reason="$TENFOLD_DATA has no proteus/golden/input_flchain.csv.gz")
def test_flchain_equals_r_coxph():
    table = pd.read_csv(DATA)
    covariates = pd.DataFrame({"age": table["age"], "sexM": (table["sex"] == "M").astype(float)})
    kappa = cox_fit(np.log2(table[["kappa"]]), table["futime"], table["death"])
    assert kappa.coef[0, 0] == pytest.approx(0.8928599637, abs=1e-9)
    assert kappa.table()["se"][0] == pytest.approx(0.02899929839, abs=1e-10)
    assert kappa.table()["z"][0] == pytest.approx(30.78901951, abs=1e-7)
    both = cox_fit(np.log2(table[["lambda"]]), table["futime"], table["death"], covariates)
    np.testing.assert_allclose(both.coef[0], [0.5519304848, 0.1033667125, 0.3256567466], atol=1e-9)
    assert both.terms == ("age", "sexM")


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_each_protein_equals_lifelines_with_heavy_ties(missing):
    lifelines = pytest.importorskip("lifelines", reason="needs proteus-omics[survival]")
    x, time, event = cohort(missing=missing)
    sex = np.random.default_rng(1).integers(0, 2, len(x)).astype(float)
    fit = cox_fit(x, time, event, pd.DataFrame({"sex": sex}))
    for k in range(x.shape[1]):
        frame = pd.DataFrame({"x": x[:, k], "sex": sex, "time": time, "event": event}).dropna()
        peer = lifelines.CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-12})
        np.testing.assert_allclose(fit.coef[k], peer.params_, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(fit.covariance[k], peer.variance_matrix_, rtol=1e-5, atol=1e-8)
        assert (fit.n[k], fit.n_events[k]) == (len(frame), frame["event"].sum())


def test_the_estimate_is_the_maximum_of_the_likelihood():
    x, time, event = cohort(n=25, proteins=2, ties=4)
    fit = cox_fit(x[:, :1], time, event, x[:, 1:])
    best = log_likelihood(fit.coef[0], x, time, event)
    for move in 1e-3 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1]]):
        assert log_likelihood(fit.coef[0] + move, x, time, event) < best


def test_units_and_order_do_not_matter():
    x, time, event = cohort(missing=0.2)
    one = cox_fit(x, time, event).table()
    order = np.random.default_rng(3).permutation(len(x))
    other = cox_fit(1000 * x[order] - 7, time[order], event[order]).table()
    np.testing.assert_allclose(other["coef"] * 1000, one["coef"], rtol=1e-9)
    np.testing.assert_allclose(other["p_value"], one["p_value"], rtol=1e-8)


def test_perfect_order_of_deaths_is_flagged_and_not_a_huge_number():
    time = np.arange(1.0, 11)
    x = np.column_stack([-time, time, np.ones(10), np.sin(time), np.r_[np.nan, time[1:]], time])
    x[:, 5] = np.nan
    event = np.ones(10, dtype=bool)
    table = cox_fit(x, time, event).table()
    assert table["flag"].tolist() == [
        "monotone likelihood",
        "monotone likelihood",
        "constant",
        "",
        "monotone likelihood",
        "no events",
    ]
    numbers = table[["coef", "se", "hr", "z", "p_value", "q_value"]]
    assert numbers[table["flag"] != ""].isna().all(axis=None)
    assert numbers[table["flag"] == ""].notna().all(axis=None)


def test_a_protein_that_follows_from_a_covariate_or_separates_with_it_has_no_finite_estimate():
    x, time, event = cohort(n=40, proteins=2)
    assert cox_fit(2 * x[:, 1:] + 3, time, event, x[:, 1:]).flag.tolist() == ["no finite estimate"]
    rng = np.random.default_rng(0)
    time, one = np.arange(40.0), rng.normal(size=40)
    other = -time - one  # one + other orders the deaths, neither does alone
    assert cox_fit(one[:, None], time, np.ones(40), other[:, None]).flag[0] == "no finite estimate"


def test_the_screen_finds_the_protein_that_matters_and_is_calibrated():
    x, time, event = cohort(n=150, proteins=400, ties=1000)
    table = cox_fit(pd.DataFrame(x).add_prefix("P"), time, event).table()
    assert table["q_value"].idxmin() == 0
    assert table["protein"][0] == "P0"
    assert table["hr"][0] == pytest.approx(np.exp(0.4), rel=0.25)
    assert table["ci_low"][0] < table["hr"][0] < table["ci_high"][0]
    assert 0.02 < (table["p_value"][1:] < 0.05).mean() < 0.085


def test_schoenfelds_test_is_the_score_test_of_a_term_that_changes_with_time():
    x, time, event = cohort(n=30, proteins=2, ties=6)
    table = schoenfeld_test(x[:, :1], time, event, x[:, 1:])
    beta = cox_fit(x[:, :1], time, event, x[:, 1:]).coef[0]
    times, g, survival = np.unique(time[event]), [], 1.0
    for t in times:
        g.append(1 - survival)
        survival *= 1 - (event & (time == t)).sum() / (time >= t).sum()
    changing = (x[:, 0] - x[:, 0].mean())[:, None] * np.array(g)
    extended = np.dstack([np.column_stack([x, column]) for column in changing.T])

    def value(*moves: float) -> float:
        return log_likelihood(np.r_[beta, 0] + moves, extended, time, event)

    h = 1e-3 * np.eye(3)
    score = (value(*h[2]) - value(*-h[2])) / 2e-3
    information = -np.array(
        [[(value(*a + b) - value(*a - b) - value(*b - a) + value(*-a - b)) / 4e-6 for a in h] for b in h]
    )
    expected = score**2 * np.linalg.inv(information)[2, 2]
    assert table["chi2"][0] == pytest.approx(expected, rel=1e-3)


def test_schoenfelds_test_sees_an_effect_that_turns_round():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    early = rng.exponential(size=400) * np.exp(-x[:, 0])
    late = 0.7 + rng.exponential(size=400) * np.exp(x[:, 0])
    time = np.where(early < 0.7, early, late)
    table = schoenfeld_test(x, time, np.ones(400))
    assert table["p_value"][0] < 1e-6
    assert table["p_value"][1] > 0.01


def test_wrong_input_is_named():
    x, time, event = cohort()
    with pytest.raises(MetadataError, match="X has 60 samples"):
        cox_fit(x, time[:-1], event)
    with pytest.raises(DataError, match="not below 0"):
        cox_fit(x, time - 5, event)
    with pytest.raises(DataError, match=r"0 .censored. or 1"):
        cox_fit(x, time, event + 1)
    with pytest.raises(DesignError, match="no sample has an event"):
        cox_fit(x, time, event * 0)
    with pytest.raises(DataError, match="missing or infinite"):
        cox_fit(x, time, event, np.full((60, 1), np.nan))
    with pytest.raises(DesignError, match="same value in all samples"):
        cox_fit(x, time, event, np.ones((60, 1)))
    with pytest.raises(MetadataError, match="covariates have the shape"):
        cox_fit(x, time, event, np.ones(60))
