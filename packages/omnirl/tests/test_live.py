"""Playing live, and the animation of FrozenLake."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest

from omnirl.envs import ScaledShaping, ShapedReward, named_shaping
from omnirl.errors import OmniRLError
from omnirl.inference import Episode, ICRLAgent, animate_lake, play
from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL


@pytest.fixture(scope="module")
def agent() -> ICRLAgent:
    config = OmniRLConfig(16, 5, hidden_size=8, num_layers=1, num_heads=1, layout="fused")
    return ICRLAgent(OmniRL(config), num_actions=4)


def test_every_step_and_one_filler_an_episode_are_in_the_memory(agent: ICRLAgent) -> None:
    lake = gymnasium.make("FrozenLake-v1", is_slippery=False)
    env = ShapedReward(lake, ScaledShaping(named_shaping("frozenlake", lake), 4.0))
    episodes = list(play(agent, env, episodes=3))
    assert [episode.number for episode in episodes] == [0, 1, 2]
    assert int(agent.memory["tokens"][0]) == sum(episode.steps + 1 for episode in episodes)
    for episode in episodes:
        end = 4.0 if episode.raw else -4.0  # a goal, or a hole: a random walk is not cut at 100 steps
        assert episode.shown == pytest.approx(end - 0.2 * (episode.steps - 1))
    assert list(play(agent, env, episodes=3)) == episodes  # the same seed, the memory emptied


def test_the_animation_shows_all_steps_of_the_longer_side(tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    long, short = Episode(0, 0.0, 0.0, (0, 1, 2, 3, 7)), Episode(9, 0.0, 1.0, (0, 4))
    path = animate_lake([long, short], [short], tmp_path / "lake.gif")
    with Image.open(path) as film:
        # Five moments and two, and each end stays five frames more; equal frames become one that lasts.
        lasted = []
        for number in range(film.n_frames):
            film.seek(number)
            lasted.append(film.info["duration"])
        assert sum(lasted) == 160 * (5 + 5 + 2 + 5)
    with pytest.raises(OmniRLError, match="state 70 of 16"):
        animate_lake([Episode(0, 0.0, 0.0, (70,))], [short], path)
