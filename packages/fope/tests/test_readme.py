"""The README's examples run as they stand; the model of the second is a small one of the same family."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import fope.hf

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CORE, HUGGING_FACE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_core_example_needs_torch_alone() -> None:
    names: dict[str, Any] = {}
    exec(CORE, names)
    assert names["q"].shape == (2, 32, 512, 64)
    assert names["k"].shape == (2, 8, 512, 64)
    assert set(re.findall(r"^(?:import|from) (\w+)", CORE, flags=re.MULTILINE)) == {"torch", "fope"}


def test_every_name_of_the_table_is_there_after_the_imports_that_are_shown() -> None:
    code = README.split("| for | there is |")[1].split("\n\n")[0]
    dotted = set(re.findall(r"\bfope(?:\.\w+)+", code))
    assert {"fope.hf.extend", "fope.hf.baselines.apply_position", "fope.analysis"} <= dotted
    dotted |= {f"fope.analysis.{name}" for name in re.findall(r"`(\w+)`", code.split("`fope.analysis`")[1])}
    script = "import fope, fope.hf\n" + "\n".join(sorted(dotted))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_hugging_face_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    small = AutoModelForCausalLM.from_config(config)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name: small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(HUGGING_FACE, names)
    tokens = torch.randint(0, 64, (1, 16))
    monkeypatch.undo()
    again = fope.hf.from_pretrained(tmp_path / "smollm2-fope")
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, names["model"](tokens).logits)
