"""The README's examples run as they stand, with a tiny model, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import omnirl
from omnirl.cli import app
from omnirl.evaluation.context import ContextCurves
from omnirl.model import memory
from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORLDS, LEARNING, TRAINING = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_of_worlds() -> None:
    names: dict[str, Any] = {}
    exec(WORLDS, names)
    assert names["q"].shape == (64, 16, 5)
    assert names["venv"].num_envs == 64
    assert np.array_equal(
        names["lake"].transition.sum(-1).round(12), ~names["lake"].terminal[:, None] * np.ones(4)
    )


def test_the_example_of_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmniRLConfig(16, 5, hidden_size=8, num_layers=1, num_heads=1, layout="fused")
    monkeypatch.setattr(OmniRL, "from_pretrained", lambda name: OmniRL(config))
    names: dict[str, Any] = {}
    exec(LEARNING, names)
    assert names["result"].normalized_score.shape == (8, 5)


def test_the_example_of_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    small = TRAINING.replace("updates=1300, batch_size=32", "updates=1, batch_size=2").replace("4096", "4")
    exec(small, {})
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_every_command_and_public_name_that_it_shows_exists() -> None:
    verbs = set(re.findall(r"^omnirl ([a-z]+)", README, flags=re.MULTILINE))
    assert {
        "play",
        "eval",
        "sample",
        "solve",
        "synth",
        "train",
        "convert",
        "info",
        "bench",
        "reproduce",
    } == verbs
    for verb in verbs:
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb
    for name in ("sample_tasks", "synthesize", "TaskStream", "context_curves"):
        assert f"`{name}" in README
        assert hasattr(omnirl, name)
    for name in ("fork", "join", "select_rows"):
        assert f"`{name}`" in README
        assert getattr(omnirl.model, name) is getattr(memory, name)
    assert f"`.{ContextCurves.regret_gain.__name__}()`" in README


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"(?<!docs/)(?:launch|benchmarks)/[\w.]+\w", README))
    assert len(named) > 4
    for name in named:
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`(\w+\.(?:sbatch|toml))`", README):
        assert (ROOT / "launch" / name).is_file(), name
