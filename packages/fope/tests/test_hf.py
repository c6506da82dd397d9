"""fope.hf: conversion, saving, folding, conflicts; over 400 lines, as all is asked of the same families."""

import copy
import json
import sys
import warnings

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import fope.hf
from fope.errors import FopeError, FopeWarning
from fope.hf.config import read
from fope.hf.rotation import rotating_layers

SHAPES = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32},
    "phi3": {"pad_token_id": 0},
    "smollm3": {"pad_token_id": 0},
    "gpt_neox": {"num_key_value_heads": None, "rotary_pct": 0.5},
    "olmo2": {},
    "cohere": {"logit_scale": 1.0, "pad_token_id": 0},
    "cohere2": {
        "logit_scale": 1.0,
        "pad_token_id": 0,
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 64,
    },
    "glm": {"head_dim": 32, "partial_rotary_factor": 0.5, "pad_token_id": 0},
    "qwen3_next": {
        "head_dim": 32,
        "layer_types": ["full_attention", "full_attention"],
        "mlp_only_layers": [0, 1],
    },
}
PARTLY = {  # not folded, the first two, or not converted
    "nanochat": {"pad_token_id": 0},
    "hunyuan_v1_dense": {"head_dim": 32, "pad_token_id": 0},
    "phimoe": {"num_local_experts": 2, "pad_token_id": 0},
}
COMMON = {
    "vocab_size": 97,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def fresh(family="llama", seed=0, **changes):
    settings = {
        key: value
        for key, value in {**COMMON, **(SHAPES | PARTLY)[family], **changes}.items()
        if value is not None
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    with torch.no_grad():  # larger weights, so that attention looks at positions
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(4)
    return model


def tokens(rows=2, length=24, seed=1):
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, ids, **kwargs):
    return model(input_ids=ids, **kwargs).logits


@pytest.mark.parametrize("family", SHAPES)
def test_gain_zero_without_clipping_is_the_family_s_own_rope(family):
    model, ids = fresh(family), tokens()
    before = logits(model, ids)
    fope.hf.convert_to_fope(model, train_length=64, init_gain=0.0, clip=False)
    assert torch.allclose(logits(model, ids), before, atol=2e-5)


@pytest.mark.parametrize("family", SHAPES)
def test_fope_changes_the_model_and_cached_decoding_equals_one_pass(family):
    model, ids = fresh(family), tokens()
    before = logits(model, ids)
    fope.hf.convert_to_fope(model, train_length=64)
    whole = logits(model, ids)
    assert not torch.allclose(whole, before, atol=1e-3)
    with torch.no_grad():
        first = model(input_ids=ids[:, :17], use_cache=True)
        rest = [first.logits]
        cache = first.past_key_values
        for step in range(17, ids.shape[1]):
            out = model(input_ids=ids[:, step : step + 1], past_key_values=cache, use_cache=True)
            rest.append(out.logits)
    assert torch.allclose(torch.cat(rest, 1), whole, atol=1e-4)


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("zeta", [1.0, 0.5])
def test_folding_keeps_the_function(family, zeta):
    model, ids = fresh(family), tokens()
    fope.hf.convert_to_fope(model, train_length=20, zero_sin=zeta, preserve=False)
    before = logits(model, ids)
    fope.hf.fold_zero_phase(model)
    assert read(model.config).config.zero_sin == 0
    assert torch.allclose(logits(model, ids), before, atol=1e-4)
    fope.hf.fold_zero_phase(model, zeta)
    assert torch.allclose(logits(model, ids), before, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama", (False, 1)), ("cohere", (True, 1)), ("glm", (True, 1)), ("nanochat", (False, -1))],
)
def test_pairs_of_channels_are_the_family_s(family, kind, tmp_path):
    ids, model = tokens(), fresh(family)
    before = logits(model, ids)
    fope.hf.convert_to_fope(model, train_length=64, init_gain=0.0, clip=False)
    assert torch.allclose(logits(model, ids), before, atol=2e-5)
    config = read(model.config).config
    assert (config.interleaved, config.direction) == kind
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(fope.hf.from_pretrained(tmp_path).eval(), ids), logits(model, ids))


def test_another_way_to_rotate_is_refused(monkeypatch):
    model, ids = fresh("qwen2"), tokens()
    family = sys.modules[type(rotating_layers(model)[0]).__module__]

    def apply_rotary_pos_emb(q, k, cos, sin):
        return q * cos, k * cos

    apply_rotary_pos_emb.__module__ = family.__name__
    monkeypatch.setattr(family, "apply_rotary_pos_emb", apply_rotary_pos_emb)
    with pytest.raises(FopeError, match="Qwen2ForCausalLM turns queries and keys in a way"):
        fope.hf.convert_to_fope(model, train_length=64)
    monkeypatch.undo()
    assert torch.equal(logits(model, ids), logits(fresh("qwen2"), ids))


def test_layers_that_do_not_rotate_get_nothing():
    model = fope.hf.convert_to_fope(fresh("cohere2"), train_length=20, zero_sin=1.0)
    plain = fresh("cohere2")
    whole, windowed = (layer.self_attn for layer in model.model.layers)
    assert not hasattr(whole, "fope")
    assert torch.equal(whole.q_proj.weight, plain.model.layers[0].self_attn.q_proj.weight)
    assert not torch.equal(windowed.q_proj.weight, plain.model.layers[1].self_attn.q_proj.weight)


def test_a_norm_after_the_rotation_is_not_folded():
    model, ids = fresh("nanochat"), tokens()
    before = logits(model, ids)
    with pytest.raises(FopeError, match=r"NanoChatRMSNorm multiplies by neither .* zero_sin=0"):
        fope.hf.convert_to_fope(model, train_length=20, zero_sin=1.0)
    assert torch.equal(logits(model, ids), before)
    model = fresh("hunyuan_v1_dense")
    with pytest.raises(FopeError, match="normalizes queries and keys by query_layernorm, key_layernorm"):
        fope.hf.convert_to_fope(model, train_length=20, zero_sin=1.0)
    assert read(model.config) is None


def test_preserve_is_zero_sin_0_folded_and_raw_padding_is_not():
    ids = tokens()
    plain = logits(fope.hf.convert_to_fope(fresh(), train_length=20), ids)
    kept = logits(fope.hf.convert_to_fope(fresh(), train_length=20, zero_sin=1.0), ids)
    raw = logits(fope.hf.convert_to_fope(fresh(), train_length=20, zero_sin=1.0, preserve=False), ids)
    assert torch.allclose(kept, plain, atol=1e-4)
    assert not torch.allclose(raw, plain, atol=1e-2)


def test_an_unconverted_model_of_the_family_is_left_alone():
    ids, other = tokens(), fresh(seed=3)
    before = logits(other, ids)
    fope.hf.convert_to_fope(fresh(), train_length=64)
    assert torch.equal(logits(other, ids), before)
    assert torch.equal(logits(fresh(seed=3), ids), before)


def test_the_config_it_was_made_from_stays_as_it_was():
    plain, ids = fresh(), tokens()
    config = copy.deepcopy(plain.config)
    first, second = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    fope.hf.convert_to_fope(first, train_length=64, zero_sin=1.0)
    for other in (second, AutoModelForCausalLM.from_config(config).eval()):
        assert read(other.config) is None
        other.load_state_dict(plain.state_dict())
        assert torch.equal(logits(other, ids), logits(plain, ids))
    built = AutoModelForCausalLM.from_config(first.config)  # shares first's config until one of them changes
    fope.hf.fold_zero_phase(built)
    fope.hf.extend(built, 96)
    assert read(first.config).config.zero_sin == 1.0
    assert read(first.config).config.train_length == 64
    parts = (first, first.model, first.model.rotary_emb, *rotating_layers(first))
    assert all(part.config is first.config for part in parts)  # so that a later change reaches all of them


@pytest.mark.parametrize("family", SHAPES)
def test_save_and_load_bit_for_bit(family, tmp_path):
    model, ids = fresh(family), tokens()
    fope.hf.convert_to_fope(model, train_length=64, init_gain=0.5, seed=7, zero_sin=1.0, oversample=2)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert any(key.endswith(("layers.1.self_attn.fope.cos_coef", "attention.fope.cos_coef")) for key in saved)
    for again in (fope.hf.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert torch.equal(logits(again.eval(), ids), logits(model, ids))
    assert read(again.config) == read(model.config)


def test_a_bf16_model_keeps_its_coefficients_in_float32(tmp_path):
    model = fope.hf.convert_to_fope(fresh(), train_length=64).to(torch.bfloat16)
    exact = rotating_layers(model)[0].fope.cos_coef
    assert exact.dtype == torch.float32
    model.save_pretrained(tmp_path)
    again = fope.hf.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.dtype == torch.bfloat16
    assert torch.equal(rotating_layers(again)[0].fope.cos_coef, exact)


def test_a_config_alone_builds_the_model_that_conversion_makes():
    model = fope.hf.convert_to_fope(fresh(), train_length=64, seed=5)
    built = AutoModelForCausalLM.from_config(model.config)
    for one, other in zip(rotating_layers(built), rotating_layers(model), strict=True):
        assert torch.equal(one.fope.sin_coef, other.fope.sin_coef)
    first, second = rotating_layers(model)
    assert not torch.equal(first.fope.cos_coef, second.fope.cos_coef)


def test_one_set_of_coefficients_for_all_layers(tmp_path):
    model = fope.hf.convert_to_fope(fresh(), train_length=64, per_layer=False)
    first, second = rotating_layers(model)
    assert torch.equal(first.fope.cos_coef, second.fope.cos_coef)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(fope.hf.from_pretrained(tmp_path), tokens()), logits(model, tokens()))


def test_missing_coefficients_are_never_drawn_again(tmp_path):
    fope.hf.convert_to_fope(fresh(), train_length=64).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    left = {key: value for key, value in load_file(file).items() if "layers.1.self_attn.fope.sin" not in key}
    save_file(left, file, metadata={"format": "pt"})
    with pytest.raises(FopeError, match=r"layers\.1\.self_attn\.fope\.sin_coef .*missing in the checkpoint"):
        fope.hf.from_pretrained(tmp_path)


def test_coefficients_of_another_length_name_both_numbers(tmp_path):
    fope.hf.convert_to_fope(fresh(), train_length=64).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"]["train_length"] = 2048
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FopeError, match=r"R=5 pairs against R=11.*not max_position_embeddings"):
        fope.hf.from_pretrained(tmp_path)


def test_max_position_embeddings_does_not_change_what_is_kept(tmp_path):
    model = fope.hf.convert_to_fope(fresh(), train_length=64)
    model.save_pretrained(tmp_path)
    longer = fope.hf.from_pretrained(tmp_path, max_position_embeddings=4096)
    assert read(longer.config).config.num_kept == read(model.config).config.num_kept
    assert torch.equal(logits(longer, tokens()), logits(model, tokens()))


def test_a_config_without_zero_sin_is_refused(tmp_path):
    fope.hf.convert_to_fope(fresh(), train_length=64).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]["zero_sin"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FopeError, match=r"need zero_sin.*fope fold"):
        fope.hf.from_pretrained(tmp_path)


def test_loading_a_rope_model_as_fope_is_refused(tmp_path):
    fresh().save_pretrained(tmp_path)
    with pytest.raises(FopeError, match="is no FoPE model"):
        fope.hf.from_pretrained(tmp_path)


def test_left_padding_is_exact():
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens(1, 12)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], 1)
    mask = (torch.arange(17) >= 5).long()[None]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = logits(model, padded, attention_mask=mask, position_ids=positions)
    assert torch.allclose(out[:, 5:], logits(model, ids), atol=1e-5)


@pytest.mark.parametrize(
    ("start", "options", "warned"),
    [(3, {}, True), (12, {}, False), (30, {}, False), (3, {"series": False}, False)],
)
def test_new_positions_for_cached_keys_are_warned_of(start, options, warned):
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64, **options), tokens(2, 13)
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cache = model(input_ids=ids[:, :12], use_cache=True).past_key_values
        model(input_ids=ids[:, 12:], past_key_values=cache, position_ids=torch.full((2, 1), start))
    messages = [str(warning.message) for warning in told if warning.category is FopeWarning]
    assert len(messages) == warned  # once, not once a layer
    assert all("begin at 3 and 12 tokens are cached" in message for message in messages)


def test_padding_in_the_cache_is_not_warned_of():
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens(1, 12)
    mask = (torch.arange(17) >= 5).long()[None]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FopeWarning)
        padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], 1)
        model.generate(padded, attention_mask=mask, max_new_tokens=4, do_sample=False)


def test_generate_with_a_cache_equals_without():
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens(2, 9)
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(
        model.generate(ids, use_cache=True, **options), model.generate(ids, use_cache=False, **options)
    )


def test_copies_and_gradient_checkpointing_compute_the_same():
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens()
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied, ids), logits(model, ids))
    model.train()(input_ids=ids, labels=ids).loss.backward()
    copied.gradient_checkpointing_enable()
    copied.train()(input_ids=ids, labels=ids).loss.backward()
    for one, other in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_peft_adapters_sit_on_a_converted_model():
    peft = pytest.importorskip("peft")
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens()
    before = logits(model, ids)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))
    assert torch.allclose(logits(adapted, ids), before, atol=1e-6)


def test_an_adapter_comes_back_onto_a_converted_model(tmp_path):
    peft = pytest.importorskip("peft")
    ids, lora = tokens(), peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(fope.hf.convert_to_fope(fresh(), train_length=64), lora).eval()
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(fope.hf.convert_to_fope(fresh(), train_length=64), tmp_path)
    assert torch.equal(logits(again, ids), logits(adapted, ids))
    assert not torch.allclose(logits(again, ids), logits(again.unload(), ids), atol=1e-3)


def test_parts_of_a_checkpoint_are_loaded_but_not_another_model():
    rope, model = fresh(), fope.hf.convert_to_fope(fresh(), train_length=64)
    head = {"lm_head.weight": rope.lm_head.weight.detach()}
    assert "model.layers.0.self_attn.fope.cos_coef" in model.load_state_dict(head, strict=False).missing_keys
    for strict in (False, True):
        with pytest.raises(FopeError, match=r"layers\.0\.self_attn\.fope\.cos_coef is missing in the check"):
            copy.deepcopy(model).load_state_dict(rope.state_dict(), strict=strict)


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_adapted_weights_are_not_folded(family):
    peft = pytest.importorskip("peft")
    model, ids = fope.hf.convert_to_fope(fresh(family), train_length=20, zero_sin=1.0), tokens()
    place = {"llama": ["k_proj"], "qwen3": ["q_proj"], "phi3": ["qkv_proj"]}[family]
    saved = ["q_norm"] if family == "qwen3" else None
    lora = peft.LoraConfig(target_modules=place, modules_to_save=saved, r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora).eval()
    before = logits(adapted, ids)
    with pytest.raises(FopeError, match=r"Attention\.\w+ is a peft\..*merge adapters first"):
        fope.hf.fold_zero_phase(model)
    assert torch.equal(logits(adapted, ids), before)
    merged = adapted.merge_and_unload()
    fope.hf.fold_zero_phase(merged)
    assert torch.allclose(logits(merged, ids), before, atol=1e-4)


@pytest.mark.slow
def test_torch_compile():
    model, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens()
    assert torch.allclose(logits(torch.compile(model), ids), logits(model, ids), atol=1e-4)


def test_extending_keeps_old_coefficients():
    model = fope.hf.convert_to_fope(fresh(head_dim=64), train_length=64)
    old = rotating_layers(model)[0].fope.cos_coef.clone()
    fope.hf.extend(model, 1024)
    new = rotating_layers(model)[0].fope.cos_coef
    assert torch.equal(new[:, : old.shape[1], : old.shape[2]], old)
    assert new.shape[2] == read(model.config).config.num_kept > old.shape[2]
    assert logits(model, tokens()).isfinite().all()


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "yarn", "factor": 4.0, "original_length": 64},
        {"type": "linear", "original_length": 64, "new_length": 256},
    ],
)
def test_scaled_frequencies_travel_with_the_model(scaling, tmp_path):
    ids = tokens()
    model = fope.hf.convert_to_fope(fresh(), train_length=64, scaling=scaling)
    plain = fope.hf.convert_to_fope(fresh(), train_length=64)
    assert not torch.allclose(logits(model, ids), logits(plain, ids), atol=1e-4)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(fope.hf.from_pretrained(tmp_path), ids), logits(model, ids))


def test_a_trained_fope_model_takes_a_scaling(tmp_path):
    ids, model = tokens(), fope.hf.convert_to_fope(fresh(), train_length=64)
    plain = logits(model, ids)
    with pytest.raises(FopeError, match="scaling type must be"):
        fope.hf.extend(model, 1024, scaling={"type": "ntk"})
    assert torch.equal(logits(model, ids), plain)
    scaling = {"type": "yarn", "factor": 4.0, "original_length": 64}
    fope.hf.extend(model, 64, scaling=scaling)
    expected = fope.hf.convert_to_fope(fresh(), train_length=64, scaling=scaling)
    assert torch.equal(logits(model, ids), logits(expected, ids))
    assert not torch.allclose(logits(model, ids), plain, atol=1e-4)
    model.save_pretrained(tmp_path)
    again = fope.hf.from_pretrained(tmp_path)
    assert torch.equal(logits(again, ids), logits(model, ids))
    assert read(fope.hf.extend(again, 128).config).scaling == scaling  # kept where none is given
    assert torch.equal(logits(fope.hf.extend(model, 64, scaling={}), ids), plain)


def test_linear_scaling_is_fope_at_compressed_positions():
    scaling = {"type": "linear", "original_length": 64, "new_length": 128}
    model = fope.hf.convert_to_fope(fresh(), train_length=64, scaling=scaling)
    plain, ids = fope.hf.convert_to_fope(fresh(), train_length=64), tokens(1, 8)
    stretched = logits(model, ids, position_ids=2 * torch.arange(8)[None])
    assert torch.allclose(stretched, logits(plain, ids), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "ntk"}, "scaling type must be 'yarn' or 'linear'"),
        ({"type": "yarn", "factr": 2}, "does not fit"),
        ({"type": "linear", "original_length": 64, "new_length": 32}, "must not be smaller"),
    ],
)
def test_impossible_scalings(change, message):
    model, ids = fresh(), tokens()
    before = logits(model, ids)
    with pytest.raises(FopeError, match=message):
        fope.hf.convert_to_fope(model, train_length=64, scaling=change)
    assert torch.equal(logits(model, ids), before)  # and not half converted
    assert read(model.config) is None


def test_converting_twice_is_refused():
    model = fope.hf.convert_to_fope(fresh(), train_length=64)
    with pytest.raises(FopeError, match=r"already; `fope\.hf\.extend`"):
        fope.hf.convert_to_fope(model, train_length=128)


def test_a_family_whose_config_allows_no_other_type_is_refused():
    model = fresh("phimoe", pad_token_id=0)
    with pytest.raises(FopeError, match="PhimoeConfig cannot hold Fourier position embeddings"):
        fope.hf.convert_to_fope(model, train_length=64)
    assert not hasattr(rotating_layers(model)[0], "fope")


def test_phi3_s_own_types_are_still_checked():
    model = fresh("phi3")
    with pytest.raises(StrictDataclassError, match="got linear"):
        type(model.config)(**COMMON, pad_token_id=0, rope_parameters={"rope_type": "linear", "factor": 2.0})


def test_a_model_without_rotation_is_refused():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gpt2", vocab_size=97, n_embd=32, n_layer=1, n_head=2)
    )
    with pytest.raises(FopeError, match="no single rope_theta"):
        fope.hf.convert_to_fope(model, train_length=64)


def test_latent_attention_has_no_keys_of_each_head_to_turn():
    config = transformers.DeepseekV3Config(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        kv_lora_rank=8,
        q_lora_rank=8,
        first_k_dense_replace=1,
        intermediate_size=32,
    )
    model = transformers.DeepseekV3ForCausalLM(config)
    with pytest.raises(FopeError, match=r"DeepseekV3Config has latent attention \(MLA\)"):
        fope.hf.convert_to_fope(model, train_length=32)
    model(torch.arange(8)[None])


def test_scaled_rope_is_refused():
    model = fresh(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(FopeError, match="scaled already"):
        fope.hf.convert_to_fope(model, train_length=64)


def test_too_short_a_training_length():
    with pytest.raises(FopeError, match="no frequency has a full period in L=5"):
        fope.hf.convert_to_fope(fresh(), train_length=5)


def _liger_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
    raise AssertionError("never called")


def test_another_library_s_rotation_is_refused(monkeypatch):
    family = sys.modules[type(rotating_layers(fresh("qwen2"))[0]).__module__]
    monkeypatch.setattr(family, "apply_rotary_pos_emb", _liger_rotary_pos_emb)
    with pytest.raises(FopeError, match="Liger with rope=False"):
        fope.hf.convert_to_fope(fresh("qwen2"), train_length=64)


def test_a_rotation_replaced_after_conversion_is_refused(monkeypatch):
    model = fope.hf.convert_to_fope(fresh("qwen2"), train_length=64)
    family = sys.modules[type(rotating_layers(model)[0]).__module__]
    monkeypatch.setattr(family, "apply_rotary_pos_emb", _liger_rotary_pos_emb)
    with pytest.raises(FopeError, match="replaced since this model was converted"):
        logits(model, tokens())


def test_hub_kernels_are_refused():
    model = fresh()
    model.__class__ = type("WithKernels", (type(model),), {"use_kernels": True})
    with pytest.raises(FopeError, match="hub kernels"):
        fope.hf.convert_to_fope(model, train_length=64)


def test_clipped_frequencies_are_what_other_rope_engines_would_use():
    model = fope.hf.convert_to_fope(fresh(), train_length=64, init_gain=0.0)
    rope = type(model.model.rotary_emb)(model.config)
    config = read(model.config).config
    kept = rope.inv_freq[: config.num_kept]
    assert torch.allclose(kept.double(), config.bank(), rtol=1e-6)
    assert (rope.inv_freq[config.num_kept :] == 0).all()
    again = fresh()
    again.model.rotary_emb.inv_freq.copy_(rope.inv_freq)
    assert torch.allclose(logits(again, tokens()), logits(model, tokens()), atol=1e-4)


def test_no_warning_from_transformers_about_the_type(caplog):
    config = fope.hf.convert_to_fope(fresh(), train_length=64).config
    transformers.utils.logging.enable_propagation()
    type(config).from_dict(config.to_dict())
    transformers.utils.logging.disable_propagation()
    assert not [record for record in caplog.records if "rope" in record.getMessage().lower()]


def test_intern_s1_pro_s_keys():
    keys = {"rope_theta": 5e6, "rope_type": "default", "fope_init_factor": 0.5, "fope_sep_head": True}
    config = AutoConfig.for_model("llama", **COMMON | {"head_dim": 128, "max_position_embeddings": 262144})
    config.rope_parameters = keys | {"num_inv_freq": None}
    stored = read(config)
    assert not stored.per_layer
    assert stored.config.num_kept == 45
    assert stored.config.strict


def test_modules_are_shown():
    model = fope.hf.convert_to_fope(fresh(), train_length=64)
    assert isinstance(rotating_layers(model)[0].fope, nn.Module)
    assert "of 16 pairs kept" in repr(model)


def test_packed_documents_are_as_if_each_stood_alone():
    """Positions that begin again say where a document ends; transformers masks, FoPE turns by them."""
    model = fope.hf.convert_to_fope(fresh(), train_length=64)
    first, second = tokens(1, 12), tokens(1, 9, seed=2)
    positions = torch.cat([torch.arange(12), torch.arange(9)])[None]
    together = logits(model, torch.cat([first, second], 1), position_ids=positions, use_cache=False)
    alone = torch.cat([logits(model, document, use_cache=False) for document in (first, second)], 1)
    assert torch.allclose(together, alone, atol=1e-5)
