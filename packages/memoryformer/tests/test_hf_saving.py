"""`save_pretrained` and `from_pretrained` give back the model, bit for bit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from memoryformer.errors import MemoryFormerError
from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM, apply_memoryformer, saving
from memoryformer.layers import MemoryLayer
from memoryformer.quantization import QuantizedMemoryLayer, quantize_tables_

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": lambda: LlamaConfig(**SIZES, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "gpt2": lambda: GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "memoryformer": lambda: MemoryFormerConfig(
        **{k: v for k, v in SIZES.items() if k != "intermediate_size"}, tau=4
    ),
}


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    if family == "memoryformer":
        return model
    return apply_memoryformer(model, tau=4, score="softmax", temperature=0.5, expand_bits=1)


def tokens() -> torch.Tensor:
    return torch.randint(3, 61, (2, 10), generator=torch.Generator().manual_seed(1))


def assert_same(loaded: PreTrainedModel, model: PreTrainedModel) -> None:
    expected, found = model.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        assert torch.equal(found[name], values), name
    # A matrix product may differ in its last bit with where in memory its matrix starts.
    torch.testing.assert_close(loaded(tokens()).logits, model(tokens()).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tables", [None, "int8", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, family: str, tables: str | None) -> None:
    model = build(family)
    if tables is not None:
        quantize_tables_(model, tables)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_same(loaded, model)
    kind = QuantizedMemoryLayer if tables == "int8" else MemoryLayer
    assert sum(isinstance(module, kind) for module in loaded.modules()) == 6
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert_same(AutoModelForCausalLM.from_pretrained(again), model)


def test_a_plain_memoryformer_needs_no_record_of_changes(tmp_path: Path) -> None:
    build("memoryformer").save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


def test_the_config_says_what_was_done(tmp_path: Path) -> None:
    quantize_tables_(build("llama")).save_pretrained(tmp_path)
    noted = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert noted["quant_method"] == "memoryformer"
    assert noted["tables"] == "int8"
    assert noted["applied"]["tau"] == 4
    assert noted["applied"]["temperature"] == 0.5


def test_replaced_matrices_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"]()).eval()
    settings = {"in_features": 64, "out_features": 32, "tau": 4, "bias": False}
    name = "model.layers.1.mlp.down_proj"
    model.set_submodule(name, MemoryLayer(**settings))
    saving.record(model, linear={name: settings})
    model.save_pretrained(tmp_path)
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_int8_scales_stay_float32_in_a_bfloat16_model(tmp_path: Path) -> None:
    quantize_tables_(build("memoryformer")).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    layer = loaded.model.layers[0].self_attn.qkv_proj
    assert layer.scales.dtype == torch.float32
    assert layer.tables.dtype == torch.int8
    assert loaded.lm_head.weight.dtype == torch.bfloat16


def test_a_changed_model_trains_in_trainer_and_an_int8_one_does_not(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    data = [{"input_ids": row, "labels": row} for row in tokens()]
    settings = TrainingArguments(
        str(tmp_path / "run"), max_steps=2, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    build("llama").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    before = model.model.layers[0].self_attn.q_proj.layer.tables.detach().clone()
    Trainer(model, settings, train_dataset=data).train()
    assert not torch.equal(model.model.layers[0].self_attn.q_proj.layer.tables, before)
    quantize_tables_(model.eval())
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"fine-tun|train"):
        Trainer(loaded, settings, train_dataset=data)


def test_tables_of_another_shape_are_named(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["applied"]["tau"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        MemoryFormerError, match=r"q_proj\.layer\.tables is \[8, 16, 64\].*\[4, 256, 64\], tau 8"
    ):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_missing_tables_are_named(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["transformer.h.1.mlp.layer2.tables"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MemoryFormerError, match=r"h\.1\.mlp\.layer2\.tables is missing in the checkpoint"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_tables_of_two_kinds_cannot_be_saved(tmp_path: Path) -> None:
    model = build("memoryformer")
    name = "model.layers.0.mlp.layer1"
    model.set_submodule(name, QuantizedMemoryLayer.from_layer(model.get_submodule(name)))
    with pytest.raises(MemoryFormerError, match=r"several kinds.*quantize_tables_ changes all"):
        model.save_pretrained(tmp_path)


def test_a_config_of_a_newer_version_is_refused() -> None:
    with pytest.raises(MemoryFormerError, match=r"has sparsity, which this version of memoryformer does not"):
        saving.MemoryFormerChanges(sparsity=0.5)


def test_from_pretrained_of_the_inner_model(tmp_path: Path) -> None:
    model = quantize_tables_(build("memoryformer"))
    model.save_pretrained(tmp_path)
    inner = type(model.model).from_pretrained(tmp_path)
    expected = model.model(tokens()).last_hidden_state
    torch.testing.assert_close(inner(tokens()).last_hidden_state, expected, rtol=0, atol=1e-5)
    assert isinstance(MemoryFormerForCausalLM.from_pretrained(tmp_path), MemoryFormerForCausalLM)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_loaded_model_is_mapped_from_its_file_and_not_read(tmp_path: Path) -> None:
    config = MemoryFormerConfig(vocab_size=64, hidden_size=128, num_hidden_layers=8, num_attention_heads=4)
    MemoryFormerForCausalLM(config).save_pretrained(tmp_path)  # 35 million parameters, 140 MB
    before = anonymous_memory()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        model(tokens())
    assert sum(values.numel() for values in model.parameters()) * 4 > 130e6
    assert anonymous_memory() - before < 40e6  # the tables stay in the file, which the system may drop


def anonymous_memory() -> int:
    """Bytes that this process owns, files that it has mapped left out."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
