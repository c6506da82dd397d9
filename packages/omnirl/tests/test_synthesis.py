from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omnirl.data import synthesis
from omnirl.data.mixtures import Behaviour, method_named
from omnirl.data.rollout import roll_out
from omnirl.data.sequences import COLUMNS, split_episodes
from omnirl.data.synthesis import playable_tasks, synthesize
from omnirl.data.worlds import Worlds, by_observation, greedy_actions
from omnirl.errors import OmniRLWarning
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.sampling import sample_tasks
from omnirl.tasks.task import Task

STEPS = 200


@pytest.fixture(scope="module")
def tasks():
    return sample_tasks(6, 16, 5, min_states=9, seed=3)


@pytest.fixture(scope="module")
def data(tasks):
    return synthesize(tasks, STEPS, seed=1, num_sequences=48, noise_time_scale=0.05)


def short_task(horizon=4, reward=0.0):
    """Two states, from each of which every action goes to either; only the time limit ends an episode."""
    return Task(
        transition=np.full((2, 3, 2), 0.5),
        reward=np.full((2, 3, 2), reward),
        reward_noise=np.zeros((2, 3, 2)),
        start_states=np.array([0]),
        start_probs=np.array([1.0]),
        terminal_states=np.array([], np.int64),
        state_mapping=np.array([1, 0]),
        num_observations=2,
        num_actions=3,
        max_steps=horizon,
        goal_terminates=False,
        family="test",
        seed=0,
    )


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in (*COLUMNS, "task_index"))


def test_every_step_is_possible_and_every_episode_ends_as_its_task_says(tasks, data):
    inner = by_observation(tasks, np.tile(np.arange(16), (6, 1)))
    for sequence in data:
        i = sequence["task_index"]
        task = tasks[i]
        for episode in split_episodes(sequence, 5):
            states = inner[i][episode["observations"]]
            assert states[0] in task.start_states
            assert (task.transition[states[:-1], episode["actions"], states[1:]] > 0).all()
            ends = np.isin(states, task.terminal_states)
            assert not ends[:-1].any()
            if episode["complete"]:
                assert ends[-1] or len(episode["actions"]) == task.max_steps
            else:
                assert len(episode["actions"]) <= task.max_steps
            noise = task.reward_noise[states[:-1], episode["actions"], states[1:]]
            mean = task.reward[states[:-1], episode["actions"], states[1:]]
            assert (np.abs(episode["rewards"] - mean) <= 6 * noise + 1e-4).all()


def test_after_an_episode_comes_one_filler_step(data):
    part = data.parts[0]
    filler = part["actions"] == 5
    assert filler.any()
    assert not (filler[:, 1:] & filler[:, :-1]).any()
    assert (part["tags"][filler] == 7).all()
    assert (part["labels"][filler] == -100).all()
    assert (part["rewards"][filler] == 0).all()
    assert ((part["labels"] >= 0) == ~filler).all()


def test_the_label_is_the_action_of_value_iteration_for_994(tasks, data):
    q = np.zeros(tasks.expected_reward.shape)
    goes_on = ~tasks.terminal
    for _ in range(4500):
        ahead = (q.max(-1) * goes_on)[:, :, None]
        q = tasks.expected_reward + 0.994 * (tasks.transition.reshape(6, -1, 16) @ ahead).reshape(q.shape)
    best = by_observation(tasks, q)
    for sequence in data:
        real = sequence["labels"] >= 0
        value = best[sequence["task_index"]][sequence["observations"][real]]
        rows = np.arange(len(value))
        assert (value[rows, sequence["labels"][real]] > value.max(-1) - 1e-6).all()


def test_equal_actions_are_labelled_with_the_lowest():
    assert greedy_actions(np.array([[1.0, 1 + 1e-12, 0.0], [0.0, 2.0, 2.0]])).tolist() == [0, 1]


def test_sequences_play_the_tasks_in_turn(data):
    assert data.batch(range(8))["task_index"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert (len(data), data.steps) == (48, STEPS)


def test_a_sequence_depends_on_its_number_and_seed_alone(tasks, data, monkeypatch):
    fewer = synthesize(tasks, STEPS, seed=1, num_sequences=7, noise_time_scale=0.05)
    assert same(data[6], fewer[6])
    assert not same(data[0], synthesize(tasks, STEPS, seed=2, num_sequences=1, noise_time_scale=0.05)[0])
    monkeypatch.setattr(synthesis, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(synthesis, "_TABLE_BYTES", 1)  # one row in each roll-out
    alone = synthesize(tasks, STEPS, seed=1, num_sequences=4, noise_time_scale=0.05)
    assert all(same(alone[i], data[i]) for i in range(4))


def test_the_paper_mix_shows_every_tag(data):
    assert set(np.unique(data.parts[0]["tags"])) == set(range(8))


def test_tags_are_hidden_in_sequences_and_in_episodes_with_their_probabilities():
    tasks = TaskBatch.stack([short_task()])
    data = synthesize(tasks, 50, seed=0, num_sequences=1000).parts[0]
    hidden = (data["tags"] == 7) & (data["actions"] < 3)
    episodes = hidden.reshape(1000, 10, 5)[:, :, :4]
    assert (episodes.all(-1) == episodes.any(-1)).all()  # an episode is hidden whole
    share = episodes.any(-1).mean(-1)
    error = share.std() / np.sqrt(1000)
    assert abs(share.mean() - (1 - 0.85**2)) < 4 * error
    # All ten episodes: .15 + .85 · .15^10.
    assert abs((share == 1).mean() - 0.15) < 4 * np.sqrt(0.15 * 0.85 / 1000)


def test_behaviours_change_at_ends_of_episodes_with_their_probability():
    mix = [Behaviour("a", 1, teacher=1), Behaviour("b", 1, teacher=2)]
    tasks = TaskBatch.stack([short_task()])
    tags = synthesize(tasks, 50, seed=0, num_sequences=1000, tag_mask=(0, 0), mix=mix).parts[0]["tags"]
    first = tags.reshape(1000, 10, 5)[:, :, :4]
    assert (first == first[:, :, :1]).all()
    changed = (first[:, 1:, 0] != first[:, :-1, 0]).mean(-1)
    # .85 of the sequences may switch, then .20 at an end, to the other one half of the time.
    assert abs(changed.mean() - 0.85 * 0.2 * 0.5) < 4 * changed.std() / np.sqrt(1000)


@pytest.mark.parametrize(
    ("method", "tags", "acted"),
    [("ad", {5, 6}, True), ("ad_eps", {3, 6}, True), ("dpt", {3, 5, 6}, False)],
)
def test_methods_have_their_own_policies_and_labels(tasks, method, tags, acted):
    data = synthesize(tasks, 200, seed=0, method=method, num_sequences=24, tag_mask=(0, 0)).parts[0]
    real = data["actions"] < 5
    assert set(np.unique(data["tags"][real])) == tags
    assert (data["labels"][real] == data["actions"][real]).all() == acted


def test_planning_in_a_learned_model_beats_chance_soon():
    tasks = sample_tasks(16, 16, 5, seed=5)
    mixes = ([Behaviour(name, 1, actor=name)] for name in ("mbrl-plain", "random"))
    planner, chance = (synthesize(tasks, 600, seed=0, mix=mix).parts[0]["rewards"] for mix in mixes)
    assert planner[:, -200:].mean() > chance.mean() + 0.2


def test_a_bandit_has_one_step_and_one_filler():
    tasks = sample_tasks(3, 1, 5, family="bandit", seed=0)
    part = synthesize(tasks, 21, seed=0, method="dpd").parts[0]
    assert ((part["actions"] == 5) == (np.arange(21) % 2 == 1)).all()
    assert (part["observations"] == part["observations"][:, :1]).all()


def worthless_to_look_ahead():
    """A long way to a great reward that the time limit cuts off, and a little one at every other step."""
    n = 12
    transition = np.zeros((n, 2, n))
    reward = np.zeros((n, 2, n))
    for s in range(n - 1):
        transition[s, 0, s + 1] = transition[s, 1, s] = 1
        reward[s, 1, s] = 1
    transition[n - 2, 1, n - 2] = 1
    reward[n - 2, 0, n - 1] = 1000
    return replace(
        short_task(),
        transition=transition,
        reward=reward,
        reward_noise=np.zeros((n, 2, n)),
        terminal_states=np.array([n - 1]),
        state_mapping=np.arange(n),
        num_observations=n,
        num_actions=2,
        max_steps=5,
    )


def test_tasks_in_which_the_oracle_loses_to_chance_are_left_out():
    bad = worthless_to_look_ahead()
    good = replace(bad, max_steps=20)
    with pytest.warns(OmniRLWarning, match=r"left out: 1 of 3 tasks \(the first: 1\)"):
        data = synthesize(TaskBatch.stack([good, bad, good]), 20, seed=0, num_sequences=4)
    assert data.parts[0]["task_index"].tolist() == [0, 2, 0, 2]
    with pytest.raises(ValueError, match="1 of 1 tasks"):
        playable_tasks(TaskBatch.stack([bad]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"num_sequences": 0}, "num_sequences is 0"),
        ({"tag_mask": (0.1, 2)}, "two probabilities"),
        ({"noise_time_scale": 0.0}, "must be positive"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": "ray"}, "str has none"),
        ({"method": "sac"}, "no method 'sac'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tasks, change, message):
    with pytest.raises(ValueError, match=message):
        synthesize(tasks, **{"steps": 10, "seed": 0, **change})


def test_unequal_tasks_in_one_batch_are_solved_alone():
    tasks = sample_tasks(4, 16, 5, min_states=8, seed=9)
    worlds = Worlds.build(tasks)
    for i in range(4):
        assert (Worlds.build(tasks[[i]]).oracle[0] == worlds.oracle[i]).all()


def test_a_sequence_is_the_same_in_a_roll_out_of_other_tasks(tasks):
    worlds = Worlds.build(tasks)
    method = method_named("dpd", "explore")
    streams = [np.random.default_rng(i) for i in range(3)]
    three = roll_out(worlds, np.array([4, 1, 2]), streams, 100, method)
    one = roll_out(Worlds.build(tasks[[1]]), np.array([0]), [np.random.default_rng(1)], 100, method)
    assert all((three[name][1] == one[name][0]).all() for name in COLUMNS)
