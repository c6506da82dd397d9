"""The files in launch/ are what the command reads, and say what the paper's recipe says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.recipe import read_recipe

LAUNCH = Path(__file__).parents[1] / "launch"
RECIPES = sorted(LAUNCH.glob("*.toml"))
PAPER = {f"llama31_8b_{loss}": loss for loss in ("ce", "dpo", "nca", "kto")}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes(path: Path) -> None:
    recipe = read_recipe(path)
    on_cpu = {"bf16": False, "use_cpu": True}
    config = ImplicitPRMConfig(**recipe.training | on_cpu)
    assert recipe.training["bf16"] is True
    assert config.beta == 0.05
    if path.stem in PAPER:
        processes = 8
        assert config.loss == PAPER[path.stem]
        assert config.per_device_train_batch_size * config.gradient_accumulation_steps * processes == 64
        assert (config.learning_rate, config.num_train_epochs, config.max_length) == (5e-7, 1, 8192)
    else:
        assert recipe.lora is not None


def test_every_loss_has_its_recipe() -> None:
    assert PAPER.keys() | {"qwen_lora_24gb"} == {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")], ids=lambda path: path.name)
def test_scripts_parse(path: Path) -> None:
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
