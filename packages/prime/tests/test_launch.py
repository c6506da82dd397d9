"""The files in launch/ are what the command reads, and say what the paper's settings are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from implicit_prime.config import PrimeConfig
from implicit_prime.recipe import Recipe, read_recipe

LAUNCH = Path(__file__).parents[1] / "launch"
RECIPES = {path.stem: path for path in LAUNCH.glob("*.toml") if not path.stem.endswith("_verl")}
ON_8_GPUS = ("code_eurus", "eurus2_7b", "zero_qwen25_math_7b")


def recipe(name: str) -> Recipe:
    return read_recipe(RECIPES[name])


def test_every_configuration_is_there() -> None:
    assert RECIPES.keys() == {*ON_8_GPUS, "eval_code", "eval_math", "qwen25_1p5b_gsm8k_1gpu"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_is_read_and_writes_where_no_other_does(name: str) -> None:
    folders = [read_recipe(path).training.output_dir for path in RECIPES.values()]
    found = recipe(name)
    assert folders.count(found.training.output_dir) == 1
    assert found.training.rollout == "vllm_colocate"
    assert bool(found.data.train) != name.startswith("eval_")


@pytest.mark.parametrize("name", ON_8_GPUS)
def test_those_of_the_paper_have_its_settings(name: str) -> None:
    found = recipe(name).training
    paper = PrimeConfig(output_dir="run")  # section 2.3, as test_config holds it to
    same = [
        "prompts_per_step",
        "num_generations",
        "mini_batch_size",
        "beta",
        "prm_loss",
        "prm_update",
        "ref",
        "advantage",
        "process_norm",
        "accuracy_range",
        "learning_rate",
        "prm_learning_rate",
        "clip",
        "kl_coef",
        "temperature",
        "max_prompt_length",
        "max_completion_length",
        "weight_decay",
        "prm_weight_decay",
        "max_grad_norm",
        "prm_max_grad_norm",
    ]
    assert {key: getattr(found, key) for key in same} == {key: getattr(paper, key) for key in same}
    found.check_world_size(8)


def test_each_ability_has_its_verifier() -> None:
    named = {name: set(recipe(name).verifier) for name in RECIPES}
    assert named.pop("eurus2_7b") == {"math", "code"}
    assert named.pop("code_eurus") == named.pop("eval_code") == {"code"}
    assert set(map(frozenset, named.values())) == {frozenset({"math"})}


def test_the_run_on_one_gpu_has_two_adapters_of_one_base() -> None:
    found = recipe("qwen25_1p5b_gsm8k_1gpu")
    assert found.lora is not None
    assert (found.model.prm, found.training.ref) == (None, "sft")


SUFFIXES = {
    "eval_math": "\n\nPresent the answer in LaTex format: \\boxed{Your answer}",
    "eval_code": "\n\nWrite Python code to solve the problem. Present the code in \n```python\nYour code"
    "\n```\nat the end.",
}
SETS = {
    "eval_math": ["aime24", "amc", "math500", "minerva", "olympiad"],
    "eval_code": ["leetcode", "livecodebench_v2"],
}


@pytest.mark.parametrize("name", SETS)
def test_the_seven_benchmarks_are_asked_as_the_paper_asks(name: str) -> None:
    found = recipe(name)
    assert list(found.data.eval) == SETS[name]
    assert found.training.max_completion_length == 8192
    assert found.data.suffix == SUFFIXES[name]
    assert found.data.system is not None
    actions = ("ASSESS", "ADVANCE", "VERIFY", "SIMPLIFY", "SYNTHESIZE", "PIVOT", "OUTPUT")
    assert all(f"[{action}]\n" in found.data.system for action in actions)


def test_models_are_sharded_by_fsdp2_and_computed_in_bfloat16() -> None:
    settings = yaml.safe_load((LAUNCH / "fsdp2.yaml").read_text())
    assert (settings["fsdp_config"]["fsdp_version"], settings["mixed_precision"]) == (2, "bf16")
