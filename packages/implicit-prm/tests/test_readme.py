"""The README's examples run as they stand, with tiny models, and its numbers are those of the package."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
import typer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import implicit_prm
from implicit_prm import ImplicitPRM, ImplicitPRMWarning, functional
from implicit_prm.cli import app
from implicit_prm.recipe import read_recipe
from implicit_prm.training_run import _arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCORING, TRAINING, TENSORS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

Build = Callable[..., LlamaForCausalLM]


def test_the_example_of_scoring(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    prm = ImplicitPRM(tiny_llama(), tokenizer, tiny_llama(seed=1), 0.05)
    monkeypatch.setattr(ImplicitPRM, "from_pretrained", lambda name, ref, beta: prm)
    names: dict[str, Any] = {}
    exec(SCORING, names)
    assert [len(one.steps) for one in names["out"]] == [2, 2]
    assert names["best"] in (0, 1)
    assert names["vote"] in ("17", "27")


def test_the_example_of_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_llama: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    def load(name: str, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
        """As most models are saved, where no other dtype is asked for."""
        return tiny_llama().bfloat16().to(dtype)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name, **options: tokenizer)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImplicitPRMWarning)  # of weights that are too coarse
        exec(TRAINING, names)
    assert names["trainer"].state.global_step == 1
    assert (tmp_path / "prm" / "model.safetensors").is_file()


def test_the_numbers_of_the_example_on_tensors_are_what_the_functions_give() -> None:
    names: dict[str, Any] = {"torch": torch, "functional": functional}
    exec(TENSORS, names)
    told = 0
    for line in TENSORS.splitlines():
        code, _, said = line.partition("  # ")
        if code.startswith(("rewards.", "functional.")):
            found = eval(code, names).flatten().tolist()
            assert found == pytest.approx(ast.literal_eval(f"[{said}]"), abs=5e-5)
            told += 1
    assert told == 4


def test_every_command_and_public_name_that_it_shows_exists() -> None:
    for verb in set(re.findall(r"^implicit-prm ([a-z]+)", README, flags=re.MULTILINE)):
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb
    for module in set(re.findall(r"`implicit_prm\.([a-z_.]+)`", README)):
        importlib.import_module(f"implicit_prm.{module}")
    names = ("bon_table", "best_of_n", "weighted_vote", "extract_answer", "ImplicitPRMTrainer")
    for name in (*names, "fit_calibration", "overoptimization_curves", "annotate_steps", "to_frame"):
        assert name in README
        assert hasattr(implicit_prm, name), name


def test_the_options_in_its_shell_lines_are_the_command_s() -> None:
    """Parsed as click parses them, without a run: what is unknown or lacking ends in an error here."""
    group = cast(Any, typer.main.get_command(app))
    shell = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in shell.splitlines()]
    lines += [shlex.split(code) for code in re.findall(r"`(implicit-prm [^`]+)`", README)]
    commands = [words[1:] for words in lines if words[:1] == ["implicit-prm"]]
    assert {words[0] for words in commands} == set(group.commands)
    for verb, *arguments in commands:
        with group.commands[verb].make_context(verb, arguments) as context:
            assert not context.args


def test_the_toml_file_that_it_shows_is_a_recipe_that_trains_what_it_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    recipe = read_recipe(tmp_path / "run.toml")
    assert recipe.data.train == ["rollouts.jsonl"]
    assert recipe.model.dtype == "float32"
    arguments = _arguments({**recipe.training, "use_cpu": True})
    assert (arguments.loss, arguments.bf16) == ("ce", True)


def test_every_file_that_it_names_is_there() -> None:
    for name in set(re.findall(r"launch/[\w.]+", README)):
        assert (ROOT / name).is_file(), name
