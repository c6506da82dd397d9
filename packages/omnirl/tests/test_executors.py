from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from omnirl.data import synthesis
from omnirl.data.executors import Processes, RayExecutor, executor_of
from omnirl.data.synthesis import synthesize
from omnirl.errors import MissingExtraError
from omnirl.tasks.sampling import sample_tasks

SETTINGS = {"steps": 40, "seed": 4, "num_sequences": 9}


@pytest.fixture(scope="module")
def tasks():
    return sample_tasks(4, 16, 5, seed=0)


@pytest.fixture(scope="module")
def alone(tasks):
    return synthesize(tasks, **SETTINGS).batch(range(9))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(synthesis, "SHARD_SIZE", 2)


def check_same(data, alone):
    found = data.batch(range(9))
    assert all(np.array_equal(found[name], alone[name]) for name in alone)


def test_two_processes_make_the_same_shards_as_one(tasks, alone, tmp_path):
    check_same(synthesize(tasks, **SETTINGS, workers=2, out=tmp_path), alone)
    assert len(list(tmp_path.glob("shard-*"))) == 5


def test_anything_with_map_is_an_executor(tasks, alone):
    with ThreadPoolExecutor(2) as pool:
        check_same(synthesize(tasks, **SETTINGS, workers=pool), alone)


@pytest.mark.slow
def test_ray_makes_the_same_sequences(tasks, alone):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        check_same(synthesize(tasks, **SETTINGS, workers=RayExecutor()), alone)
    finally:
        ray.shutdown()


def test_an_error_in_a_process_reaches_the_caller_with_its_message():
    found = Processes(1).map(math.sqrt, iter([0, 1, 4, -1, 9]))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="math domain error"):
        next(found)


def test_jobs_are_not_all_taken_at_once():
    taken = []

    def jobs():
        for number in range(100):
            taken.append(number)
            yield number

    found = executor_of(1).map(lambda job: job, jobs())
    next(iter(found))
    assert len(taken) == 1


def test_ray_that_is_not_installed_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'omnirl-icrl\[scale\]'"):
        RayExecutor()
