from __future__ import annotations

import numpy as np
import pytest

from omnirl.data.airsoul import read_airsoul, write_airsoul
from omnirl.data.sequences import COLUMNS, Dataset, pack_episodes
from omnirl.errors import OmniRLWarning

EPISODE = {
    "observations": [3, 5, 9],
    "actions": [1, 0],
    "rewards": [0.5, -1.0],
    "tags": [6, 3],
    "labels": [1, 2],
}


@pytest.fixture
def folder(tmp_path):
    sequence = pack_episodes([EPISODE, EPISODE], 5)
    other = pack_episodes([{**EPISODE, "tags": [7, 7]}, EPISODE], 5)
    write_airsoul(Dataset.from_sequences([sequence, other], 10, 5), tmp_path / "d")
    return tmp_path / "d"


def test_records_are_the_official_files_in_their_types(folder):
    record = folder / "record-000000"
    columns = {path.stem: np.load(path) for path in record.iterdir()}
    assert {name: column.tolist() for name, column in columns.items()} == {
        "observations": [3, 5, 9] * 2,
        "prompts": [3, 3, 7] * 2,
        "tags": [6, 3, 7] * 2,
        "actions_behavior": [1, 0, 5] * 2,
        "rewards": [0.5, -1.0, 0.0] * 2,
        "actions_label": [1, 2, 5] * 2,
    }
    assert columns.pop("rewards").dtype == np.float32
    assert {column.dtype for column in columns.values()} == {np.dtype(np.uint32)}


def test_reading_gives_back_what_was_written(folder):
    data = read_airsoul(folder)
    assert (len(data), data.num_actions, data.num_observations) == (2, 5, 10)
    wanted = pack_episodes([EPISODE, EPISODE], 5)
    assert all((data[0][name] == wanted[name]).all() for name in COLUMNS)
    assert data[1]["tags"].tolist() == [7, 7, 7, 6, 3, 7]
    assert data[1]["task_index"] == 1
    assert read_airsoul(folder, num_actions=6, num_observations=20).num_observations == 20


def test_a_shorter_record_is_filled_up(folder):
    for path in (folder / "record-000001").iterdir():
        np.save(path, np.load(path)[:4])
    data = read_airsoul(folder)
    assert data[1]["actions"].tolist() == [1, 0, 5, 1, 5, 5]
    assert data[1]["labels"].tolist() == [1, 2, -100, 1, -100, -100]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "tags.npy").unlink(), "tags.npy cannot be read"),
        (lambda path: (path / "tags.npy").write_bytes(b"\x93NUMPY"), "tags.npy cannot be read"),
        (lambda path: np.save(path / "rewards.npy", np.zeros(2)), r"differ in length: .*rewards \(2,\)"),
    ],
)
def test_a_record_that_is_not_whole_is_an_error_or_left_out(folder, damage, message):
    damage(folder / "record-000000")
    with pytest.raises(ValueError, match=f"record-000000 is not whole: .*{message}"):
        read_airsoul(folder)
    with pytest.warns(OmniRLWarning, match="left out: .*record-000000"):
        rest = read_airsoul(folder, keep_going=True)
    assert [item["task_index"] for item in rest] == [1]


def test_ids_out_of_range_are_told_with_the_record(folder):
    np.save(folder / "record-000001" / "tags.npy", np.full(6, 9, np.uint32))
    with pytest.raises(ValueError, match="record-000001: tag 9 is out of range"):
        read_airsoul(folder)


def test_without_filler_steps_the_number_of_actions_must_be_said(folder):
    for record in folder.iterdir():
        for path in record.iterdir():
            np.save(path, np.load(path)[:2])
    with pytest.raises(ValueError, match=r"no record in .* has a filler step; say num_actions"):
        read_airsoul(folder)
    assert read_airsoul(folder, num_actions=5).steps == 2


def test_nothing_is_written_over_and_an_empty_folder_is_told(folder, tmp_path):
    with pytest.raises(ValueError, match="record-000000 is there already"):
        write_airsoul(read_airsoul(folder), folder)
    with pytest.raises(ValueError, match=r"has no record-\* folder"):
        read_airsoul(tmp_path)
