"""Saving and loading: through transformers, without its plug-in, whole or not at all."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

import lpa

Build = Callable[..., PreTrainedModel]
LOADERS = [AutoModelForCausalLM.from_pretrained, lpa.from_pretrained]

READ_LOGITS = """
import sys
import torch
if sys.argv[1] == "with lpa":
    import lpa
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[2])
torch.save(model(torch.load(sys.argv[3])).logits.detach(), sys.argv[4])
assert sys.argv[1] == "with lpa" or "lpa" not in sys.modules
"""


def low_rank(build: Build, **changes: Any) -> PreTrainedModel:
    return lpa.apply_lpa(build(), lpa.LPAConfig(rank=9, init="matched", **changes))


def logits_in_a_new_process(folder: Path, ids: torch.Tensor, how: str) -> torch.Tensor:
    torch.save(ids, folder / "ids.pt")
    arguments = [how, str(folder), str(folder / "ids.pt"), str(folder / "logits.pt")]
    subprocess.run([sys.executable, "-c", READ_LOGITS, *arguments], check=True, capture_output=True)
    return torch.load(folder / "logits.pt")


@pytest.mark.slow
def test_a_new_process_reads_equal_bits(tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path) -> None:
    model = low_rank(tiny_llama)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_in_a_new_process(tmp_path, token_ids, "with lpa"), model(token_ids).logits)


@pytest.mark.slow
def test_a_merged_model_needs_no_lpa(tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path) -> None:
    model = low_rank(tiny_llama)
    lpa.merge(model).save_pretrained(tmp_path)
    assert "lpa" not in (tmp_path / "config.json").read_text()
    logits = logits_in_a_new_process(tmp_path, token_ids, "without")
    torch.testing.assert_close(logits, model(token_ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("changes", [{}, {"targets": ("q", "o")}, {"bottleneck": "silu"}, {"fused": False}])
def test_loaded_models_are_equal_and_save_again(
    tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path, load: Any, changes: dict[str, Any]
) -> None:
    model = low_rank(tiny_llama, **changes)
    model.save_pretrained(tmp_path / "first")
    load(tmp_path / "first").save_pretrained(tmp_path / "second")
    again = load(tmp_path / "second")
    assert torch.equal(again(token_ids).logits, model(token_ids).logits)
    assert not again.training
    assert json.loads((tmp_path / "second" / "config.json").read_text())["quantization_config"]["rank"] == 9


@pytest.mark.parametrize("load", LOADERS)
def test_a_shared_a_is_saved_once_and_shared_again(
    tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path, load: Any
) -> None:
    model = low_rank(tiny_llama, share_down=True)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as tensors:
        assert sum(".down.weight" in key and ".o_proj." not in key for key in tensors.keys()) == 2  # noqa: SIM118
    again = load(tmp_path)
    attention = again.model.layers[1].self_attn
    assert attention.q_proj.down is attention.k_proj.down
    assert attention.k_proj.down.weight is attention.v_proj.down.weight
    assert torch.equal(again(token_ids).logits, model(token_ids).logits)
    dense = lpa.merge(again)
    dense.save_pretrained(tmp_path / "dense")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    torch.testing.assert_close(plain(token_ids).logits, model(token_ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("load", LOADERS)
def test_a_head_with_a_bias(tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path, load: Any) -> None:
    model = low_rank(tiny_llama, lm_head_bias=True)
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert torch.equal(again.lm_head.bias, model.lm_head.bias)
    assert torch.equal(again(token_ids).logits, model(token_ids).logits)
    assert AutoModel.from_pretrained(tmp_path).config.quantization_config.lpa.lm_head_bias  # has no head
    with pytest.warns(lpa.LPAWarning, match="head has a bias"):
        dense = lpa.merge(model)
    torch.testing.assert_close(dense(token_ids).logits, model(token_ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("load", LOADERS)
def test_two_models_of_one_config_do_not_mix_it_up(
    tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path, load: Any
) -> None:
    config = tiny_llama().config
    dense, low = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    lpa.apply_lpa(low, lpa.LPAConfig(rank=9, init="matched"))
    assert all(module.config is low.config for module in low.modules() if hasattr(module, "config"))
    assert not hasattr(config, "quantization_config")
    dense.save_pretrained(tmp_path / "dense")
    low.save_pretrained(tmp_path / "low")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert not lpa.is_lpa(again)
    assert torch.equal(again(token_ids).logits, dense(token_ids).logits)
    assert torch.equal(load(tmp_path / "low")(token_ids).logits, low(token_ids).logits)


@pytest.mark.parametrize("kept", ["none", "downs"])
def test_a_checkpoint_without_a_factor(tiny_llama: Build, tmp_path: Path, kept: str) -> None:
    low = low_rank(tiny_llama)
    low.save_pretrained(tmp_path)
    if kept == "none":
        save_file(tiny_llama().state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    else:
        state = {name: values for name, values in low.state_dict().items() if ".up." not in name}
        save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    number = 16 if kept == "none" else 8
    with pytest.raises(lpa.LPAError, match=rf"lacks {number} of the 16 factors .* first model\.layers\.0\."):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("load", LOADERS)
def test_a_config_with_another_rank(tiny_llama: Build, tmp_path: Path, load: Any) -> None:
    low_rank(tiny_llama).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["rank"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        lpa.LPAError, match=r"q_proj has rank 9 in the checkpoint and rank 7 by the LPA config"
    ):
        load(tmp_path)


def test_what_the_fallback_refuses(tiny_llama: Build, tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "dense")
    with pytest.raises(lpa.LPAError, match="has no low-rank model"):
        lpa.from_pretrained(tmp_path / "dense")
    low_rank(tiny_llama).save_pretrained(tmp_path / "low")
    (tmp_path / "low" / "model.safetensors").unlink()
    with pytest.raises(lpa.LPAError, match="was its save interrupted"):
        lpa.from_pretrained(tmp_path / "low")


def test_a_save_that_fails_leaves_the_earlier_checkpoint(
    tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, folder = low_rank(tiny_llama), low_rank(tiny_llama), tmp_path / "model"
    lpa.save_pretrained(first, folder)
    (folder / "tokenizer.json").write_text("{}")

    def full_disk(path: str, **settings: Any) -> None:
        Path(path, "model.safetensors").write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(second, "save_pretrained", full_disk)
        with pytest.raises(OSError, match="No space left"):
            lpa.save_pretrained(second, folder)
    assert os.listdir(tmp_path) == ["model"]  # nothing half-written is left beside it
    assert torch.equal(lpa.from_pretrained(folder)(token_ids).logits, first(token_ids).logits)
    lpa.save_pretrained(first, folder, max_shard_size="10KB")
    assert (folder / "model.safetensors.index.json").exists()
    assert not (folder / "model.safetensors").exists()
    assert torch.equal(lpa.from_pretrained(folder)(token_ids).logits, first(token_ids).logits)
    lpa.save_pretrained(second, folder)  # shards of the earlier save would be read before it
    assert torch.equal(lpa.from_pretrained(folder)(token_ids).logits, second(token_ids).logits)
    assert (folder / "tokenizer.json").exists()


@pytest.mark.parametrize("sizes", [("10KB", "5GB"), ("5GB", "10KB"), ("5GB", "5GB")])
def test_a_move_that_fails_leaves_a_whole_checkpoint(
    tiny_llama: Build, token_ids: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: Any
) -> None:
    first, second, folder = low_rank(tiny_llama), low_rank(tiny_llama), tmp_path / "model"
    whole = [model(token_ids).logits for model in (first, second)]
    real, moves = Path.replace, list[str]()

    def lost(file: Path, target: Path) -> Path:
        moves.append(target.name)
        if len(moves) > allowed:
            raise OSError(5, "Input/output error")
        return real(file, target)

    for allowed in range(100):
        lpa.save_pretrained(first, folder, max_shard_size=sizes[0])
        moves.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lost)
            with contextlib.suppress(OSError):
                lpa.save_pretrained(second, folder, max_shard_size=sizes[1])
        read = lpa.from_pretrained(folder)(token_ids).logits
        assert any(torch.equal(read, logits) for logits in whole)
        assert allowed or torch.equal(read, whole[0])
        if len(moves) <= allowed:
            break
    assert torch.equal(read, whole[1])
    assert moves[-1] == "config.json"
    assert (folder / "model.safetensors.index.json").exists() == (sizes[1] == "10KB")


def test_copies_and_pickles(tiny_llama: Build, token_ids: torch.Tensor) -> None:
    model = low_rank(tiny_llama)
    expected = model(token_ids).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(token_ids).logits, expected)
        with torch.no_grad():
            other.model.layers[0].self_attn.q_proj.down.weight.zero_()
        assert not torch.equal(other(token_ids).logits, expected)
        assert torch.equal(model(token_ids).logits, expected)


def test_the_meta_device_is_enough_for_estimates(tiny_llama: Build) -> None:
    with torch.device("meta"):
        model = low_rank(tiny_llama)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert lpa.estimate(model, 32) == lpa.estimate(low_rank(tiny_llama), 32)
    with pytest.raises(lpa.LPAError, match="meta"):
        lpa.factorize(lpa.merge(model), lpa.LPAConfig(rank=9))


TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_of_a_model_that_sees_only_the_text_decoder_changes(family: str, tmp_path: Path) -> None:
    text = {**TEXT, "num_key_value_heads": 2, "head_dim": 8}
    if family == "gemma3":
        config = Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4)
        model = Gemma3ForConditionalGeneration(config).eval()
    else:
        config = LlavaConfig(
            text_config={**text, "model_type": "llama"},
            vision_config={**VISION, "model_type": "clip_vision_model", "projection_dim": 16},
        )
        model = LlavaForConditionalGeneration(config).eval()
    lpa.apply_lpa(model, lpa.LPAConfig(rank=9, init="matched"))
    low = [name for name, module in model.named_modules() if isinstance(module, lpa.LowRankLinear)]
    assert len(low) == 2 * 4
    assert all("language_model" in name for name in low)
    ids = torch.randint(2, 60, (1, 9))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_encoder_decoder_models_are_refused() -> None:
    config = T5Config(vocab_size=64, d_model=32, d_ff=48, num_layers=1, num_heads=4, d_kv=8)
    with pytest.raises(lpa.LPAError, match="encoder-decoder"):
        lpa.apply_lpa(T5ForConditionalGeneration(config), lpa.LPAConfig(rank=9))
