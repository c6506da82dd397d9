from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from omnirl.data.stream import TaskStream
from omnirl.data.synthesis import synthesize
from omnirl.data.worlds import by_observation, soft_labels
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.sampling import sample_tasks
from omnirl.tasks.solver import solve

SETTINGS = {"batch_size": 4, "seed": 3, "mix": "explore"}


@pytest.fixture(scope="module")
def tasks():
    return sample_tasks(6, 16, 5, min_states=8, seed=0)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("omnirl.data.stream._ROWS_AT_ONCE", 12)  # three batches


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_a_stream_of_a_pool_is_what_synthesize_makes(tasks):
    stream = TaskStream(tasks, steps=20, **SETTINGS)
    data = synthesize(tasks, 20, seed=3, mix="explore", num_sequences=20)
    for k, batch in enumerate(islice(stream, 5)):
        assert same(batch, data.batch(range(4 * k, 4 * k + 4)))
    assert stream.position == 5


def test_seek_goes_on_where_another_run_stopped(tasks):
    stream = TaskStream(tasks, steps=20, **SETTINGS)
    first = list(islice(stream, 6))
    again = TaskStream(tasks, steps=20, **SETTINGS)
    again.seek(4)
    assert all(same(a, b) for a, b in zip(first[4:], islice(again, 2), strict=True))
    assert same(again.batch(1), first[1])


def test_the_length_may_grow_from_batch_to_batch(tasks):
    stream = TaskStream(tasks, steps=lambda k: 8 + 2 * k, **SETTINGS)
    assert [batch["actions"].shape for batch in islice(stream, 4)] == [(4, 8), (4, 10), (4, 12), (4, 14)]


def test_ranks_share_out_the_sequences_of_one_stream(tasks):
    whole = list(islice(TaskStream(tasks, steps=20, **SETTINGS), 6))
    parts = [TaskStream(tasks, steps=20, rank=r, world_size=2, **SETTINGS) for r in range(2)]
    shared = [batch for part in parts for batch in islice(part, 3)]
    assert all(same(a, b) for a, b in zip(whole, shared, strict=True))


def test_new_tasks_are_those_of_the_sampler_and_never_come_back():
    stream = TaskStream(None, steps=8, **SETTINGS)
    assert stream.pool is None
    batches = list(islice(stream, 4))
    assert np.concatenate([batch["task_index"] for batch in batches]).tolist() == list(range(16))
    fresh = synthesize(sample_tasks(16, 16, 5, seed=3), 8, seed=3, mix="explore")
    assert same(batches[3], fresh.batch(range(12, 16)))


def test_a_pool_may_be_a_number_or_a_file(tasks, tmp_path):
    tasks.save(tmp_path / "pool.npz")
    stream = TaskStream(tmp_path / "pool.npz", steps=8, **SETTINGS)
    assert same(stream.batch(0), TaskStream(tasks, steps=8, **SETTINGS).batch(0))
    assert len(TaskStream(2, steps=8, **SETTINGS).pool) == 2


def test_a_seed_may_be_a_number_of_numpy(tasks):
    settings = {**SETTINGS, "seed": np.int64(3)}
    assert same(
        TaskStream(tasks, steps=8, **settings).batch(0), TaskStream(tasks, steps=8, **SETTINGS).batch(0)
    )


def test_a_worker_makes_the_same_batches(tasks):
    ahead = TaskStream(tasks, steps=20, workers=1, **SETTINGS)
    ahead.seek(2)
    here = TaskStream(tasks, steps=20, **SETTINGS)
    batches = iter(ahead)
    assert all(same(next(batches), here.batch(k)) for k in (2, 3, 4))
    assert ahead.position == 5
    batches.close()


def test_targets_are_the_softmax_of_advantages_over_their_rms(tasks):
    stream = TaskStream(tasks, steps=20, label_temperature=0.1, **SETTINGS)
    batch = stream.batch(0)
    assert batch["targets"].dtype == np.float32
    np.testing.assert_allclose(batch["targets"].sum(-1), 1, rtol=1e-5)
    q = solve(tasks, 0.994)
    for row, i in enumerate(batch["task_index"]):
        live = (np.arange(16) < tasks.num_states[i]) & ~tasks.terminal[i]
        advantage = q[i] - q[i].max(-1, keepdims=True)
        weights = np.exp(advantage / (0.1 * np.sqrt(np.square(advantage[live]).mean())))
        wanted = by_observation(tasks[[i]], (weights / weights.sum(-1, keepdims=True))[None])[0]
        real = batch["labels"][row] >= 0
        got = batch["targets"][row][real]
        np.testing.assert_allclose(got, wanted[batch["observations"][row][real]], rtol=1e-4, atol=1e-6)
        assert (got[np.arange(len(got)), batch["labels"][row][real]] >= got.max(-1) - 1e-6).all()


def test_equal_actions_share_the_label():
    task = sample_tasks(1, 1, 5, family="bandit", seed=0)
    flat = TaskBatch.stack([task[0]])
    object.__setattr__(flat, "reward", np.ones_like(flat.reward))
    np.testing.assert_allclose(soft_labels(flat, 0.1), 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 2, "world_size": 2}, r"must be 0\.\.1"),
        ({"label_temperature": -0.1}, "must not be negative"),
        ({"workers": -1}, "workers is -1"),
        ({"label_temperature": 0.1, "method": "ad", "mix": None}, "method 'ad' has others"),
        ({"mix": "paprika"}, "no mix 'paprika'"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tasks, change, message):
    with pytest.raises(ValueError, match=message):
        TaskStream(tasks, **{"steps": 8, **SETTINGS, **change})
