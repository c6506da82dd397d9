from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import memoryformer as mf

HEAVY = ("transformers", "scipy", "matplotlib", "typer", "pydantic", "tenfold", "lmlab", "torch._dynamo")


def python(code: str) -> str:
    """What a new interpreter prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# What is set to None cannot be imported. One process for all of it, for it takes seconds to import torch.
BARE = """
import contextlib, io, json, runpy, sys
import torch
before = set(sys.modules)
import memoryformer
memoryformer.MemoryBlock(16, 4)
told = {"loaded": sorted(set(sys.modules) - before)}

sys.modules["transformers"] = None
memoryformer.MemoryLayer(16, 16, 4)
try:
    memoryformer.MemoryFormerConfig
except ImportError as error:
    told["error"] = str(error)

sys.modules.update(dict.fromkeys(("lmlab", "tenfold", "scipy")))
import memoryformer.benchmark
memoryformer.benchmark._last_cache = lambda device: 2**14
sys.argv = "memoryformer bench --widths 64 --tokens 1 --seconds 0.01 --json".split()
out = io.StringIO()
with contextlib.redirect_stdout(out):
    try:
        runpy.run_module("memoryformer", run_name="__main__")
    except SystemExit as ended:
        told["code"] = ended.code or 0
told["out"] = out.getvalue()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def bare() -> dict[str, Any]:
    """What a bare import loads, and what the package and its command do without all that an extra brings."""
    return json.loads(python(BARE))


def test_the_import_brings_torch_and_nothing_heavier(bare: dict[str, Any]) -> None:
    assert [name for name in HEAVY if name in bare["loaded"]] == []


def test_every_public_name_is_there() -> None:
    assert sorted(mf.__all__) == mf.__all__ == dir(mf)
    for name in mf.__all__:
        assert getattr(mf, name) is not None
    with pytest.raises(AttributeError, match="module 'memoryformer' has no attribute 'MemoryLayers'"):
        mf.MemoryLayers  # noqa: B018


def test_without_transformers_the_layers_work_and_the_model_says_what_to_install(
    bare: dict[str, Any],
) -> None:
    assert "transformers" not in bare["loaded"]  # neither did the import of memoryformer ask for it
    assert "pip install 'memoryformer[hf]'" in bare["error"]


def test_the_command_itself_needs_torch_and_typer_only(bare: dict[str, Any]) -> None:
    assert bare.get("code", 0) == 0
    assert json.loads(bare["out"])["timings"]


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(
            "import memoryformer\nfrom transformers import AutoModelForCausalLM", marks=pytest.mark.slow
        ),
        pytest.param(
            "from transformers import AutoModelForCausalLM\nimport memoryformer", marks=pytest.mark.long
        ),
        # Llama's module imports the auto classes in the middle of its own import.
        pytest.param(
            "import memoryformer\nfrom transformers import LlamaForCausalLM, AutoModelForCausalLM",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["before transformers", "after transformers", "before another model"],
)
def test_from_pretrained_knows_a_saved_model_after_a_bare_import(imports: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = mf.MemoryFormerConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, tau=4, expand_bits=1
    )
    model = mf.MemoryFormerForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    code = f"""
import torch
{imports}
model = AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})
print(type(model).__name__, model(torch.arange(4)[None]).logits.sum().item())
import sys
from memoryformer.registration import _Watch
assert not any(isinstance(finder, _Watch) for finder in sys.meta_path)
"""
    name, total = python(code).split()
    assert name == "MemoryFormerForCausalLM"
    assert float(total) == pytest.approx(model(torch.arange(4)[None]).logits.sum().item(), abs=1e-4)


@pytest.mark.slow
def test_a_changed_model_loads_by_its_own_class_after_a_bare_import(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    mf.apply_memoryformer(LlamaForCausalLM(config), tau=4).save_pretrained(tmp_path)
    code = f"""
import memoryformer
from transformers import LlamaForCausalLM
model = LlamaForCausalLM.from_pretrained({str(tmp_path)!r})
print(type(model.model.layers[0].mlp).__name__)
"""
    assert python(code).split() == ["MemoryBlock"]


@pytest.mark.slow
def test_a_plug_in_that_does_not_fit_transformers_is_a_warning_not_a_failed_import() -> None:
    code = """
import sys, warnings
import memoryformer
sys.modules["memoryformer.hf.config"] = None
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from transformers import AutoConfig
print([str(warning.message) for warning in told if warning.category is memoryformer.MemoryFormerWarning])
"""
    assert "transformers does not know the models of memoryformer" in python(code)
