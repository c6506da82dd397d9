import math

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import lpa
from lpa.paper_reference import PAPER_NUMBERS
from lpa.recipes import as_setting_2


def count(name: str, low_attention: bool, low_ffn: bool) -> int:
    with torch.device("meta"):
        model = lpa.presets[name].build(low_attention, low_ffn)
    return sum(parameter.numel() for parameter in model.parameters())


# The official modules' counts: untied embeddings, a head with bias. Setting 1, a layer: 4 d^2 + 2 d f in
# matrices, 4 d + f + d in biases, 4 d in norms; outside 2 x 32,000 d + 1,024 d + 32,000. LPA: 8 r d + 3 r + d
# for the attention's 4 d^2 + 4 d.
@pytest.mark.parametrize(
    ("name", "low_attention", "low_ffn", "expected"),
    [
        ("setting1-370m", False, False, 368_925_952),
        ("setting1-370m", True, False, 331_126_528),
        ("setting2-130m", False, False, 134_139_393),
        ("setting2-130m", True, False, 115_265_025),
        ("setting2-130m", False, True, 116_444_673),
        ("setting2-130m", True, True, 97_570_305),
        ("setting2-370m", False, False, 368_003_329),
        ("setting2-370m", True, False, 317_671_681),
    ],
)
def test_golden_counts(name, low_attention, low_ffn, expected):
    assert count(name, low_attention, low_ffn) == expected


def test_the_two_ablations_of_setting_2_remove_nearly_the_same():
    dense = count("setting2-130m", False, False)
    low_attention, low_ffn = (dense - count("setting2-130m", *low) for low in ((True, False), (False, True)))
    assert low_attention == 18_874_368
    assert low_ffn == 17_694_720


def test_what_is_not_published_is_marked():
    assert [name for name, preset in lpa.presets.items() if not preset.assumed] == [
        "setting1-370m",
        "setting2-130m",
    ]
    for preset in lpa.presets.values():
        assert bool(preset.note) == preset.assumed
        if preset.assumed:
            assert preset.rank == preset.config.hidden_size // 4


@pytest.mark.parametrize(
    "name", ["setting1-370m", "setting1-130m", "setting2-130m", "setting2-370m", "setting2-3b"]
)
def test_sizes_and_names_agree(name):
    millions = count(name, False, False) / 1e6
    named = name.split("-")[1]
    expected = float(named[:-1]) * (1000 if named.endswith("b") else 1)
    assert millions == pytest.approx(expected, rel=0.06)


def test_training_is_that_of_the_official_scripts():
    first, second = (lpa.presets[name].training for name in ("setting1-370m", "setting2-130m"))
    assert (first.tokens_per_step, second.tokens_per_step) == (8 * 6 * 1024, 8 * 64 * 256)
    assert second.steps * second.tokens_per_step == pytest.approx(4.17e9, rel=1e-3)
    assert (first.lr, first.warmup_steps, first.epochs, first.precision) == (5e-4, 1000, 8, "fp32")
    assert (second.lr, second.warmup_steps, second.epochs, second.precision) == (1e-3, 0, None, "bf16")
    for training in (first, second):
        assert (training.betas, training.eps, training.weight_decay) == ((0.9, 0.95), 1e-5, 0.0)
        assert (training.clip_norm, training.seed) == (1.0, 27)


def test_setting_2_starts_with_torchs_defaults_not_transformers():
    # The start of a full-size model takes seconds: the same preset, smaller.
    preset = lpa.presets["setting2-130m"]
    config = LlamaConfig(
        **preset.config.to_diff_dict()
        | {"hidden_size": 256, "num_attention_heads": 4, "head_dim": 64, "num_key_value_heads": 4}
        | {"num_hidden_layers": 1, "vocab_size": 500}
    )
    model = lpa.Preset("small", config, 96, 96, preset.training).build()
    body = model.model
    assert float(body.embed_tokens.weight.detach().std()) == pytest.approx(1, rel=0.02)
    attention = body.layers[0].self_attn
    for layer in (body.layers[0].mlp.gate_proj, attention.q_proj.down, attention.o_proj.up, model.lm_head):
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.97 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert model.lm_head.bias is not None
    assert attention.q_proj.rank == 96


@pytest.mark.parametrize("low", [None, lpa.LPAConfig(rank=8)])
def test_setting_2_is_read_again_with_the_bias_of_its_head(low, tiny_llama, token_ids, tmp_path):
    model = as_setting_2(tiny_llama(tie_word_embeddings=False, rms_norm_eps=1e-4), low).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(token_ids).logits, model(token_ids).logits)
    assert again.config.rms_norm_eps == 1e-4
    assert again.config.model_type == ("lpa_biased_llama" if low is None else "llama")


def test_paper_numbers_say_where_they_are_from_and_that_nobody_has_checked_them():
    for number in PAPER_NUMBERS.values():
        assert "2411.02063" in number.source
        assert not number.verified
