from __future__ import annotations

import math

import numpy as np
import pytest

from implicit_prm import ImplicitPRMError, ImplicitPRMWarning
from implicit_prm.calibration import Calibration, calibration_error, fit_calibration


def drawn(prompts, responses, slope, prompt_slope, bias, seed=0):
    """Rewards with an offset a prompt, and labels drawn with the probabilities of a known calibration."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(prompts), responses)
    h = rng.normal(-3, 2, size=prompts)[ids] + rng.normal(0, 0.5, size=len(ids))
    p = Calibration(slope, prompt_slope, bias).probabilities(h, ids.tolist())
    return h, (rng.random(len(ids)) < p).astype(float), ids.tolist(), p


def test_the_known_numbers_are_found_again():
    h, labels, prompts, p = drawn(2000, 8, slope=4.0, prompt_slope=0.3, bias=0.7)
    found = fit_calibration(h, labels, prompts)
    # 16,000 responses: the standard errors are about 0.05, 0.01, 0.04
    assert (found.slope, found.prompt_slope, found.bias) == pytest.approx((4.0, 0.3, 0.7), abs=0.15)
    assert found.temperature == pytest.approx(0.25, abs=0.01)
    assert found.probabilities(h, prompts) == pytest.approx(p, abs=0.03)


def test_at_the_optimum_mean_probability_and_mean_reward_are_those_of_the_labels():
    h, labels, prompts, _ = drawn(200, 4, slope=2.0, prompt_slope=0.5, bias=0.0)
    residual = fit_calibration(h, labels, prompts).probabilities(h, prompts) - labels
    # d loss / d bias = 0 exactly; d loss / d slopes = 0 up to the penalty of 1e-4 a response
    assert residual.mean() == pytest.approx(0, abs=1e-10)
    assert (residual * h).mean() == pytest.approx(0, abs=1e-3)


def test_a_threshold_on_probabilities_finds_what_a_threshold_on_rewards_cannot():
    # every prompt has one right and one wrong response a unit apart, at its own height
    offsets = np.array([-8.0, -3.0, 0.0, 5.0, 9.0])
    h, prompts = np.concatenate([offsets + 0.5, offsets - 0.5]), list(range(5)) * 2
    labels = [1.0] * 5 + [0.0] * 5
    p = fit_calibration(h, labels, prompts).probabilities(h, prompts)
    assert ((p > 0.5) == labels).all()
    assert max(np.mean((h > threshold) == labels) for threshold in h) <= 0.6


def test_the_offset_is_where_the_probability_is_one_half():
    calibration = Calibration(slope=4.0, prompt_slope=0.3, bias=0.7)
    offset = calibration.offset(-2.0)
    logit = 4.0 * (offset + 2.0) + 0.3 * -2.0 + 0.7
    assert logit == pytest.approx(0)
    # without an offset a prompt it is the same for all prompts: -bias / slope
    assert Calibration(2.0, 2.0, 1.0).offset([-5.0, 0.0, 3.0]) == pytest.approx([-0.5] * 3)


def test_with_one_response_a_prompt_the_rewards_themselves_are_calibrated():
    # three quarters right at h = 1, one quarter at h = -1: logit p = h log 3
    h, labels = np.array([1.0] * 4 + [-1.0] * 4), [1, 1, 1, 0, 0, 0, 0, 1]
    found = fit_calibration(h, labels, range(8))
    assert found.slope == found.prompt_slope == pytest.approx(math.log(3), rel=1e-3)
    assert found.bias == pytest.approx(0, abs=1e-9)


def test_rewards_that_separate_perfectly_give_finite_numbers():
    found = fit_calibration([1.0, -1.0, 100.0, -100.0], [1, 0, 1, 0], ["a", "a", "b", "b"])
    assert all(map(math.isfinite, (found.slope, found.prompt_slope, found.bias)))
    assert found.slope > 0


def test_rewards_that_prefer_the_wrong_response_are_warned_of():
    with pytest.warns(ImplicitPRMWarning, match="right responses do not have the higher rewards"):
        fit_calibration([0.0, 1.0, 5.0, 7.0], [1, 0, 1, 0], ["a", "a", "b", "b"])


def test_the_calibration_error_by_hand():
    # bins [0, .5): mean p 0.2, one of two right; [.5, 1]: mean p 0.9, both right
    assert calibration_error([0.1, 0.3, 0.8, 1.0], [1, 0, 1, 1], bins=2) == pytest.approx((0.6 + 0.2) / 4)
    assert calibration_error([0.0, 1.0], [0, 1]) == 0


def test_the_fit_lowers_the_calibration_error_of_other_prompts():
    h, labels, prompts, _ = drawn(1000, 8, slope=3.0, prompt_slope=0.0, bias=0.2)
    fresh = drawn(1000, 8, slope=3.0, prompt_slope=0.0, bias=0.2, seed=1)
    raw = calibration_error(1 / (1 + np.exp(-fresh[0])), fresh[1])
    fitted = calibration_error(
        fit_calibration(h, labels, prompts).probabilities(fresh[0], fresh[2]), fresh[1]
    )
    assert raw > 0.2
    assert fitted < 0.02


@pytest.mark.parametrize(
    ("outcomes", "labels", "prompts", "message"),
    [
        ([1.0, 2.0], [0, 1], ["a"], r"outcome rewards of shape \(2,\) and 1 prompts"),
        ([], [], [], r"outcome rewards of shape \(0,\) and 0 prompts"),
        ([1.0, math.nan], [0, 1], ["a", "a"], "outcome reward of response 1 is not finite"),
        ([1.0, 2.0], [0], ["a", "a"], r"2 responses and values \(label\) of shape \(1,\)"),
        ([1.0, 2.0], [0, 2], ["a", "a"], "label of response 1 is 2.0"),
        ([1.0, 2.0], [1, 1], ["a", "a"], "all labels are 1; calibration needs right and wrong"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(outcomes, labels, prompts, message):
    with pytest.raises(ImplicitPRMError, match=message):
        fit_calibration(outcomes, labels, prompts)
