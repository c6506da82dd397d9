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
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from lmlab.trainer import save_given
from memoryformer.errors import MemoryFormerError
from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM, apply_memoryformer, saving
from memoryformer.layers import LookupLayer, MemoryLayer
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


def test_a_model_made_of_the_config_of_an_int8_one_is_saved_as_what_it_is(tmp_path: Path) -> None:
    """Made before the other is saved, after it, and of what it saved."""
    quantized, make = build("memoryformer"), AutoModelForCausalLM.from_config
    models = [make(quantized.config)]
    quantize_tables_(quantized).save_pretrained(tmp_path / "int8")
    models += [make(quantized.config), make(AutoConfig.from_pretrained(tmp_path / "int8"))]
    for index, model in enumerate(models):
        folder = tmp_path / str(index)
        model.eval().save_pretrained(folder)
        assert_same(AutoModelForCausalLM.from_pretrained(folder), model)
    quantized.save_pretrained(tmp_path / "again")
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "again"), quantized)


def test_of_two_models_with_one_config_only_the_changed_one_is_saved_as_changed(tmp_path: Path) -> None:
    config = FAMILIES["llama"]()
    plain, changed = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    apply_memoryformer(changed, tau=4)
    changed.set_attn_implementation("eager")  # all of its modules have the new config
    assert changed.model.layers[0].self_attn.config._attn_implementation == "eager"
    for model in (plain, changed):
        model.save_pretrained(tmp_path / type(model.model.layers[0].mlp).__name__)
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "LlamaMLP"), plain)
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "MemoryBlock"), changed)


@pytest.mark.parametrize(
    ("claimed", "tables", "message"),
    [
        ("int8", None, r"qkv_proj\.tables is \[8, 16, 96\] of F32 .* of int8"),
        (None, "int8", r"qkv_proj\.tables is \[8, 16, 96\] of I8 .* of floats"),
    ],
)
def test_numbers_of_another_kind_are_named(
    tmp_path: Path, claimed: str | None, tables: str | None, message: str
) -> None:
    model = build("memoryformer")
    if tables is not None:
        quantize_tables_(model, tables)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "memoryformer", "tables": claimed}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MemoryFormerError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_scales_of_another_shape_are_named(tmp_path: Path) -> None:
    quantize_tables_(build("memoryformer")).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.self_attn.qkv_proj.scales"
    weights[name] = weights[name][:, :1].contiguous()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        MemoryFormerError, match=r"scales is \[8, 1\] of F32 .* it is \[8, 16\], tau 4, of float32"
    ):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_the_score_s_temperature_is_not_that_of_sampling(tmp_path: Path) -> None:
    """transformers takes a config's `temperature` for a setting of `generate`."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tau": 4,
    }
    model = MemoryFormerForCausalLM(
        MemoryFormerConfig(**settings, initializer_range=0.3, temperature=0.5)
    ).eval()
    save_given(model, str(tmp_path), model.state_dict())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    without_file = AutoModelForCausalLM.from_pretrained(tmp_path)
    for one in (model, loaded, without_file):
        assert one.config.temperature == one.model.layers[0].mlp.layer1.temperature == 0.5
        assert_same(one, model)
        drawn = []
        for sampling in ({}, {"temperature": 1.0}, {"temperature": 0.5}):
            torch.manual_seed(1)
            drawn.append(
                one.generate(tokens(), do_sample=True, max_new_tokens=12, pad_token_id=0, **sampling)
            )
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])


def test_a_temperature_of_sampling_is_kept(tmp_path: Path) -> None:
    model = MemoryFormerForCausalLM(FAMILIES["memoryformer"]())
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.7
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.temperature == 0.7


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
@pytest.mark.parametrize(("tables", "size"), [(None, 4), ("bfloat16", 2), ("int8", 1)])
def test_a_loaded_model_is_mapped_from_its_file_and_not_read(
    tmp_path: Path, tables: str | None, size: int
) -> None:
    config = MemoryFormerConfig(vocab_size=64, hidden_size=128, num_hidden_layers=8, num_attention_heads=4)
    model = MemoryFormerForCausalLM(config).eval()  # 35 million parameters
    if tables is not None:
        quantize_tables_(model, tables)
    model.save_pretrained(tmp_path)
    del model
    before = anonymous_memory()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        model(tokens())
    stored = sum(layer.tables.nbytes for layer in model.modules() if isinstance(layer, LookupLayer))
    assert stored > size * 34e6
    assert anonymous_memory() - before < stored / 4  # they stay in the file, which the system may drop


def anonymous_memory() -> int:
    """Bytes that this process owns, files that it has mapped left out."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
