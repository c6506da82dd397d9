from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnirl.data.sequences import COLUMNS, STORED, Dataset, pack_episodes, split_episodes

GOLDEN = {
    "observations": [3, 5, 9],
    "actions": [1, 0],
    "rewards": [0.5, -1.0],
    "tags": [6, 3],
    "labels": [1, 2],
}


def test_the_golden_episode_becomes_three_steps_the_last_a_filler():
    packed = pack_episodes([GOLDEN], num_actions=5)
    assert packed["observations"].tolist() == [3, 5, 9]
    assert packed["actions"].tolist() == [1, 0, 5]
    assert packed["rewards"].tolist() == [0.5, -1.0, 0.0]
    assert packed["tags"].tolist() == [6, 3, 7]
    assert packed["labels"].tolist() == [1, 2, -100]
    assert {name: column.dtype for name, column in packed.items()} == {
        **dict.fromkeys(COLUMNS, np.dtype(np.int64)),
        "rewards": np.dtype(np.float32),
    }


def test_tags_and_labels_may_be_left_out_and_attributes_do_for_keys():
    episode = SimpleNamespace(observations=[3, 5], actions=[1], rewards=[2])
    packed = pack_episodes([episode, GOLDEN], num_actions=5, pad_to=7)
    assert packed["observations"].tolist() == [3, 5, 3, 5, 9, 0, 0]
    assert packed["tags"].tolist() == [7, 7, 6, 3, 7, 7, 7]
    assert packed["actions"].tolist() == [1, 5, 1, 0, 5, 5, 5]
    assert packed["labels"].tolist() == [-100, -100, 1, 2, -100, -100, -100]


def test_the_official_filler_label_is_ignored_as_ours_is():
    assert pack_episodes([{**GOLDEN, "labels": [5, -100]}], 5)["labels"].tolist() == [-100, -100, -100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": [3, 5]}, r"2 actions need 3 observations .*observations \(2,\)"),
        ({"rewards": [1.0]}, r"rewards \(1,\)"),
        ({"rewards": [1.0, float("nan")]}, "1 rewards are not finite"),
        ({"actions": [1, 6]}, r"action 6 is out of range; allowed: 0\.\.5"),
        ({"actions": [1, 5]}, "action 5 is the filler's"),
        ({"actions": [1.0, 0.0]}, "actions must be whole numbers, their type is float64"),
        ({"tags": [6, 8]}, r"tag 8 is out of range; allowed: 0\.\.7"),
        ({"labels": [1, 7]}, r"label 7 is out of range; allowed: 0\.\.4"),
        ({"observations": [3, 5, -1]}, "observation -1 is out of range; allowed: at least 0"),
        ({"actions": None}, "has no 'actions'"),
    ],
)
def test_an_episode_that_does_not_fit_is_told_with_its_number(change, message):
    with pytest.raises(ValueError, match=f"episode 1.*{message}"):
        pack_episodes([GOLDEN, {**GOLDEN, **change}], num_actions=5)


def test_episodes_longer_than_pad_to_are_an_error():
    with pytest.raises(ValueError, match="take 6 steps, more than pad_to = 5"):
        pack_episodes([GOLDEN, GOLDEN], 5, pad_to=5)


@st.composite
def episodes(draw, num_actions=3):
    n = draw(st.integers(1, 5))
    return {
        "observations": draw(st.lists(st.integers(0, 9), min_size=n + 1, max_size=n + 1)),
        "actions": draw(st.lists(st.integers(0, num_actions - 1), min_size=n, max_size=n)),
        "rewards": draw(st.lists(st.integers(-3, 3).map(float), min_size=n, max_size=n)),
        "tags": draw(st.lists(st.integers(0, 7), min_size=n, max_size=n)),
        "labels": draw(st.lists(st.sampled_from([-100, 0, 1, 2]), min_size=n, max_size=n)),
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(episodes(), max_size=4), st.integers(0, 3))
def test_split_is_the_inverse_of_pack_with_any_padding(parts, padding):
    length = sum(len(part["observations"]) for part in parts)
    packed = pack_episodes(parts, 3, pad_to=length + padding)
    back = list(split_episodes(packed, 3))
    assert len(back) == len(parts)
    for got, wanted in zip(back, parts, strict=True):
        assert got.pop("complete")
        assert {name: column.tolist() for name, column in got.items()} == wanted


def test_a_cut_last_episode_keeps_the_steps_whose_outcome_is_known():
    packed = pack_episodes([GOLDEN, {**GOLDEN, "tags": [0, 1]}], 5)
    cut = {name: column[:5] for name, column in packed.items()}
    first, last = split_episodes(cut, 5)
    assert first["complete"]
    assert not last["complete"]
    assert last["observations"].tolist() == [3, 5]
    assert last["actions"].tolist() == [1]
    assert last["tags"].tolist() == [0]


def dataset(lengths=(2, 3), steps=4):
    """Parts of different sizes; the first observation of sequence i is i."""
    parts, first = [], 0
    for n in lengths:
        rows = np.arange(first, first + n)
        first += n
        columns = {name: np.zeros((n, steps), kind) for name, kind in STORED.items() if name != "task_index"}
        columns["observations"][:, 0] = rows
        columns["labels"][:, -1] = -100
        parts.append({**columns, "task_index": rows * 10})
    return Dataset(parts, num_observations=9, num_actions=2)


def test_a_data_set_is_the_same_whatever_its_parts():
    ds = dataset()
    assert (len(ds), ds.steps) == (5, 4)
    assert [item["observations"][0] for item in ds] == [0, 1, 2, 3, 4]
    assert ds[-1]["task_index"] == 40
    batch = ds.batch([4, 0, 2])
    assert batch["observations"][:, 0].tolist() == [4, 0, 2]
    assert batch["task_index"].tolist() == [40, 0, 20]
    assert batch["labels"].dtype == np.int64
    assert batch["rewards"].dtype == np.float32
    with pytest.raises(IndexError):
        ds[5]


def test_a_data_set_of_packed_episodes_gives_them_back():
    packed = pack_episodes([GOLDEN], 5, pad_to=4)
    ds = Dataset.from_sequences([packed, packed], num_observations=10, num_actions=5)
    assert {name: ds[1][name].tolist() for name in COLUMNS} == {n: c.tolist() for n, c in packed.items()}
    assert ds[1]["task_index"] == 1


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one sequence"),
        ([pack_episodes([GOLDEN], 5), pack_episodes([GOLDEN], 5, 4)], "lengths from 3 to 4"),
        (
            [pack_episodes([GOLDEN], 5), {**pack_episodes([GOLDEN], 5), "tags": [1, 2]}],
            r"sequence 1: .* tags \(2,\)",
        ),
        ([pack_episodes([{**GOLDEN, "observations": [3, 10, 5]}], 5)], r"observation 10 .* allowed: 0\.\.9"),
    ],
)
def test_sequences_that_make_no_data_set_are_refused(sequences, message):
    with pytest.raises(ValueError, match=message):
        Dataset.from_sequences(sequences, num_observations=10, num_actions=5)
