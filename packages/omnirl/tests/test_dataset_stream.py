"""Batches from a data set on disk: each sequence once an epoch, and a training run on them."""

from __future__ import annotations

import contextlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from omnirl.data import Dataset, DatasetStream, synthesize
from omnirl.data.worlds import soft_labels
from omnirl.errors import OmniRLError
from omnirl.tasks.sampling import sample_tasks

STEPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "set"
    tasks = sample_tasks(5, 16, 5, min_states=8, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnirl.data.synthesis.SHARD_SIZE", 4)
        synthesize(tasks, STEPS, seed=3, mix="explore", num_sequences=10, out=path)
    return path


def rows(batches: list[dict[str, np.ndarray]]) -> list[bytes]:
    return [row.tobytes() for batch in batches for row in batch["rewards"]]


def test_each_sequence_comes_once_an_epoch_and_every_epoch_has_its_order(folder: Path) -> None:
    stream = DatasetStream(folder, steps=STEPS, batch_size=5, seed=0)
    first, second = rows(list(islice(stream, 2))), rows(list(islice(stream, 2)))
    assert sorted(first) == sorted(second) == sorted(rows([stream.dataset.batch(range(10))]))
    assert first != second
    assert stream.position == 4
    other = DatasetStream(folder, steps=STEPS, batch_size=5, seed=1)
    assert rows(list(islice(other, 2))) != first


def test_a_batch_over_the_end_of_an_epoch_and_ranks_lose_nothing(folder: Path) -> None:
    whole = rows(list(islice(DatasetStream(folder, steps=STEPS, batch_size=2, seed=0), 10)))
    wide = rows(list(islice(DatasetStream(folder, steps=STEPS, batch_size=4, seed=0), 5)))
    assert wide == whole
    ranks = [DatasetStream(folder, steps=STEPS, batch_size=2, seed=0, rank=r, world_size=2) for r in (0, 1)]
    shared = [rows([ranks[k % 2].batch(k // 2)]) for k in range(10)]
    assert [row for part in shared for row in part] == whole


def test_seek_and_growing_lengths(folder: Path) -> None:
    stream = DatasetStream(folder, steps=lambda k: 4 + k, batch_size=3, seed=0)
    batches = list(islice(stream, 4))
    assert [batch["actions"].shape for batch in batches] == [(3, 4), (3, 5), (3, 6), (3, 7)]
    stream.seek(2)
    assert rows([next(iter(stream))]) == rows([batches[2]])
    whole = DatasetStream(folder, steps=STEPS, batch_size=3, seed=0).batch(2)
    assert np.array_equal(whole["observations"][:, :6], batches[2]["observations"])


def test_soft_labels_are_those_of_the_tasks(folder: Path) -> None:
    stream = DatasetStream(folder, steps=STEPS, batch_size=4, seed=0, label_temperature=0.05)
    batch = stream.batch(0)
    assert stream.dataset.tasks is not None
    soft = soft_labels(stream.dataset.tasks, 0.05)
    expected = soft[batch["task_index"][:, None], batch["observations"]]
    assert np.array_equal(batch["targets"], expected)


def test_what_does_not_fit_is_said(folder: Path, tmp_path: Path) -> None:
    def stream(data: Dataset | Path = folder, **settings: object) -> DatasetStream:
        return DatasetStream(data, **{"steps": STEPS, "batch_size": 2, "seed": 0} | settings)  # type: ignore[arg-type]

    with pytest.raises(OmniRLError, match="the data set has 5 actions, the model 6"):
        stream(num_actions=6)
    with pytest.raises(OmniRLError, match="the data set has 16 observations, the model 8"):
        stream(num_observations=8)
    with pytest.raises(OmniRLError, match="batches have up to 25 steps; the data set has 24"):
        stream(steps=25)
    with pytest.raises(OmniRLError, match="rank is 2; with world_size 2"):
        stream(rank=2, world_size=2)
    with pytest.raises(OmniRLError, match="holds no data set"):
        stream(tmp_path)
    bare = stream().dataset
    with pytest.raises(OmniRLError, match="needs the tasks"):
        stream(Dataset(bare.parts, 16, 5), label_temperature=0.1)
    with pytest.raises(OmniRLError, match="softens the oracle's labels; the data set has 'acted'"):
        stream(Dataset(bare.parts, 16, 5, bare.tasks, {"label": "acted"}), label_temperature=0.1)


def test_a_run_trains_on_the_folder_and_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from omnirl import OmniRLConfig, TrainConfig, train

    model = OmniRLConfig(num_states=16, num_actions=5, hidden_size=16, num_layers=1, layout="fused")

    def run(out: str, updates: int = 6, **changes: object) -> list[float]:
        settings = {"updates": 6, "batch_size": 4, "context": 16, "data": {"folder": str(folder)}} | changes
        seen: list[float] = []

        def note(progress: object) -> None:
            seen.append(progress.loss)  # type: ignore[attr-defined]
            if len(seen) == updates:
                raise KeyboardInterrupt

        config = TrainConfig(model, out=str(tmp_path / out), checkpoint_minutes=1e-9, **settings)  # type: ignore[arg-type]
        with contextlib.suppress(KeyboardInterrupt):
            train(config, on_update=note)
        return seen

    whole = run("whole")
    assert len(set(whole)) == 6
    assert run("parts", updates=3) == whole[:3]
    assert run("parts") == whole[2:]  # the checkpoint after the third update was not written any more
    with pytest.raises(OmniRLError, match="batches have up to 25 steps; the data set has 24"):
        run("long", context=25)
    with pytest.raises(OmniRLError, match="tasks"):
        run("both", data={"folder": str(folder), "tasks": 4})
