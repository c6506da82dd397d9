"""The files in launch/ are what the command reads, say what the paper says, and run at a tiny size."""

from __future__ import annotations

import runpy
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omnirl import data
from omnirl.data.executors import Inline
from omnirl.data.sequences import COLUMNS
from omnirl.data.synthesis import Recipe
from omnirl.model.modeling import OmniRL
from omnirl.tasks.sampling import sample_tasks
from omnirl.training import loop
from omnirl.training.config import TrainConfig
from omnirl.training.distributed import Processes
from omnirl.training.loop import train

LAUNCH = Path(__file__).parents[1] / "launch"
STEPS = {"paper_small": 1.0e9, "paper_large": 6.3e9, "paper_long": 6.3e9}
SCRIPTS = [*LAUNCH.glob("*.sbatch")]


@pytest.mark.parametrize("name", STEPS)
def test_the_paper_s_sizes(name: str) -> None:
    config = TrainConfig.from_toml(LAUNCH / f"{name}.toml")
    processes = 8
    steps = config.updates * config.batch_size * processes * config.context
    assert steps == pytest.approx(STEPS[name], rel=0.06)
    model = config.model
    assert (model.hidden_size, model.num_layers, model.num_heads, model.layout) == (512, 18, 8, "star")
    assert (config.lr, config.schedule, config.warmup, config.segment) == (2e-4, "noam", 2000, 2000)
    assert config.loss_weights == (0.2, 0.4, 0.4)


@pytest.mark.parametrize("name", STEPS)
def test_batches_that_are_made_together_fit_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig.from_toml(LAUNCH / f"{name}.toml")
    made: list[int] = []
    monkeypatch.setattr("omnirl.data.stream.sample_tasks", lambda rows, **law: made.append(rows) or rows)
    monkeypatch.setattr("omnirl.data.stream.Worlds.build", lambda tasks, levels: tasks)

    def sequences(worlds: int, recipe: Recipe, *numbers: np.ndarray) -> dict[str, np.ndarray]:
        made.append(recipe.steps)
        return {column: np.zeros((worlds, 1)) for column in COLUMNS}

    monkeypatch.setattr("omnirl.data.stream.make_sequences", sequences)
    loop._stream(config, Processes("cpu")).batch(0)
    rows, steps = made
    assert steps == config.context
    assert rows * steps <= 2**24  # 36 bytes a step


def test_the_longest_contexts_begin_with_the_model_of_the_large_run() -> None:
    large, long = (TrainConfig.from_toml(LAUNCH / f"paper_{name}.toml") for name in ("large", "long"))
    assert long.initial == f"{large.out}/model"
    assert long.model == large.model


@pytest.mark.parametrize("name", STEPS)
def test_two_updates_at_a_tiny_size_on_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig.from_toml(LAUNCH / f"{name}.toml")
    model = replace(
        config.model, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, mixer="gated_deltanet"
    )
    initial = None
    if config.initial is not None:
        initial = str(tmp_path / "initial")
        OmniRL(model).save_pretrained(initial)
    tiny = replace(
        config,
        model=model,
        out=str(tmp_path / "out"),
        initial=initial,
        updates=2,
        batch_size=1,
        context=24,
        context_start=24,
        segment=8,
        device="cpu",
        precision="fp32",
        data={**config.data, "workers": 0, "num_states": 16},
    )
    monkeypatch.setattr("omnirl.data.stream._ROWS_AT_ONCE", 2)  # hundreds of worlds take long
    found = train(tiny)
    assert (found.updates, found.steps, found.skipped) == (2, 48, 0)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path: Path) -> None:
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_accelerate_reads_its_file() -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    assert config_args.load_config_from_file(str(LAUNCH / "accelerate.yaml")).num_processes == 8


def test_data_by_ray_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "RayExecutor", Inline, raising=False)
    tasks = sample_tasks(2, seed=0)
    tasks.save(tmp_path / "tasks.npz")
    script = runpy.run_path(str(LAUNCH / "synthesis_ray.py"))
    script["main"](str(tmp_path / "tasks.npz"), str(tmp_path / "out"), "20")
    here = data.synthesize(tasks, 20, seed=0)
    assert np.array_equal(data.load_dataset(tmp_path / "out")[1]["actions"], here[1]["actions"])
