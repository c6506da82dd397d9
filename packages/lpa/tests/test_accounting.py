import pytest
import torch
import transformers as tf
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

import lpa
from lpa import LPAConfig, LPAError

pytestmark = pytest.mark.filterwarnings("ignore:rank .* is below the head width:lpa.LPAWarning")

SETTING_2 = tf.LlamaConfig(
    vocab_size=32_001,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def cost() -> lpa.Cost:
    with torch.device("meta"):
        model = lpa.apply_lpa(AutoModelForCausalLM.from_config(SETTING_2), LPAConfig(128))
    return lpa.estimate(model, seq_len=256)


def test_golden_flops_of_setting_2(cost):
    assert cost.dense_flops == {
        "attention_projections": 56_623_104,  # 12 layers x 4 matrices x 2 x 768 x 768
        "attention_core": 4_718_592,  # 12 x 2 x 768 x 256: two products with 128 tokens on average
        "ffn": 113_246_208,  # 12 x 3 x 2 x 768 x 2048
        "lm_head": 49_153_536,  # 2 x 768 x 32,001
        "total": 223_741_440,
    }
    assert cost.flops == cost.dense_flops | {
        "attention_projections": 18_874_368,  # 12 x 4 x 2 x 128 x (768 + 768)
        "total": 185_992_704,
    }


def test_predicted_saving_is_that_of_the_formula(cost):
    # 16.9 % with the head, 21.6 % without it, forward and backward alike
    assert 1 - cost.flops["total"] / cost.dense_flops["total"] == pytest.approx(0.169, abs=5e-4)
    head = cost.flops["lm_head"]
    without = 1 - (cost.flops["total"] - head) / (cost.dense_flops["total"] - head)
    assert without == pytest.approx(0.216, abs=5e-4)


def test_golden_cache_of_setting_2(cost):
    assert cost.kv_elements_per_token == 12 * 1536
    assert cost.latent_kv_elements_per_token == 12 * 256  # 6 times less


def test_the_estimate_of_a_dense_model_has_no_savings():
    with torch.device("meta"):
        dense = lpa.estimate(AutoModelForCausalLM.from_config(SETTING_2), 256)
    assert dense.params == dense.dense_params == 134_139_393 - 32_001  # the official head has a bias
    assert dense.flops == dense.dense_flops
    assert dense.kv_elements_per_token == dense.latent_kv_elements_per_token


def tiny(family: str) -> tf.PreTrainedConfig:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": 0,
    }
    match family:
        case "llama":
            return tf.LlamaConfig(**sizes, num_key_value_heads=2, attn_implementation="eager")
        case "phi3":
            return tf.Phi3Config(**sizes, num_key_value_heads=2, attn_implementation="eager")
        case "gpt_neox":
            return tf.GPTNeoXConfig(**sizes, attn_implementation="eager")
        case _:
            return tf.GPT2Config(
                vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_inner=48, attn_implementation="eager"
            )


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("change", [None, LPAConfig(6), LPAConfig(6, targets=("all",))])
def test_flops_are_those_that_torch_counts(family, change):
    model = AutoModelForCausalLM.from_config(tiny(family)).eval()
    if change is not None:
        lpa.apply_lpa(model, change)
    batch, length = 2, 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(batch, length, dtype=torch.long), attention_mask=torch.ones(batch, length))
    cost = lpa.estimate(model, seq_len=length)
    # The core is computed in full by torch, masked or not; ours counts the causal half.
    expected = cost.flops["total"] + cost.flops["attention_core"]
    assert counter.get_total_flops() == batch * length * expected
    if change is not None:
        assert cost.flops["total"] < cost.dense_flops["total"]


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("targets", [("q", "k", "v", "o"), ("q",), ("all",)])
def test_dense_parameters_are_those_of_the_dense_model(family, targets):
    dense = AutoModelForCausalLM.from_config(tiny(family))
    params = sum(parameter.numel() for parameter in dense.parameters())
    low = lpa.apply_lpa(dense, LPAConfig(6, targets=targets))
    cost = lpa.estimate(low, 16)
    assert cost.dense_params == params
    assert cost.params == sum(parameter.numel() for parameter in low.parameters()) < params


def test_a_shared_a_counts_once(tiny_llama):
    shared = lpa.estimate(lpa.apply_lpa(tiny_llama(), LPAConfig(8, share_down=True)), 16)
    own = lpa.estimate(lpa.apply_lpa(tiny_llama(), LPAConfig(8)), 16)
    assert own.params - shared.params == 2 * 2 * 8 * 32
    assert own.dense_params == shared.dense_params


def test_a_config_costs_what_its_model_does(tiny_llama):
    model = lpa.apply_lpa(tiny_llama(), LPAConfig(8))
    assert lpa.estimate(model.config, 16) == lpa.estimate(model, 16)
    assert lpa.estimate(tiny_llama().config, 16).params == lpa.estimate(model, 16).dense_params
    setting_1 = lpa.ClassicConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=8,
        max_position_embeddings=32,
        rank=8,
    )
    assert lpa.estimate(setting_1, 16) == lpa.estimate(AutoModelForCausalLM.from_config(setting_1), 16)


def test_the_table_shows_both_and_their_ratio(cost):
    table = str(cost).splitlines()
    assert table[0].split() == ["per", "token", "at", "256", "dense", "LPA", "LPA", "/", "dense"]
    row = next(line for line in table if line.startswith("FLOPs, attention projections"))
    assert row.split()[-3:] == ["56,623,104", "18,874,368", "0.333"]


def test_a_length_below_one_is_refused(tiny_llama):
    with pytest.raises(ValueError, match="seq_len is 0; it must be at least 1"):
        lpa.estimate(tiny_llama(), 0)


def test_a_mixture_of_experts_is_refused():
    config = tf.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(LPAError, match="cannot count a mixture of experts"):
        lpa.estimate(config, 16)


# Models of equal size

MATCHED = tf.LlamaConfig(
    vocab_size=2048, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4
)


def parameters(config: tf.PreTrainedConfig, rank: int | None) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        if rank is not None:
            lpa.apply_lpa(model, LPAConfig(rank))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("what", "field", "unit"),
    [("ffn", "intermediate_size", 1), ("layers", "num_hidden_layers", 1), ("width", "hidden_size", 8)],
)
def test_match_comes_as_near_to_the_dense_count_as_units_allow(what, field, unit):
    goal = parameters(MATCHED, None)
    matched = lpa.match(MATCHED, 32, what=what)
    assert getattr(matched, field) > getattr(MATCHED, field)
    assert {key for key in matched.to_dict() if matched.to_dict()[key] != MATCHED.to_dict()[key]} <= {
        field,
        "head_dim",
    }
    distance = abs(parameters(matched, 32) - goal)
    for step in (-unit, unit):
        neighbour = type(MATCHED)(**MATCHED.to_diff_dict() | {field: getattr(matched, field) + step})
        assert distance <= abs(parameters(neighbour, 32) - goal)


def test_match_by_the_width_leaves_heads_of_a_width_of_their_own():
    settings = MATCHED.to_diff_dict() | {"num_key_value_heads": 4}
    settings.pop("model_type")
    own = lpa.match(tf.Qwen3Config(**settings | {"head_dim": 64}), 32, what="width")
    assert (own.hidden_size > 128, own.head_dim) == (True, 64)
    shared = lpa.match(tf.Qwen3Config(**settings | {"head_dim": 32}), 32, what="width")
    assert (shared.hidden_size > 128, shared.head_dim) == (True, shared.hidden_size // 4)


def test_match_by_the_wider_ffn_is_within_a_thousandth():
    assert parameters(lpa.match(MATCHED, 32), 32) == pytest.approx(parameters(MATCHED, None), rel=1e-3)


SMALL = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "field", "dense"),
    [
        (tf.OPTConfig(**SMALL, ffn_dim=200, word_embed_proj_dim=64), "ffn_dim", 200),
        (tf.FalconConfig(**SMALL, multi_query=False), "ffn_hidden_size", 256),
        (tf.GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4), "n_inner", 256),
    ],
    ids=["opt", "falcon", "gpt2"],
)
def test_match_finds_the_feed_forward_width_by_its_name(config, field, dense):
    matched = lpa.match(config, 16)
    assert getattr(matched, field) > dense
    one = 2 * 2 * 64 + 2  # parameters of one more feed-forward unit in both layers, at most
    assert abs(parameters(matched, 16) - parameters(config, None)) <= one


def test_match_by_the_width_where_the_width_of_a_head_is_no_setting():
    config = lpa.match(tf.FalconConfig(**SMALL | {"hidden_size": 256}), 16, what="width")
    assert config.hidden_size > 256
    assert config.head_dim == config.hidden_size // 4


def test_match_says_where_the_feed_forward_width_is_no_setting():
    config = tf.BloomConfig(vocab_size=64, hidden_size=64, n_layer=2, n_head=4)
    with pytest.raises(LPAError, match=r"cannot be made wider.*what='layers' or what='width'"):
        lpa.match(config, 16)


def test_match_knows_three_ways():
    with pytest.raises(LPAError, match="what is 'heads'; it may be 'ffn', 'layers' or 'width'"):
        lpa.match(MATCHED, 32, what="heads")
