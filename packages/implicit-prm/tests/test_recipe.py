"""Training runs in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.recipe import DataSettings, ModelSettings, Recipe, read_recipe

RUN = """
[model]
name = "base"
dtype = "bfloat16"
[data]
train = ["a.jsonl", "hf:owner/name:train"]
[training]
output_dir = "out"
learning_rate = 1e-6
[lora]
r = 8
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def test_a_recipe_is_read_and_its_values_can_be_changed(run: Path) -> None:
    changes = {"training.learning_rate": 2e-6, "training.loss": "dpo", "lora.r": 4, "data.eval": ["b.jsonl"]}
    assert read_recipe(run, changes) == Recipe(
        model=ModelSettings(name="base", dtype="bfloat16"),
        data=DataSettings(train=["a.jsonl", "hf:owner/name:train"], eval=["b.jsonl"]),
        training={"output_dir": "out", "learning_rate": 2e-6, "loss": "dpo"},
        lora={"r": 4},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model", "run.toml is no TOML"),
        ("[model]\nname = 'm'\n[data]\ntrain = ['a']", "it lacks training"),
        (RUN + "[optimizer]\n", "it has 'optimizer'; its tables are model, data, training, lora"),
        ("training = 3\n" + RUN.split("[training]")[0], "training is 3; it must be a table, \\[training\\]"),
        (RUN.replace("dtype", "type"), "\\[model\\] has 'type'; its keys are name, reference, dtype"),
        (RUN.replace('name = "base"', ""), "\\[model\\] lacks name"),
        (RUN.replace('"base"', "7"), "model.name is 7; it must be text"),
        (
            RUN.replace('["a.jsonl", "hf:owner/name:train"]', '"a.jsonl"'),
            "data.train is 'a.jsonl'; it must be a l",
        ),
        (RUN.replace('["a.jsonl", "hf:owner/name:train"]', "[]"), "data.train is empty"),
    ],
)
def test_what_does_not_fit_is_told_with_the_file(run: Path, text: str, message: str) -> None:
    run.write_text(text)
    with pytest.raises(ImplicitPRMError, match=f"run.toml.*{message.removeprefix('run.toml')}"):
        read_recipe(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "dpo"}, "'loss' is no key of a recipe: write table.key, as in training.loss"),
        ({"model.size": 3}, "\\[model\\] has 'size'"),
    ],
)
def test_an_assignment_that_does_not_fit_is_told(run: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ImplicitPRMError, match=message):
        read_recipe(run, changes)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImplicitPRMError, match=r"there is no file .*none\.toml"):
        read_recipe(tmp_path / "none.toml")
