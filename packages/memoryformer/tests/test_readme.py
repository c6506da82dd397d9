"""The README's examples run as they stand, on a smaller model, and its tables are those of the counters."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import memoryformer as mf
from memoryformer.reproduce import arms

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CORE, HUGGING_FACE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SIZES = ("tiny", "small", "base")
CONFIGS = Path(arms.__file__).parent / "configs"
RESULTS = Path(__file__).parents[3] / "docs" / "results" / "memoryformer"


def row(name: str) -> list[str]:
    """The cells of the table row that begins with `name`."""
    (found,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", README, flags=re.MULTILINE)
    return [cell.strip() for cell in found.split("|")]


def test_the_core_example_needs_torch_alone() -> None:
    names: dict[str, Any] = {}
    exec(CORE, names)
    assert names["y"].shape == (4, 512)
    assert names["layer"].tables.shape == (64, 256, 512)
    assert names["block"](names["y"]).shape == (4, 512)
    assert set(re.findall(r"^(?:import|from) (\w+)", CORE, flags=re.MULTILINE)) == {"torch", "memoryformer"}


def test_the_model_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    small = 'preset("tiny", vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=2)'
    exec(HUGGING_FACE.replace('preset("tiny")', small), names)
    assert names["text"].shape == (1, 72)
    again = AutoModelForCausalLM.from_pretrained("my-memoryformer").eval()
    tokens = names["tokens"]
    assert again(tokens).logits.equal(names["model"](tokens).logits)


def test_the_table_of_costs_is_that_of_the_counters() -> None:
    configs = [mf.MemoryFormerConfig.preset(name) for name in SIZES]
    tables = [mf.flops.parameters(config)["tables"] for config in configs]
    assert row("parameters in tables") == ["415 M", "1.87 G", "6.64 G"]
    assert tables == pytest.approx([415e6, 1.87e9, 6.64e9], rel=2e-3)
    for name, architecture in (
        ("bytes read a decoded token, tables, float32", "memoryformer"),
        ("dense FC, float32", "transformer"),
    ):
        counted = [mf.flops.bytes_per_token(c, architecture=architecture)["fc"] / 1e6 for c in configs]
        assert [float(cell.removesuffix(" MB")) for cell in row(name)] == pytest.approx(counted, rel=0.015)
    falls = [
        mf.flops.bytes_per_token(c, architecture="transformer")["total"]
        / mf.flops.bytes_per_token(c)["total"]
        for c in configs
    ]
    assert row("whole model with head: traffic falls by") == [f"{fall:.1f} x" for fall in falls]
    state = [mf.flops.training_bytes(config) / 1e9 for config in configs]
    said = [float(cell.removesuffix(" GB")) for cell in row("weights, gradients and Adam in float32")]
    assert said == pytest.approx(state, rel=0.006)


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_the_narrow_transformer_of_c3b_has_fewer_flops(scale: str) -> None:
    """Multiply-adds a token and block with attention at the context's length, by the formulas of arms.py."""
    config = tomllib.loads((CONFIGS / f"{scale}.toml").read_text("utf-8"))
    length, width = config["context_length"], config["shape"]["hidden_size"]
    chunks, (narrow, _) = width // 8, config["shape"]["narrow_total"]
    ours = chunks * (4 * width + 10 * chunks) + 2 * length * width
    theirs = 12 * narrow**2 + 2 * length * narrow
    assert f"{theirs:,}" in README
    assert f"{ours:,}" in README
    assert round(1 - theirs / ours, 2) == 0.08


def test_what_is_said_of_books_and_of_the_sweeps_is_what_was_published() -> None:
    quick, laptop = (
        json.loads((RESULTS / scale / "metrics.json").read_text("utf-8"))["metrics"]
        for scale in ("quick", "laptop")
    )
    text = " ".join(README.split())
    best = quick["books_best_transformer_minus_memoryformer"]
    said = f"by {best['mean']:.2f} [{best['low']:.2f}, {best['high']:.2f}] with both at their best"
    assert said in text
    margin, fairer = quick["transformer_minus_memoryformer"], quick["best_transformer_minus_memoryformer"]
    assert f"by {margin['mean']:.2f} nats, and by {fairer['mean']:.2f} with both at their best rate" in text
    rates = tomllib.loads((CONFIGS / "quick.toml").read_text("utf-8"))["learning_rates"]
    assert quick["best_rate_transformer"]["mean"] == min(rates["transformer"])
    assert quick["best_rate_memoryformer"]["mean"] == max(rates["memoryformer"])
    books = laptop["books_transformer_minus_memoryformer"]
    assert f"On books the lead is {books['mean']:.2f}, and its interval" in text
    assert f"[{books['low']:.2f}, {books['high']:.2f}], includes 0" in text
    sweeps = tomllib.loads((CONFIGS / "laptop.toml").read_text("utf-8"))["learning_rates"]
    lowest = {
        arm: laptop[f"best_rate_{arm.replace('-', '_')}"]["mean"] == min(rates)
        for arm, rates in sweeps.items()
    }
    assert lowest == {arm: arm != "memoryformer" for arm in sweeps}
    assert laptop["best_rate_memoryformer"]["mean"] < max(sweeps["memoryformer"])


def test_the_averages_of_table_1_with_wsc_and_without() -> None:
    tasks = {
        name: [float(x) for x in row(name)]
        for name in ("PIQA", "WinoGrande", "WSC", "ARC-E", "ARC-C", "LogiQA")
    }
    without = [column for name, column in tasks.items() if name != "WSC"]
    for said, columns in (("average", list(tasks.values())), ("average without WSC", without)):
        means = [sum(values) / len(columns) for values in zip(*columns, strict=True)]
        assert [float(x) for x in row(said)] == pytest.approx(means, abs=6e-4)
    assert pytest.approx(tasks["WSC"][0], abs=5e-4) == 38 / 104
