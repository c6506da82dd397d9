from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from omnirl.data import shards, synthesis
from omnirl.data.sequences import COLUMNS, Dataset, pack_episodes
from omnirl.data.shards import load_dataset, save_dataset
from omnirl.data.synthesis import synthesize
from omnirl.errors import OmniRLWarning
from omnirl.tasks.sampling import sample_tasks

SETTINGS = {"steps": 30, "seed": 4, "num_sequences": 7, "mix": "explore"}


@pytest.fixture(scope="module")
def tasks():
    return sample_tasks(3, 16, 5, seed=0)


@pytest.fixture(scope="module")
def whole(tasks):
    return synthesize(tasks, **SETTINGS)


@pytest.fixture(scope="module")
def made(tasks, tmp_path_factory):
    """Seven sequences in shards of 3, 3 and 1."""
    folder = tmp_path_factory.mktemp("data") / "new" / "d"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis, "SHARD_SIZE", 3)
        synthesize(tasks, **SETTINGS, out=folder)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis, "SHARD_SIZE", 3)
    return shutil.copytree(made, tmp_path / "d")


def same(left, right):
    everything = range(len(left))
    a, b = left.batch(everything), right.batch(everything)
    return len(left) == len(right) and all(np.array_equal(a[name], b[name]) for name in a)


def test_shards_hold_what_memory_would_and_nothing_else_lies_about(folder, whole):
    data = load_dataset(folder)
    assert same(data, whole)
    assert sorted(path.name for path in folder.iterdir()) == [
        "settings.json",
        *(f"shard-0000{i}" for i in range(3)),
        "tasks.npz",
    ]
    assert isinstance(data.parts[0]["rewards"], np.memmap)
    assert len(data.tasks) == 3
    assert data.settings["method"] == "dpd"


def test_only_missing_shards_are_made_again(folder, tasks, whole, monkeypatch):
    shutil.rmtree(folder / "shard-00001")
    made = []
    write = shards.write_shard
    monkeypatch.setattr(synthesis, "write_shard", lambda path, c: (made.append(path.name), write(path, c)))
    assert same(synthesize(tasks, **SETTINGS, out=folder), whole)
    assert made == ["shard-00001"]


def test_an_interrupted_run_leaves_complete_shards_and_the_next_completes_them(
    tasks, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(synthesis, "SHARD_SIZE", 3)
    roll_out, calls = synthesis.roll_out, []

    def failing(*arguments, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return roll_out(*arguments, **more)

    monkeypatch.setattr(synthesis, "roll_out", failing)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tasks, **SETTINGS, out=tmp_path)
    assert [path.name for path in tmp_path.glob("*shard*")] == ["shard-00000"]
    with pytest.raises(ValueError, match=r"shard-00001 .* cannot be read"):
        load_dataset(tmp_path)
    assert same(synthesize(tasks, **SETTINGS, out=tmp_path), whole)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        shards.write_shard(tmp_path / "shard-00000", {"observations": np.zeros((1, 2))})
    assert list(tmp_path.iterdir()) == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def change(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (cut, "rewards.npy", "cannot be read"),
        (change, "rewards.npy", r"rewards\.npy has another checksum"),
        (cut, "sums.json", "cannot be read"),
        (lambda path: path.unlink(), "tags.npy", r"cannot be read: .*tags\.npy"),
    ],
)
def test_a_damaged_shard_is_an_error_or_left_out_or_made_anew(folder, tasks, whole, damage, file, message):
    damage(folder / "shard-00001" / file)
    with pytest.raises(ValueError, match=f"shard-00001 .*{message}"):
        load_dataset(folder)
    with pytest.warns(OmniRLWarning, match="left out: shard shard-00001"):
        rest = load_dataset(folder, keep_going=True)
    assert rest.batch(range(4))["task_index"].tolist() == [0, 1, 2, 0]
    with pytest.warns(OmniRLWarning, match="made anew: shard shard-00001"):
        assert same(synthesize(tasks, **SETTINGS, out=folder), whole)


@pytest.mark.parametrize(
    ("change", "key"), [({"seed": 5}, "seed"), ({"steps": 31}, "steps"), ({"mix": "paper"}, "mix")]
)
def test_a_folder_of_other_settings_is_refused(folder, tasks, change, key):
    with pytest.raises(ValueError, match=f"holds a data set with {key} = "):
        synthesize(tasks, **{**SETTINGS, **change}, out=folder)


def test_other_tasks_are_other_data(folder):
    with pytest.raises(ValueError, match="data set with tasks = "):
        synthesize(sample_tasks(3, 16, 5, seed=1), **SETTINGS, out=folder)


def test_a_folder_with_other_things_is_refused(tasks, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"is not empty \(it holds 'thesis.tex'\)"):
        synthesize(tasks, **SETTINGS, out=tmp_path)
    with pytest.raises(ValueError, match=r"holds no data set: settings\.json"):
        load_dataset(tmp_path)


def test_settings_cut_short_are_told(folder):
    cut(folder / "settings.json")
    with pytest.raises(ValueError, match="holds no data set"):
        load_dataset(folder)


def test_any_data_set_can_be_saved_and_loaded(tmp_path):
    episode = {"observations": [3, 5, 9], "actions": [1, 0], "rewards": [0.5, -1.0]}
    data = Dataset.from_sequences([pack_episodes([episode], 5)] * 2, 10, 5)
    save_dataset(data, tmp_path / "d")
    back = load_dataset(tmp_path / "d")
    assert same(data, back)
    assert (back.num_observations, back.num_actions, back.tasks) == (10, 5, None)
    assert {name: back[1][name].dtype for name in COLUMNS} == {name: data[1][name].dtype for name in COLUMNS}


def test_settings_are_plain_json(folder):
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["mix"][0]["name"] == "random"
    assert settings["num_shards"] == 3
