"""The alarm goes off when rewards rise while outcomes fall, and not otherwise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from implicit_prime.overoptimization import WINDOW, OveroptimizationAlarm


def told(rewards: list[float], outcomes: list[float]) -> list[int]:
    alarm = OveroptimizationAlarm()
    pairs = zip(rewards, outcomes, strict=True)
    return [step for step, (reward, outcome) in enumerate(pairs, 1) if alarm.add(reward, outcome)]


RISING = [0.01 * step for step in range(2 * WINDOW)]
FALLING = [0.8 - value for value in RISING]
LEVEL = [0.5 + 0.01 * (-1) ** step for step in range(2 * WINDOW)]


@pytest.mark.parametrize(
    ("rewards", "outcomes", "steps"),
    [
        (RISING, FALLING, [WINDOW, 2 * WINDOW]),  # once in a window
        (RISING, RISING, []),
        (FALLING, FALLING, []),
        (LEVEL, FALLING, []),
        (RISING, LEVEL, []),
        ([1.0] * WINDOW, [0.0] * WINDOW, []),
    ],
)
def test_only_rewards_that_rise_while_outcomes_fall_are_told(
    rewards: list[float], outcomes: list[float], steps: list[int]
) -> None:
    assert told(rewards, outcomes) == steps


def test_noise_is_no_alarm() -> None:
    random = np.random.default_rng(0)
    assert told(random.normal(size=1000).tolist(), random.normal(size=1000).tolist()) == []


def test_the_message_has_both_movements_and_what_to_do() -> None:
    alarm = OveroptimizationAlarm()
    (message,) = filter(None, [alarm.add(*step) for step in zip(RISING, FALLING, strict=True)][:WINDOW])
    assert "from 0.045 to 0.145, while outcomes fell, from 0.755 to 0.655" in message
    assert "process_weight" in message


def test_it_goes_on_where_it_was() -> None:
    one, two = OveroptimizationAlarm(), OveroptimizationAlarm()
    for step in range(WINDOW - 1):
        assert one.add(RISING[step], FALLING[step]) is None
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two.add(RISING[WINDOW - 1], FALLING[WINDOW - 1])


def test_where_it_goes_back_it_forgets_the_steps_after() -> None:
    alarm = OveroptimizationAlarm()
    alarm.add(1.0, 0.5)
    before = alarm.state_dict()
    alarm.add(2.0, 0.4)
    alarm.load_state_dict(before)
    assert alarm.state_dict() == before
