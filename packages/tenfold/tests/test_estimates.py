import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tenfold import Estimate
from tenfold.estimates import less, number_text


def test_interval_of_three_seeds_is_the_closed_form_of_two_degrees_of_freedom() -> None:
    # Samples 1, 2, 3: mean 2, s = 1. Student's quantile for 2 degrees of freedom is
    # (2p - 1) / sqrt(2 p (1 - p)), which is 4.30265 at p = 0.975; the half width is that over sqrt(3).
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    estimate = Estimate((1, 2, 3))
    assert estimate.mean == 2
    assert estimate.low == pytest.approx(2 - half, rel=1e-12)
    assert estimate.high == pytest.approx(2 + half, rel=1e-12)
    assert half == pytest.approx(2.484138, abs=1e-6)


def test_interval_of_two_seeds_is_cauchys() -> None:
    # One degree of freedom is the Cauchy distribution: quantile tan(pi (p - 1/2)) = 12.7062.
    # Samples 0 and 2: s = sqrt(2), so the half width is tan(0.475 pi) * sqrt(2) / sqrt(2).
    assert Estimate((0, 2)).high == pytest.approx(1 + math.tan(0.475 * math.pi), rel=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_interval_is_scipys(samples: list[float]) -> None:
    estimate = Estimate.of(samples)
    sem = float(scipy.stats.sem(samples))
    if sem > 0:  # scipy gives NaN where all samples are equal
        mean = math.fsum(samples) / len(samples)
        low, high = scipy.stats.t.interval(0.95, len(samples) - 1, loc=mean, scale=sem)
        assert estimate.low == pytest.approx(low, rel=1e-9, abs=1e-9)
        assert estimate.high == pytest.approx(high, rel=1e-9, abs=1e-9)


@given(st.floats(-1e300, 1e300), st.integers(2, 12))
def test_equal_samples_have_their_value_as_mean_and_no_width(value: float, count: int) -> None:
    estimate = Estimate((value,) * count)
    assert estimate.low == estimate.mean == estimate.high == value


def test_one_seed_has_no_interval() -> None:
    estimate = Estimate.of(3.5)
    assert (estimate.mean, estimate.low, estimate.high) == (3.5, None, None)
    assert str(estimate) == "3.5"


def test_an_arm_that_diverged_is_no_error() -> None:
    assert Estimate((1.0, math.inf)).mean == math.inf
    assert math.isnan(Estimate((1.0, math.nan)).mean)
    assert math.isnan(Estimate((1.0, math.inf)).high or 0)


def test_of_accepts_numbers_iterables_and_estimates() -> None:
    estimate = Estimate((1.0, 2.0))
    assert Estimate.of(estimate) is estimate
    assert Estimate.of(x for x in (1, 2)) == estimate
    assert Estimate.of(1).samples == (1.0,)


def test_no_sample_and_no_number_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        Estimate(())
    with pytest.raises((TypeError, ValueError)):
        Estimate(("much",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (115265025.0, "115,265,025"),
        (3.0, "3"),
        (0.123456, "0.1235"),
        (1e-5, "1e-05"),
        (math.inf, "inf"),
        (-2.0, "-2"),
    ],
)
def test_number_text(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(("samples", "text"), [((math.inf, math.inf), "inf"), ((1.0, math.nan), "nan")])
def test_a_mean_that_is_not_finite_has_no_interval_to_show(samples: tuple[float, ...], text: str) -> None:
    assert str(Estimate(samples)) == text


def test_number_text_of_nan() -> None:
    assert number_text(math.nan) == "nan"


def test_less_takes_pairs() -> None:
    assert less([3, 2.5], (1, 2)) == [2, 0.5]
    with pytest.raises(ValueError, match="shorter"):
        less([1, 2], [1])
