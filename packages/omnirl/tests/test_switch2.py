"""Switch2: cells, rewards and the one-way corridor by hand; PettingZoo's own checks."""

from __future__ import annotations

import pytest
from gymnasium.error import ResetNeeded
from pettingzoo.test import parallel_api_test

from omnirl import OmniRLError
from omnirl.envs import Switch2, switch2_observation

DOWN, LEFT, UP, RIGHT, STAY = range(5)


def test_it_passes_the_checks_of_pettingzoo(capsys: pytest.CaptureFixture[str]) -> None:
    parallel_api_test(Switch2(), num_cycles=300)
    assert "Passed" in capsys.readouterr().out


def test_an_observation_is_the_others_column_and_the_own_cell() -> None:
    assert switch2_observation(7, 3) == 52
    first, _ = Switch2().reset(seed=0)
    assert first == {"agent_0": 5 * 15 + 1, "agent_1": 1 * 15 + 2}
    assert Switch2().observation_space("agent_0").n == 105


def run(env: Switch2, zero: list[int], one: list[int]) -> list[tuple[dict, dict, dict, dict]]:
    env.reset()
    found = []
    for a, b in zip(zero, one, strict=True):
        found.append(env.step({"agent_0": a, "agent_1": b})[:4])
    return found


# agent_0 crosses (down, four right, up, right) while agent_1 waits in the lower right end, then crosses too.
CROSSING = [DOWN, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, UP]
WAITING = [DOWN, DOWN, STAY, STAY, STAY, STAY, STAY]
RETURN = [UP, LEFT, LEFT, LEFT, LEFT, UP, LEFT]


def test_the_shortest_crossing_earns_by_hand_counted_rewards() -> None:
    env = Switch2(render_mode="ansi")
    steps = run(env, CROSSING, WAITING)
    shaped = [rewards["agent_0"] for _, rewards, *_ in steps]
    # agent_0: farther, five times nearer, goal; agent_1: farther twice, then still.
    assert shaped == pytest.approx([-0.24, -0.04] + [0.04] * 4 + [1 - 0.04])
    assert all(rewards["agent_0"] == rewards["agent_1"] for _, rewards, *_ in steps)
    assert steps[-1][2] == {"agent_0": True, "agent_1": False}
    assert env.agents == ["agent_1"]
    assert env.render() == "..###.0\n.......\n..###1."
    alone = [env.step({"agent_1": action}) for action in RETURN]
    assert [rewards for _, rewards, *_ in alone[:-1]] == [{"agent_1": pytest.approx(0.08)}] * 6
    assert alone[-1][1:3] == ({"agent_1": 1.0}, {"agent_1": True})
    with pytest.raises(ResetNeeded):
        env.step({})


def test_the_raw_reward_is_five_for_the_own_goal() -> None:
    steps = run(Switch2(raw_reward=True), CROSSING, WAITING)
    assert [rewards["agent_0"] for _, rewards, *_ in steps] == [0] * 6 + [5]
    assert [rewards["agent_1"] for _, rewards, *_ in steps] == [0] * 7


def test_agents_and_walls_are_in_the_way() -> None:
    env = Switch2()
    steps = run(env, [RIGHT, DOWN, RIGHT, RIGHT, RIGHT], [LEFT, DOWN, LEFT, LEFT, LEFT])
    columns = [observation["agent_1"] // 15 for observation, *_ in steps]  # where agent_0 is
    assert columns == [1, 1, 2, 3, 3]  # agent_0 took column 3 first, agent_1 stopped in column 4
    assert steps[-1][0]["agent_1"] == switch2_observation(8, 3)
    assert steps[0][1]["agent_0"] == pytest.approx(-0.08)


def test_an_episode_is_truncated_at_its_limit() -> None:
    env = Switch2(max_steps=2)
    steps = run(env, [STAY, STAY], [STAY, STAY])
    assert [truncated["agent_0"] for *_, truncated in steps] == [False, True]
    assert env.agents == []


def test_mistakes_are_named() -> None:
    env = Switch2()
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step({"agent_0": 0, "agent_1": 0})
    env.reset()
    with pytest.raises(OmniRLError, match="agent_1 is missing"):
        env.step({"agent_0": 0})
    with pytest.raises(OmniRLError, match="agent_0 is 5; actions are integers from 0 to 4"):
        env.step({"agent_0": 5, "agent_1": 0})
    with pytest.raises(OmniRLError, match="max_steps is 0"):
        Switch2(max_steps=0)
