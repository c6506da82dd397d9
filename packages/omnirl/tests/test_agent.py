"""The agent remembers exactly the sequence of section 2.4, row by row, and never changes its model."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch

import omnirl
from omnirl.data.sequences import pack_episodes
from omnirl.errors import OmniRLError, OmniRLWarning
from omnirl.inference.agent import ICRLAgent
from omnirl.inference.demonstrations import Demonstrations
from omnirl.inference.temperature import TemperatureSchedule
from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL

EPISODES = [
    {"observations": [3, 5, 2, 7], "actions": [1, 0, 4], "rewards": [0.5, -1.0, 2.0]},
    {"observations": [1, 6], "actions": [2], "rewards": [0.25]},
    {"observations": [0, 0, 4], "actions": [3, 3], "rewards": [0.0, 1.0]},
]


def make_model(layout):
    torch.manual_seed(0)
    config = OmniRLConfig(8, 5, hidden_size=16, num_layers=2, num_heads=2, layout=layout)
    return OmniRL(config).eval()


@pytest.fixture(scope="module", params=["fused", "star"])
def model(request):
    return make_model(request.param)


@pytest.fixture(scope="module")
def fused():
    return make_model("fused")


def logits_after(model, episodes, obs):
    """What the model says at `obs` after these episodes, by the parallel form."""
    packed = pack_episodes([*episodes, {"observations": [obs, 0], "actions": [0], "rewards": [0.0]}], 5)
    columns = [torch.as_tensor(packed[name])[None] for name in ("observations", "tags", "actions", "rewards")]
    with torch.no_grad():
        return model(*columns).policy_logits[0, -2].double().numpy()


def play(agent, scripts):
    """Let each row follow its own list of episodes; rows wait in next_step order."""
    rows = len(scripts)
    place = [[0, 0] for _ in range(rows)]
    fresh = np.zeros(rows, bool)
    for _ in range(max(sum(len(e["actions"]) + 1 for e in s) for s in scripts)):
        obs, action, reward, nxt, end = np.zeros((5, rows))
        for i, script in enumerate(scripts):
            e, t = place[i]
            episode = script[e]
            obs[i] = episode["observations"][t]
            if fresh[i]:
                place[i] = [e + 1, 0]
                fresh[i] = False
                continue
            action[i], reward[i] = episode["actions"][t], episode["rewards"][t]
            nxt[i], place[i][1] = episode["observations"][t + 1], t + 1
            end[i] = fresh[i] = t + 1 == len(episode["actions"])
        agent.act(obs.astype(int))
        agent.observe(action.astype(int), reward, nxt.astype(int), end.astype(bool), np.zeros(rows, bool))


def transitions(episode):
    obs, count = episode["observations"], len(episode["actions"])
    ends = np.arange(count) == count - 1
    return zip(obs, episode["actions"], episode["rewards"], obs[1:], ends, strict=False)


def one_step(obs, action):
    return {"observations": [obs, 0], "actions": [action], "rewards": [0.0]}


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_next_step_observations_make_the_packed_sequence(model):
    agent = ICRLAgent(model, temperature=1.0)
    agent.reset(2)
    other = [EPISODES[0] | {"rewards": [9.0, 9.0, 9.0]}, *EPISODES[1:]]
    play(agent, [EPISODES, other])
    for row, script in enumerate((EPISODES, other)):
        expected = log_softmax(logits_after(model, script, 6))
        np.testing.assert_allclose(np.log(agent.policy([6, 6])[row]), expected, atol=1e-4)


@pytest.mark.parametrize("autoreset", ["same_step", "none"])
def test_rows_that_end_at_different_times_get_their_own_filler_steps(model, autoreset):
    agent = ICRLAgent(model, temperature=1.0)
    agent.reset(2, autoreset=autoreset)
    # row 0: an episode of one step, then one of two; row 1: one of two steps, then one step of the next
    scripts = ([EPISODES[1], EPISODES[2]], [EPISODES[2], EPISODES[1]])
    steps = [[step for episode in script for step in transitions(episode)] for script in scripts]
    for both in zip(*steps, strict=True):
        obs, action, reward, nxt, end = (np.array(column) for column in zip(*both, strict=True))
        agent.act(obs)
        agent.observe(action, reward, nxt, end, np.zeros(2, bool))
    found = np.log(agent.policy([7, 7]))
    for row, script in enumerate(scripts):
        np.testing.assert_allclose(found[row], log_softmax(logits_after(model, script, 7)), atol=1e-4)


@pytest.mark.parametrize(
    ("layout", "options"),
    [("fused", {}), ("star", {}), ("fused", {"window": 40}), ("fused", {"mixer": "gated_deltanet"})],
)
def test_fillers_at_once_cost_no_more_places_than_the_longest_history(layout, options):
    torch.manual_seed(0)
    rows, config = 4, OmniRLConfig(8, 5, hidden_size=16, num_layers=2, num_heads=2, layout=layout, **options)
    model = OmniRL(config)
    agent = ICRLAgent(model)
    agent.reset(rows, "same_step")
    rng, no = np.random.default_rng(0), np.zeros(rows, bool)
    histories = [[] for _ in range(rows)]
    for step in range(60):
        obs, nxt, action = rng.integers(8, size=rows), rng.integers(8, size=rows), rng.integers(5, size=rows)
        ended = rng.random(rows) < [0, 0.1, 0.3, 0.9 * (step < 12)]  # who is the longest changes
        agent.act(obs)
        agent.observe(action, np.ones(rows), nxt, ended, no)
        for row, history in enumerate(histories):
            history.append((obs[row], 7, action[row], 1.0))
            history += [(nxt[row], 7, 5, 0.0)] * int(ended[row])
    memory = agent.memory
    assert len({len(history) for history in histories}) == rows
    np.testing.assert_array_equal(memory["tokens"], [len(h) * model.layout.size for h in histories])
    found = np.log(agent.policy(np.full(rows, 3)))
    alone = ICRLAgent(model)
    for row, history in enumerate(histories):
        alone.reset()
        alone.commit(*(np.array(column)[None] for column in zip(*history, strict=True)))
        np.testing.assert_allclose(found[row], np.log(alone.policy([3])[0]), atol=1e-4)
    if not options:
        assert memory["used"] == memory["tokens"].max()


def test_demonstrations_of_different_lengths_fill_each_row_with_its_own(model):
    agent = ICRLAgent(model, temperature=1.0)
    agent.reset(3)
    scripts = [EPISODES, EPISODES[1:2], EPISODES[:1]]
    agent.load_demonstrations(scripts, tag="unknown")
    found = np.log(agent.policy([2, 2, 2]))
    for row, script in enumerate(scripts):
        np.testing.assert_allclose(found[row], log_softmax(logits_after(model, script, 2)), atol=1e-4)


def test_the_tag_of_a_demonstration_is_its_own_or_the_given_one():
    tagged = {**EPISODES[1], "tags": [5]}
    demos = Demonstrations.from_episodes([EPISODES[1], tagged], 5, tag="opt2")
    np.testing.assert_array_equal(demos.tags[0], [2, 7, 5, 7])
    np.testing.assert_array_equal(demos.actions[0], [2, 5, 2, 5])
    np.testing.assert_array_equal(demos.terminated[0], [True, False, True, False])
    assert demos.reward_rate()[0] == pytest.approx(0.25)
    np.testing.assert_array_equal(demos.without_tags().tags, 7)


def test_acting_commits_nothing_and_changes_no_parameter(model):
    agent = ICRLAgent(model)
    agent.reset(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    agent.load_demonstrations(EPISODES)
    first = agent.policy([1, 2])
    for obs in ([3, 4], [0, 0], [7, 1]):
        agent.act(obs)
    np.testing.assert_array_equal(agent.policy([1, 2]), first)
    play(agent, [EPISODES, EPISODES])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_kept_memory_goes_on_twice_from_the_same_place(fused):
    agent = ICRLAgent(fused)
    agent.load_demonstrations(EPISODES)
    kept, first = agent.memory, agent.policy([4])
    agent.load_demonstrations(EPISODES[:1])
    assert not np.allclose(agent.policy([4]), first)
    agent.memory = kept
    np.testing.assert_array_equal(agent.policy([4]), first)


def test_a_memory_is_a_file(fused, tmp_path):
    agent = ICRLAgent(fused)
    agent.load_demonstrations(EPISODES)
    torch.save(agent.memory, tmp_path / "skill.pt")
    expected = agent.policy([4])
    agent.reset()
    agent.memory = torch.load(tmp_path / "skill.pt", weights_only=True)
    np.testing.assert_array_equal(agent.policy([4]), expected)


def test_many_worlds_are_played_through_gymnasium_s_vector_environment():
    tasks = omnirl.sample_tasks(4, num_states=1, num_actions=5, family="bandit", seed=0)
    worlds = gym.make_vec("omnirl/Bandit-v0", vectorization_mode="vector_entry_point", tasks=tasks)
    agent = ICRLAgent(OmniRL(OmniRLConfig(1, 5, hidden_size=16, num_layers=1, num_heads=2, layout="fused")))
    agent.reset(worlds.num_envs)
    obs, _ = worlds.reset(seed=0)
    for step in range(6):
        action = agent.act(obs)
        obs, reward, terminated, truncated, _ = worlds.step(action)
        agent.observe(action, reward, obs, terminated, truncated)
        # a bandit's every step ends it: pull, filler, pull, filler
        remembered = agent.memory["last"]["actions"].numpy()
        assert ((remembered == 5) == (step % 2 == 1)).all()


def test_forgetting_isolates_rows(fused):
    agent = ICRLAgent(fused)
    agent.reset(2)
    agent.load_demonstrations(EPISODES)
    kept = agent.policy([4, 4])[1]
    agent.forget([True, False])
    found = agent.policy([4, 4])
    np.testing.assert_allclose(found[1], kept, atol=1e-6)
    agent.reset(1)
    np.testing.assert_allclose(found[0], agent.policy([4])[0], atol=1e-6)


def test_fewer_actions_than_the_model_has_are_met_by_modulo_and_remembered_as_chosen(fused):
    agent = ICRLAgent(fused, num_actions=2)
    agent.reset(400)
    action = agent.act(np.zeros(400, int))
    assert set(action) == {0, 1}
    assert set(agent._chosen) == {0, 1, 2, 3, 4}
    nothing = np.zeros(400, bool)
    agent.observe(action, np.zeros(400), np.zeros(400), nothing, nothing)
    np.testing.assert_array_equal(agent.memory["last"]["actions"].numpy(), agent._chosen)


def test_actions_follow_the_softmax_at_the_temperature(fused):
    agent = ICRLAgent(fused, temperature=0.25)
    agent.reset(4_000)
    probabilities = agent.policy(np.full(4_000, 3))[0]
    counts = np.bincount(agent.act(np.full(4_000, 3)), minlength=5)
    sigma = np.sqrt(4_000 * probabilities * (1 - probabilities))
    assert (np.abs(counts - 4_000 * probabilities) < 4.5 * sigma + 1).all()
    assert (agent.act(np.full(4_000, 3), greedy=True) == probabilities.argmax()).all()


def test_at_temperature_0_the_likeliest_action_is_taken_and_so_near_0(fused):
    greedy = ICRLAgent(fused).act([3], greedy=True)[0]
    assert greedy != 0  # else an agent that always plays 0 would pass
    for temperature in (0, 1e-300, lambda step: 0.0):
        agent = ICRLAgent(fused, temperature=temperature)
        np.testing.assert_array_equal(agent.policy([3])[0], np.eye(5)[greedy])
        assert agent.act([3])[0] == greedy


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_other_temperatures_are_refused(fused, wrong):
    with pytest.raises(OmniRLError, match=f"temperature is {wrong}"):
        ICRLAgent(fused, temperature=wrong)
    with pytest.raises(OmniRLError, match=f"temperature is {wrong}"):
        ICRLAgent(fused, temperature=lambda step: wrong).act([0])


def test_temperature_schedules_have_their_golden_values():
    assert TemperatureSchedule()(5000) == pytest.approx(0.55)
    assert TemperatureSchedule(kind="exponential")(5000) == pytest.approx(0.31623, abs=1e-5)
    assert TemperatureSchedule()(10**6) == pytest.approx(0.1)


def test_sb3_evaluates_the_agent_as_it_does_its_own_policies(fused):
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    torch.manual_seed(0)
    model = OmniRL(OmniRLConfig(16, 5, hidden_size=16, num_layers=1, num_heads=2, layout="fused"))
    agent = ICRLAgent(model, num_actions=4)
    lake = gym.make("FrozenLake-v1", is_slippery=False)
    returns, lengths = evaluation.evaluate_policy(
        agent, lake, n_eval_episodes=5, return_episode_rewards=True, deterministic=False, warn=False
    )
    assert len(returns) == len(lengths) == 5
    assert agent.predict(np.array([0, 1, 2]))[0].shape == (3,)
    assert agent.predict(0)[0].shape == ()
    assert set(returns) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.observe([0], [0], [0], [False], [False]), "call act"),
        (lambda a: a.act([9]), "model of 8 states"),
        (lambda a: a.act([0, 1]), "2 entries for 1 runs"),
        (lambda a: (a.act([0]), a.observe([5], [0], [0], [False], [False])), "out of range"),
        (lambda a: (a.act([0]), a.observe([1], [np.nan], [0], [False], [False])), "must be finite"),
        (lambda a: a.reset(1, autoreset="later"), "next_step"),
        (lambda a: a.load_demonstrations(EPISODES, tag="expert"), "opt3"),
        (lambda a: a.load_demonstrations([EPISODES, EPISODES]), "2 rows, and 1 rows"),
        (lambda a: a.load_demonstrations([one_step(9, 0)]), "has the observation 9; those of the model"),
        (lambda a: a.commit([8], [7], [0], [0.0]), "observations has id 8"),
        (lambda a: a.commit([[0]], [[8]], [[0]], [[0.0]]), "tags has id 8"),
        (lambda a: a.commit([0], [7], [-1], [0.0]), "actions has id -1"),
        (lambda a: (a.reset(1, "none"), a.act([0]), a.observe([0], [0], [8], [True], [False])), "8 states"),
        (lambda a: ICRLAgent(a.model, unknown_tag=8), "tag is 8"),
        (lambda a: ICRLAgent(a.model, num_actions=6), "6 actions and the model 5"),
        (lambda a: TemperatureSchedule(kind="step"), "linear"),
    ],
)
def test_mistakes_are_told(fused, call, message):
    with pytest.raises(OmniRLError, match=message):
        call(ICRLAgent(fused))


def test_ids_are_checked_where_the_model_cannot_look_at_them():
    # On a device other than the CPU the model checks nothing: there a look at the numbers waits for all.
    agent = ICRLAgent(make_model("fused"), device="meta")
    with pytest.raises(OmniRLError, match="observations has id 8"):
        agent.commit([8], [7], [0], [0.0])
    with pytest.raises(OmniRLError, match="has the observation 9"):
        agent.load_demonstrations([one_step(9, 0)])


def test_rewards_of_another_scale_than_training_s_warn_once(fused):
    agent = ICRLAgent(fused)
    agent.reset(20)
    large, nothing = np.full(20, -100.0), np.zeros(20, bool)
    agent.act(np.zeros(20))
    with pytest.warns(OmniRLWarning, match="size of 100"):
        agent.observe(np.zeros(20), large, np.zeros(20), nothing, nothing)
    agent.reset(20)
    agent.act(np.zeros(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.observe(np.zeros(20), large, np.zeros(20), nothing, nothing)
