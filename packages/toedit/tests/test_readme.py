"""The README's examples run as they stand, with a tiny prior, and its numbers are those of the package."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import toedit
from toedit import Editor, theory
from toedit.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EDITOR, TENSORS, THEORY = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_editor_s_example(
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    monkeypatch.setattr(
        Editor, "from_pretrained", lambda name, config: Editor(tiny_llama(), tokenizer, config)
    )
    names: dict[str, Any] = {}
    exec(EDITOR, names)
    assert names["result"].n_tokens > 10


def test_the_tensor_example_draws_only_the_sure_token() -> None:
    names: dict[str, Any] = {}
    exec(TENSORS, names)
    assert names["candidates"].tolist() == [[False, True, False]]
    assert names["new"].shape == (1, 3)


def test_the_theory_example_and_table_are_what_the_functions_give() -> None:
    exec(THEORY, {})
    for line in THEORY.splitlines():
        if line.startswith("theory."):
            code, _, said = line.partition("  # ")
            masks = np.eye(4, dtype=bool)
            found = eval(code, {"np": np, "theory": theory, "masks": masks})
            assert found == pytest.approx(ast.literal_eval(f"[{said}]"), abs=5e-9)
    assert theory.disjoint_limit([0.1] * 10) == pytest.approx(3.91, abs=5e-3)
    assert pytest.approx(4.437, abs=5e-4) == theory.DISJOINT_BOUND


def test_every_command_and_public_name_that_it_shows_exists() -> None:
    for verb in set(re.findall(r"^toedit ([a-z]+)", README, flags=re.MULTILINE)):
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb
    for name in set(re.findall(r"toedit\.([A-Za-z_]+)", README)) - {"integrations"}:
        assert hasattr(toedit, name), name


def test_every_file_that_it_names_is_there() -> None:
    for name in set(re.findall(r"launch/[\w.]+", README)):
        assert (ROOT / name).is_file(), name


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_slurm_script_edits_with_the_chosen_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("datatrove")
    module = script("edit_slurm")
    given = module.parser().parse_args(["in", "out", "--preset", "paper"])
    source, editor, target = module.pipeline("in", "out", "logs", given.model, given.preset, given.backend)
    folders = source.data_folder, target.output_folder, editor.exclusion_writer.output_folder
    assert [Path(folder.path).name for folder in folders] == ["in", "out", "quarantine"]
    assert editor.config == toedit.EditConfig.preset("paper")
    assert (editor.model, editor.backend) == ("meta-llama/Meta-Llama-3-8B", "vllm")


def test_the_evaluation_s_tasks_are_those_of_the_harness() -> None:
    found = importlib.util.find_spec("lm_eval")
    if found is None or found.origin is None:
        pytest.skip("lm_eval is not installed")
    script = (ROOT / "launch" / "evaluate.sh").read_text("utf-8")
    tasks = {task for names in re.findall(r"tasks=(\S+)", script) for task in names.split(",")}
    assert len(tasks) > 10
    known = re.compile(rb"^(?:task|group):\s*(\w+)\s*$", flags=re.MULTILINE)
    for path in (Path(found.origin).parent / "tasks").rglob("*.yaml"):
        tasks -= {name.decode() for name in known.findall(path.read_bytes())}
    assert tasks == set()


def test_the_pre_training_config_is_one_that_lmlab_takes_and_reads_six_billion_tokens() -> None:
    import tomllib

    from lmlab.models import build_config
    from lmlab.train import RunConfig

    config = RunConfig(**tomllib.loads((ROOT / "launch" / "olmo_1b.toml").read_text("utf-8")))
    assert build_config(config.model).num_hidden_layers == 16
    read = config.training.max_steps * config.training.batch_size * config.corpus.context_length
    assert read == pytest.approx(6e9, rel=0.01)
