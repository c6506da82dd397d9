from functools import partial
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import lpa
from lpa import FusedLowRank, LowRankLinear, LPAConfig, LPAError, LPAWarning, RankError
from lpa.architectures import sites
from lpa.surgery import part_weights

# The rank 6 is below the head width 8: most tests are not about that warning.
pytestmark = pytest.mark.filterwarnings("ignore:rank 6 is below the head width:lpa.LPAWarning")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GQA = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
FALCON = SIZES | {"ffn_hidden_size": 48}

# Family -> its config. Sizes as above; heads 8 wide.
FAMILIES = {
    "llama": partial(tf.LlamaConfig, **GQA),
    "mistral": partial(tf.MistralConfig, **GQA),
    "qwen2": partial(tf.Qwen2Config, **GQA),
    "qwen3": partial(tf.Qwen3Config, **GQA),
    "gemma": partial(tf.GemmaConfig, **GQA),
    "gemma2": partial(tf.Gemma2Config, **GQA),
    "smollm3": partial(tf.SmolLM3Config, **GQA),
    "phi3": partial(tf.Phi3Config, **GQA),
    "opt": partial(tf.OPTConfig, **SIZES, ffn_dim=48, word_embed_proj_dim=32, init_std=0.2),
    "gpt2": partial(
        tf.GPT2Config, vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_inner=48, initializer_range=0.2
    ),
    "gpt_neox": partial(tf.GPTNeoXConfig, **SIZES),
    "bloom": partial(
        tf.BloomConfig, vocab_size=64, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2
    ),
    "falcon (one kv head)": partial(tf.FalconConfig, **FALCON, multi_query=True),
    "falcon (all heads)": partial(tf.FalconConfig, **FALCON, multi_query=False, alibi=True, bias=True),
    "falcon (groups)": partial(tf.FalconConfig, **FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "setting 1": partial(
        lpa.ClassicConfig,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=8,
        max_position_embeddings=64,
    ),
}
families = pytest.mark.parametrize("family", FAMILIES)


def build(family: str) -> PreTrainedModel:
    """A model with values in its biases too, which most families start at 0."""
    model = AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


def attention_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The full name of every q, k, v and o, with its matrix (multiplied out)."""
    return {
        site.full_name(part): weight
        for site in sites(model)
        for part, weight in part_weights(model, site).items()
        if site.role_of(part) in "qkvo"
    }


@families
def test_every_attention_matrix_becomes_low_rank_and_nothing_else(family, token_ids):
    model = build(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = attention_weights(model)
    assert len(dense) == 2 * 4
    assert lpa.apply_lpa(model, LPAConfig(6)) is model
    low = attention_weights(model)
    assert {name: weight.shape for name, weight in low.items()} == {
        name: weight.shape for name, weight in dense.items()
    }
    for name, weight in low.items():
        assert int(torch.linalg.matrix_rank(weight.double(), rtol=1e-5)) == 6, name
    after = model.state_dict()
    assert all(after[name].equal(before[name]) for name in before.keys() & after.keys())
    shapes = {weight.shape for weight in dense.values()}
    for module in model.modules():
        if isinstance(module, LowRankLinear):  # no dense parameter hides in it
            assert not shapes & {parameter.shape for parameter in module.parameters()}
    assert torch.isfinite(logits(model, token_ids)).all()


@families
def test_biases_of_the_dense_layers_stay(family, token_ids):
    model = build(family)
    biases = {
        site.name: bias.clone()
        for site in sites(model)
        if site.role in ("q", "k", "v", "o", "qkv")
        and (bias := model.get_submodule(site.name).bias) is not None
    }
    lpa.apply_lpa(model, LPAConfig(6))
    dense = lpa.merge(model)
    for name, bias in biases.items():
        torch.testing.assert_close(dense.get_submodule(name).bias, bias)


@families
def test_merging_changes_nothing_and_leaves_no_trace(family, token_ids):
    plain = build(family)
    kinds = {name: type(module) for name, module in plain.named_modules()}
    keys = list(plain.state_dict())
    low = lpa.apply_lpa(plain, LPAConfig(6))
    expected = logits(low, token_ids)
    dense = lpa.merge(low)
    torch.testing.assert_close(logits(dense, token_ids), expected, rtol=1e-5, atol=1e-5)
    assert lpa.is_lpa(low)
    assert not lpa.is_lpa(dense)
    for name, module in dense.named_modules():  # Falcon's own class of linear layer becomes torch's
        assert issubclass(kinds[name], type(module)), name
    assert sorted(dense.state_dict()) == sorted(keys)
    assert "quantization_config" not in dense.config.to_dict()
    assert not getattr(dense, "is_quantized", False)


@families
@pytest.mark.parametrize("method", ["svd", "whitened"])
def test_factorising_at_full_rank_loses_nothing(family, method, token_ids):
    model = build(family)
    expected = logits(model, token_ids)
    calibration = [token_ids] * 2 if method == "whitened" else None
    lpa.factorize(model, LPAConfig(1.0, allow_expand=True), method=method, calibration=calibration)
    assert lpa.is_lpa(model)
    torch.testing.assert_close(logits(model, token_ids), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(lpa.merge(model), token_ids), expected, rtol=1e-4, atol=1e-4)


@families
def test_factorising_at_low_rank_gives_each_of_q_k_v_exactly_that_rank(family):
    model = build(family)
    dense = attention_weights(model)
    lpa.factorize(model, LPAConfig(6))
    for name, weight in attention_weights(model).items():
        assert int(torch.linalg.matrix_rank(weight.double(), rtol=1e-5)) == 6, name
        u, s, vt = torch.linalg.svd(dense[name], full_matrices=False)
        best = (u[:, :6] * s[:6]) @ vt[:6]
        torch.testing.assert_close(weight, best, rtol=1e-4, atol=1e-4)


@families
def test_a_stacked_model_computes_what_a_separate_one_does(family, token_ids):
    models = []
    for fused in (True, False):
        torch.manual_seed(0)
        models.append(lpa.apply_lpa(build(family), LPAConfig(6, fused=fused)))
    torch.testing.assert_close(logits(models[0], token_ids), logits(models[1], token_ids))
    losses = [model(token_ids, labels=token_ids).loss for model in models]
    for loss in losses:
        loss.backward()
    gradients = [{name: p.grad for name, p in model.named_parameters()} for model in models]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5)


@families
def test_ffn_and_all_are_targets_too(family):
    model = lpa.apply_lpa(build(family), LPAConfig(6, targets=("ffn",)))
    assert lpa.is_lpa(model)
    assert all(
        int(torch.linalg.matrix_rank(weight.double())) > 6 for weight in attention_weights(model).values()
    )
    both = lpa.apply_lpa(build(family), LPAConfig(6, targets=("all",)))
    parts = [
        layer
        for site in sites(both)
        for module in (both.get_submodule(site.name),)
        for layer in (module.parts.values() if isinstance(module, FusedLowRank) else (module,))
    ]
    assert all(isinstance(layer, LowRankLinear) for layer in parts)


def roles_changed(model: nn.Module) -> set[str]:
    return {
        name.split(".", 2)[2] for name, module in model.named_modules() if isinstance(module, LowRankLinear)
    }


def test_only_q_is_possible(tiny_llama):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8, targets=("q",)))
    assert roles_changed(model) == {"0.self_attn.q_proj", "1.self_attn.q_proj"}


def test_only_some_layers_are_possible(tiny_llama):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8, layers=(1,)))
    assert {name[0] for name in roles_changed(model)} == {"1"}


def test_one_part_of_a_fused_matrix_is_possible(token_ids):
    model = build("gpt_neox")
    expected = logits(model, token_ids)
    lpa.factorize(model, LPAConfig(1.0, targets=(r"query_key_value\.k$",), allow_expand=True))
    fused = model.gpt_neox.layers[0].attention.query_key_value
    assert [type(part) for part in fused.parts.values()] == [nn.Linear, LowRankLinear, nn.Linear]
    torch.testing.assert_close(logits(model, token_ids), expected, rtol=1e-4, atol=1e-4)


def test_a_pattern_sets_the_rank_of_some_matrices(tiny_llama):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8, rank_pattern={r"0\.self_attn\.[qo]_proj": 12}))
    first, second = (layer.self_attn for layer in model.model.layers)
    assert [first.q_proj.rank, first.k_proj.rank, first.o_proj.rank] == [12, 8, 12]
    assert second.q_proj.rank == 8


def test_share_down_gives_q_k_v_one_a(tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8, share_down=True))
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.down is attention.k_proj.down is attention.v_proj.down
    pattern = {r"o_proj": 4, r"layers\.1\.self_attn\.[qkv]_proj": 6}  # o, and other layers, may differ
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8, rank_pattern=pattern, share_down=True))
    assert torch.isfinite(logits(model, token_ids)).all()


def test_training_keeps_the_rank(tiny_llama, token_ids):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(token_ids, labels=token_ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    for name, weight in attention_weights(model).items():
        assert int(torch.linalg.matrix_rank(weight.detach().double(), rtol=1e-5)) <= 8, name


@pytest.mark.parametrize("family", ["llama", "gpt2", "setting 1"])
@pytest.mark.parametrize("init", ["torch", "matched", "spectral", "hf"])
def test_transformers_own_initialisation_does_not_touch_the_factors(family, init):
    model = lpa.apply_lpa(build(family), LPAConfig(6, init=init))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    factors = [name for name in before if ".down." in name or ".up." in name]
    assert factors
    assert all(model.state_dict()[name].equal(before[name]) for name in factors)


def test_matched_has_the_scale_of_the_models_own_start(tiny_llama):
    model = tiny_llama(hidden_size=256, initializer_range=0.05, num_key_value_heads=4)
    lpa.apply_lpa(model, LPAConfig(64, init="matched"))
    for name, weight in attention_weights(model).items():
        assert float(weight.detach().std()) == pytest.approx(0.05, rel=0.05), name


def test_a_generator_makes_the_start_repeatable(tiny_llama):
    models = [
        lpa.apply_lpa(tiny_llama(), LPAConfig(8), generator=torch.Generator().manual_seed(4))
        for _ in range(2)
    ]
    first, second = (attention_weights(model) for model in models)
    assert all(first[name].equal(second[name]) for name in first)


def test_a_model_on_the_meta_device_is_changed_without_values():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(FAMILIES["llama"]())
        lpa.apply_lpa(model, LPAConfig(6))
    assert all(parameter.is_meta for parameter in model.parameters())


def test_dtype_and_mode_stay(tiny_llama):
    model = lpa.apply_lpa(tiny_llama().to(torch.bfloat16).train(), LPAConfig(8))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.model.layers[0].self_attn.q_proj.training
    assert lpa.merge(model, torch.float32).dtype == torch.float32
    assert model.dtype == torch.bfloat16


def test_any_module_with_the_usual_names_will_do():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn = nn.ModuleDict({f"{role}_proj": nn.Linear(16, 16) for role in "qkvo"})

    model = lpa.apply_lpa(Block(), LPAConfig(4))
    assert lpa.is_lpa(model)
    assert isinstance(lpa.merge(model).self_attn["q_proj"], nn.Linear)


# Bad input


def test_a_rank_at_break_even_is_refused_with_the_numbers(tiny_llama):
    # 32 x 32: break-even at 16, where both have 1,024 parameters
    message = (
        r"self_attn\.q_proj: rank 16 saves nothing\. Its 32 x 32 matrix has 1,024 parameters, the two "
        r"factors would have 1,024; they have fewer below rank 16\. .*allow_expand=True"
    )
    with pytest.raises(RankError, match=message):
        lpa.apply_lpa(tiny_llama(), LPAConfig(16))


def test_grouped_keys_break_even_far_earlier(tiny_llama):
    # k: 32 -> 16, break-even at 512 / 48
    with pytest.raises(RankError, match=r"self_attn\.k_proj: rank 12 saves nothing.*below rank 10\.6667"):
        lpa.apply_lpa(tiny_llama(), LPAConfig(12))
    assert lpa.is_lpa(lpa.apply_lpa(tiny_llama(), LPAConfig(12, targets=("q", "o"))))
    assert lpa.is_lpa(lpa.apply_lpa(tiny_llama(), LPAConfig(12, allow_expand=True)))


def test_a_refused_model_is_unchanged(tiny_llama):
    model = tiny_llama()
    with pytest.raises(RankError):
        lpa.apply_lpa(model, LPAConfig(12))
    assert not lpa.is_lpa(model)


def test_a_rank_above_the_matrix_is_refused(tiny_llama):
    with pytest.raises(RankError, match=r"k_proj: rank 20 is more than min\(n_in, n_out\) = 16"):
        lpa.apply_lpa(tiny_llama(), LPAConfig(20, allow_expand=True))


def test_a_rank_below_the_head_width_warns(tiny_llama):
    with pytest.warns(LPAWarning, match="rank 4 is below the head width 8: single heads lose rank"):
        lpa.apply_lpa(tiny_llama(), LPAConfig(4))


def test_a_model_without_attention_is_shown_what_it_has():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    with pytest.raises(
        LPAError, match=r"no matrix for the targets k, o, q, v. Its matrices are: 0, 2\..*targets="
    ):
        lpa.apply_lpa(model, LPAConfig(2))
    assert isinstance(lpa.apply_lpa(model, LPAConfig(2, targets=("^0$",)))[0], LowRankLinear)


def test_a_layer_that_does_not_exist_is_named(tiny_llama):
    with pytest.raises(LPAError, match=r"no matrix for the targets .* in the layers 7"):
        lpa.apply_lpa(tiny_llama(), LPAConfig(8, layers=(7,)))
    with pytest.raises(LPAError, match=r"no matrix for the targets k, o, q, v in the layers 99\."):
        lpa.apply_lpa(tiny_llama(), LPAConfig(8, layers=(0, 99)))


def test_an_expression_that_finds_nothing_is_named_beside_targets_that_are_there(tiny_llama):
    with pytest.raises(LPAError, match=r"no matrix for the targets self_atn\. Its matrices are: model\.l"):
        lpa.apply_lpa(tiny_llama(), LPAConfig(8, targets=("q", r"mlp\.up_proj$", "self_atn")))


def test_a_rank_pattern_that_finds_nothing_is_named(tiny_llama):
    pattern = {r"\.0\..*q_proj": 12, "o_prj": 4, r"mlp\.up_proj": 4}
    message = (
        r"rank_pattern has 'o_prj', 'mlp.*up_proj', found in .* as \*: model\.layers\.\*\.self_attn\.q_proj, "
    )
    with pytest.raises(LPAError, match=message):
        lpa.apply_lpa(tiny_llama(), LPAConfig(8, rank_pattern=pattern))
    # One that stands behind another that is found first is not mistyped.
    lpa.apply_lpa(tiny_llama(), LPAConfig(8, rank_pattern={"q_proj": 12, r"0\.self_attn\.q_proj": 4}))


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {"rank": 0.25}),  # 8 of 32 for q, 4 of 16 for k and v
        ("phi3", {"rank": 0.25}),
        ("llama", {"rank": 8, "rank_pattern": {"v_proj": 4}}),
        ("gpt2", {"rank": 8, "rank_pattern": {r"c_attn\.v$": 4}}),
    ],
)
def test_one_a_for_q_k_v_cannot_have_several_ranks(family, config):
    model = build(family)
    with pytest.raises(RankError, match=r"share_down gives q, k and v one A.* has rank 8 and .* rank 4\."):
        lpa.apply_lpa(model, LPAConfig(**config, share_down=True))
    assert not lpa.is_lpa(model)


def test_a_low_rank_model_is_not_changed_again(tiny_llama):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8))
    for change in (lpa.apply_lpa, lpa.factorize):
        with pytest.raises(
            LPAError, match=r"low-rank already. To change its ranks, factorize\(merge\(model\)"
        ):
            change(model, LPAConfig(6))


def test_merging_a_dense_model_is_refused(tiny_llama):
    with pytest.raises(LPAError, match="LlamaForCausalLM has no low-rank matrix: there is nothing to merge"):
        lpa.merge(tiny_llama())


class Int8Linear(nn.Linear):
    def __init__(self) -> None:
        super().__init__(32, 32, bias=False)
        self.weight = nn.Parameter(torch.zeros(32, 32, dtype=torch.int8), requires_grad=False)


@pytest.mark.parametrize("change", [lpa.apply_lpa, lpa.factorize])
def test_a_quantised_model_is_refused(tiny_llama, change):
    model = tiny_llama()
    model.model.layers[0].self_attn.q_proj = Int8Linear()
    with pytest.raises(LPAError, match=r"quantised \(Int8Linear\).*model.dequantize\(\) first"):
        change(model, LPAConfig(8))


def test_a_model_of_another_quantisation_method_is_named(tiny_llama):
    class Quantizer:
        class quantization_config:
            quant_method = "gptq"

    model = tiny_llama()
    model.hf_quantizer = Quantizer()
    with pytest.raises(LPAError, match=r"quantised \(gptq\)"):
        lpa.apply_lpa(model, LPAConfig(8))


def test_weights_unpacked_from_a_quantised_file_are_ordinary_ones(tiny_llama):
    class Quantizer:
        class quantization_config:
            quant_method = "gguf"

    model = tiny_llama()
    model.hf_quantizer = Quantizer()
    assert lpa.is_lpa(lpa.factorize(model, LPAConfig(8)))
    packed = tiny_llama()
    packed.hf_quantizer = Quantizer()
    packed.lm_head.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(LPAError, match=r"quantised \(gguf\)"):
        lpa.factorize(packed, LPAConfig(8))


def test_an_encoder_decoder_model_is_refused():
    model = tf.T5ForConditionalGeneration(
        tf.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    with pytest.raises(LPAError, match=r"encoder-decoder model; LPA is a method for decoders.*get_decoder"):
        lpa.apply_lpa(model, LPAConfig(4))


def test_a_vision_tower_is_left_alone():
    text = tf.LlamaConfig(**GQA)
    vision = tf.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    model = tf.LlavaForConditionalGeneration(tf.LlavaConfig(vision_config=vision, text_config=text))
    lpa.apply_lpa(model, LPAConfig(6))
    changed = [name for name, module in model.named_modules() if isinstance(module, LowRankLinear)]
    assert len(changed) == 8
    assert all("language_model" in name for name in changed)


def test_tied_matrices_are_refused_by_name(tiny_llama):
    model = tiny_llama()
    first, second = (layer.self_attn for layer in model.model.layers)
    second.q_proj.weight = first.q_proj.weight
    message = r"layers\.0\.self_attn\.q_proj\.weight is tied to model\.layers\.1\.self_attn\.q_proj\.weight"
    with pytest.raises(LPAError, match=message):
        lpa.apply_lpa(model, LPAConfig(8))
    lpa.apply_lpa(model, LPAConfig(8, targets=("k", "v", "o")))


def test_an_unknown_fused_layout_is_refused():
    class Config(tf.PreTrainedConfig):
        model_type = "unheard-of"
        num_attention_heads = 2

    class Model(PreTrainedModel):
        config_class = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.attn = nn.ModuleDict({"qkv_proj": nn.Linear(8, 24)})

    with pytest.raises(
        LPAError, match="unheard-of keeps q, k and v in one matrix, and how they lie in it is not"
    ):
        lpa.apply_lpa(Model(Config()), LPAConfig(2))
