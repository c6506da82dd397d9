from __future__ import annotations

import numpy as np
import pytest

from omnirl.data.mixtures import ACTORS, METHODS, MIXES, Behaviour, Draws, Scale, method_named
from omnirl.data.rollout import Cast

SCALE = Scale(states=16, actions=5, steps=8000)
COUNT = 2000


def draws(count=COUNT, seed=0):
    return Draws([np.random.default_rng((seed, i)) for i in range(count)])


def behaviour(name, mix="paper"):
    return next(b for b in MIXES[mix] if b.name == name)


def test_the_paper_mix_has_the_official_probabilities():
    assert [(b.name, b.probability) for b in MIXES["paper"]] == [
        ("random", 0.10),
        ("mbrl", 0.10),
        ("qlearn", 0.10),
        *((f"mbrl+opt{k}", 0.10) for k in range(4)),
        ("opt2+noise", 0.10),
        ("opt3+noise", 0.10),
        ("opt1", 0.02),
        ("opt2", 0.03),
        ("opt3", 0.05),
    ]
    assert sum(b.probability for b in MIXES["paper"]) == pytest.approx(1)


def test_a_sequence_draws_the_same_settings_in_any_company():
    alone = Draws([np.random.default_rng((0, 7))])
    together = draws(9)
    for _ in range(150):
        assert alone.uniform()[0] == together.uniform()[7]
    assert (alone.normal(2, 3)[0] == together.normal(2, 3)[7]).all()
    assert alone.exponential(2.0)[0] == together.exponential(2.0)[7]


def test_exponential_draws_have_their_mean():
    found = draws().exponential(3.0)
    assert found.min() >= 0
    assert found.mean() == pytest.approx(3, abs=4 * 3 / np.sqrt(COUNT))


def test_half_of_the_learners_are_steady_and_those_have_no_noise():
    d = draws()
    settings = ACTORS["mbrl"](d, SCALE)
    steady = settings["steady"]
    assert steady.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(COUNT))
    assert (settings["bonus"][steady] == 0.005).all()
    assert (settings["gamma"][~steady] == 0.99).all()
    assert 0.9 <= settings["gamma"][steady].min() < 0.905
    ramp = behaviour("mbrl").noise(d, SCALE, settings)
    assert (ramp.start[steady] == 0).all()
    assert 0.1 <= ramp.start[~steady].min() < ramp.start.max() < 0.5
    assert -0.1 / 80 < ramp.slope.min() < ramp.slope.max() <= 0


def test_q_learning_has_the_horizon_of_the_sequence_or_a_drawn_one():
    settings = ACTORS["qlearn"](draws(), SCALE)
    steady = settings["steady"]
    assert (settings["horizon"][steady] == 8000).all()
    assert (settings["alpha"][steady] == 0.01).all()
    assert settings["horizon"][~steady].mean() == pytest.approx(4050, rel=0.05)


def test_random_rows_are_sharp_and_their_drift_is_stochastic():
    settings = ACTORS["random"](draws(200), SCALE)
    assert settings["logits"].shape == (200, 16, 5)
    np.testing.assert_allclose(settings["drift"].sum(-1), 1)
    assert settings["drift"].min() >= 0
    assert np.abs(settings["drift"] - np.eye(5)).max() < 1e-3
    # κ ~ Exp(2) has the mean square 8.
    assert np.square(settings["logits"]).mean() == pytest.approx(8, rel=0.5)


def test_noise_time_scale_makes_the_schedules_faster():
    slow = behaviour("opt3+noise").noise(draws(), SCALE, {})
    fast = behaviour("opt3+noise").noise(draws(), SCALE._replace(time=0.03125), {})
    assert slow.start == fast.start == 1
    np.testing.assert_allclose(fast.slope, slow.slope * 32)
    assert slow.slope.min() == pytest.approx(-1 / 80, rel=0.01)


def act(mix, time=0, count=COUNT, state=3, seed=0):
    cast = Cast(tuple(mix), draws(count, seed), Scale(16, 5, 8000))
    u = np.random.default_rng(seed + 1).random((count, 9 + cast.uniforms))
    return cast, cast.act(time, np.full(count, state), lambda rows, level: level, u)


def test_noise_takes_every_action_the_last_one_too():
    _, (action, tag) = act([behaviour("opt3+noise")], count=10_000)
    assert (tag == 6).all()
    counts = np.bincount(action, minlength=5)
    assert np.square(counts - 2000).sum() / 2000 < 18.5  # chi-square with 4 degrees of freedom, p = .001


def test_a_pure_oracle_acts_its_own_level_with_its_tag():
    for k in (1, 2, 3):
        _, (action, tag) = act([behaviour(f"opt{k}")], count=50)
        assert (action == k).all()
        assert (tag == k).all()


def test_a_mixed_teacher_is_as_frequent_as_its_ramp_says():
    # After many steps the share is at its cap U(0,.2), the noise at its floor max(U(-.5,.5), 0).
    cast, (_, tag) = act([behaviour("mbrl+opt2")], time=10**7, count=6000)
    noise, share = cast._ramps[0, 0, 2], cast._ramps[0, 1, 3]
    for wanted, found in (
        (noise.mean(), (tag == 6).mean()),
        (((1 - noise) * share).mean(), (tag == 2).mean()),
        (((1 - noise) * (1 - share)).mean(), (tag == 4).mean()),
    ):
        assert found == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / 6000))
    assert noise.mean() == pytest.approx(0.125, abs=0.012)
    assert share.mean() == pytest.approx(0.1, abs=0.012)


def test_before_its_ramp_has_risen_the_teacher_never_acts():
    _, (_, tag) = act([behaviour("mbrl+opt2")])
    assert set(tag) == {4, 6}


def test_behaviours_are_put_on_with_their_probabilities():
    cast = Cast(MIXES["paper"], draws(4000), Scale(2, 2, 100))
    found = np.bincount(cast.on, minlength=12) / 4000
    wanted = np.array([b.probability for b in MIXES["paper"]])
    assert (np.abs(found - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / 4000)).all()


def test_planners_share_one_world_model():
    cast = Cast(MIXES["paper"], draws(3), SCALE)
    assert [type(learner).__name__ for learner in cast._learners] == ["WorldModel", "RandomRows", "QLearning"]
    assert len(cast._actors) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ppo",), "no method 'ppo'; there are dpd, dpt, ad, ad_eps"),
        (("dpd", "papers"), "no mix 'papers'; there are paper, explore"),
        (("ad", "paper"), "method 'ad' has its own mix"),
        (("dpd", []), "at least"),
    ],
)
def test_unknown_methods_and_mixes_are_told_with_those_that_there_are(arguments, message):
    with pytest.raises(ValueError, match=message):
        method_named(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actor": "sarsa"}, "no actor 'sarsa'"),
        ({"teacher": 4}, "teacher is 4"),
        ({}, "needs an actor or a teacher"),
        ({"teacher": 1, "probability": 0.0}, "must be positive"),
    ],
)
def test_an_impossible_behaviour_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Behaviour(**{"name": "mine", "probability": 1.0, **arguments})


def test_each_method_needs_only_its_own_oracles():
    assert {name: method.levels for name, method in METHODS.items()} == {
        "dpd": {0, 1, 2, 3},
        "dpt": {3},
        "ad": set(),
        "ad_eps": {3},
    }
