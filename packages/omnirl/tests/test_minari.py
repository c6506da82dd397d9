from __future__ import annotations

import sys

import numpy as np
import pytest

from omnirl.data.minari import from_minari, to_minari
from omnirl.data.sequences import COLUMNS
from omnirl.data.synthesis import synthesize
from omnirl.errors import MissingExtraError
from omnirl.tasks.sampling import sample_tasks

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(description|eval_env|env_spec|author|code_permalink):UserWarning"
)


@pytest.fixture(scope="module")
def data():
    return synthesize(sample_tasks(2, 16, 5, seed=1), 250, seed=0)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        yield to_minari(data, "omnirl/anymdp-16x5-v0")


def test_a_round_trip_keeps_all_but_the_last_step_of_a_cut_episode(data, written):
    back = from_minari("omnirl/anymdp-16x5-v0")
    assert (len(back), back.num_actions, back.num_observations, back.steps) == (2, 5, 16, 250)
    for i in range(2):
        assert back[i]["task_index"] == data[i]["task_index"]
        for name in COLUMNS:
            assert (back[i][name][:-1] == data[i][name][:-1]).all()
        assert back[i]["actions"][-1] == 5
        assert back[i]["observations"][-1] == data[i]["observations"][-1]


def test_an_episode_terminates_in_a_terminal_state_and_is_else_truncated(data, written):
    episodes = list(written.iterate_episodes())
    assert len(episodes) > 2
    for episode in episodes:
        task = data.tasks[int(episode.infos["task_index"][0])]
        terminal = episode.observations[-1] in task.state_mapping[task.terminal_states]
        assert episode.terminations[-1] == terminal
        assert episode.truncations[-1] == (not terminal)
        assert not episode.terminations[:-1].any()
        assert len(episode.infos["tag"]) == len(episode.observations)


def test_a_data_set_of_the_same_name_is_refused(data, written):
    with pytest.raises(ValueError, match="Minari does not take 'omnirl/anymdp-16x5-v0'"):
        to_minari(data, "omnirl/anymdp-16x5-v0")


def test_a_data_set_that_is_not_here_is_told(written):
    with pytest.raises(ValueError, match=r"minari\.download_dataset"):
        from_minari("omnirl/nothing-v0")


def test_continuous_actions_are_refused(written):
    from gymnasium.spaces import Box

    class Continuous:
        observation_space = Box(0, 1)
        action_space = Box(0, 1)

    with pytest.raises(ValueError, match=r"observation space is Box.*only Discrete"):
        from_minari(Continuous())


def test_minari_that_is_not_installed_is_told_with_its_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'omnirl-icrl\[data\]'"):
        to_minari(data, "omnirl/other-v0")


def test_tags_and_labels_are_those_of_the_sequences(data, written):
    episode = next(iter(written.iterate_episodes()))
    steps = len(episode.actions)
    np.testing.assert_array_equal(episode.infos["tag"][:steps], data[0]["tags"][:steps])
    np.testing.assert_array_equal(episode.infos["reference_action"][:steps], data[0]["labels"][:steps])
