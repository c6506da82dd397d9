"""The language model: what section 2.3 says of it, and that it is an ordinary model of transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from memoryformer.errors import MemoryFormerError
from memoryformer.hf import MemoryFormerConfig, MemoryFormerForCausalLM, caches, memory
from memoryformer.layers import MemoryLayer
from memoryformer.machine import _MEMINFO, free_bytes


def small_config(**changes: Any) -> MemoryFormerConfig:
    settings: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tau": 4,
        "max_position_embeddings": 64,
    }
    return MemoryFormerConfig(**settings | changes)


def small_model(**changes: Any) -> MemoryFormerForCausalLM:
    torch.manual_seed(0)
    return MemoryFormerForCausalLM(small_config(**changes)).double().eval()


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(1, 97, (batch, length), generator=torch.Generator().manual_seed(1))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "rmsnorm", "score": "softmax", "temperature": 0.5},
    {"expand": "tables", "activation": "gelu", "bias": False},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_later_token_changes_nothing_before_it(changes: dict[str, Any]) -> None:
    model, ids = small_model(**changes), tokens(2, 12)
    other = ids.clone()
    other[:, 7] = (other[:, 7] + 1) % 97
    before, after = model(ids).logits, model(other).logits
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decoding_with_a_cache_is_the_full_pass(changes: dict[str, Any], attention: str) -> None:
    model, ids = small_model(**changes), tokens(2, 12)
    # The eager attention of transformers takes its softmax in float32, whatever the model's dtype.
    model.set_attn_implementation(attention)
    tolerance = 1e-9 if attention == "sdpa" else 1e-6
    full = model(ids).logits
    step = model(ids[:, :5], use_cache=True)
    parts = [step.logits]
    for position in range(5, 12):
        step = model(ids[:, position : position + 1], past_key_values=step.past_key_values, use_cache=True)
        parts.append(step.logits)
    torch.testing.assert_close(torch.cat(parts, 1), full, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", caches.NAMES)
def test_a_cache_is_taken_by_its_older_and_its_newer_name(name: str) -> None:
    model, ids = small_model(), tokens(2, 12)
    filled = model(ids[:, :5], use_cache=True)[caches.NAME]
    rest = model(ids[:, 5:], **{name: filled})
    torch.testing.assert_close(rest.logits, model(ids).logits[:, 5:], rtol=0, atol=1e-9)
    assert filled.get_seq_length() == 12


def test_left_padding_changes_nothing() -> None:
    model, ids = small_model(), tokens(1, 9)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], 1)
    mask = (torch.arange(14) >= 5).long()[None]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    got = model(padded, attention_mask=mask, position_ids=positions).logits[:, 5:]
    torch.testing.assert_close(got, model(ids).logits, rtol=0, atol=1e-9)
    together = torch.cat([padded, tokens(1, 14)])
    both = model.generate(
        together,
        attention_mask=torch.cat([mask, torch.ones_like(mask)]),
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
    )
    alone = model.generate(ids, max_new_tokens=6, do_sample=False)
    assert both[0, 14:].tolist() == alone[0, 9:].tolist()


def test_the_head_is_the_only_linear_layer() -> None:
    model = small_model()
    assert [name for name, module in model.named_modules() if isinstance(module, nn.Linear)] == ["lm_head"]
    matrices = {name for name, values in model.named_parameters() if values.ndim == 2}
    assert matrices == {"model.embed_tokens.weight", "lm_head.weight"}


def test_zero_tables_make_each_block_the_identity() -> None:
    model = small_model()
    for module in model.modules():
        if isinstance(module, MemoryLayer):
            nn.init.zeros_(module.tables)
            nn.init.zeros_(module.bias)
    states = model(tokens(2, 7), output_hidden_states=True).hidden_states
    assert torch.equal(states[0], states[1])
    expected = nn.functional.layer_norm(states[0], (32,))
    torch.testing.assert_close(states[-1], expected, rtol=0, atol=1e-12)  # only the final norm


def test_the_first_loss_is_that_of_guessing() -> None:
    model, ids = small_model(hidden_size=128, vocab_size=4096), tokens(4, 48)
    assert abs(model(ids, labels=ids).loss.item() - math.log(4096)) < 0.3


def test_initial_values_are_those_of_section_2() -> None:
    torch.manual_seed(0)
    model = MemoryFormerForCausalLM(small_config(hidden_size=160, vocab_size=500, tau=8))
    small = math.sqrt(2 / (5 * 160))  # 0.05, unlike the 0.02 of the block
    layer = model.model.layers[0]
    expected = {
        "embedding": (model.model.embed_tokens.weight, small),
        "head": (model.lm_head.weight, small),
        "q, k, v": (layer.self_attn.qkv_proj.tables, small),
        "layer 1": (layer.mlp.layer1.tables, 0.02),
        "layer 2": (layer.mlp.layer2.tables, 0.02),
    }
    for name, (values, std) in expected.items():
        assert values.std().item() == pytest.approx(std, rel=0.02), name
        assert abs(values.mean().item()) < 0.02 * std, name
    assert layer.self_attn.qkv_proj.bias.std().item() == pytest.approx(0.001, rel=0.15)
    assert layer.self_attn.qkv_proj.tables.shape == (20, 256, 480)
    assert layer.mlp.layer2.tables.shape == (20, 1024, 160)


def test_rmsnorm_has_its_eps_beside_the_root() -> None:
    model = small_model(norm="rmsnorm", rms_norm_eps=0.5)
    x = torch.zeros(1, 32, dtype=torch.float64)
    x[0, 0] = math.sqrt(32.0) * 2  # rms 2
    assert model.model.norm(x)[0, 0].item() == pytest.approx(math.sqrt(32.0) * 2 / 2.5, rel=1e-12)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    grads = []
    for checkpointing in (False, True):
        model, ids = small_model().train(), tokens(2, 9)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids, use_cache=False).loss.backward()
        grads.append({name: values.grad for name, values in model.named_parameters()})
    for name, grad in grads[0].items():
        assert grad is not None, name
        torch.testing.assert_close(grad, grads[1][name], rtol=0, atol=1e-12)


def test_saved_and_loaded_by_the_auto_classes(tmp_path: Any) -> None:
    model, ids = small_model(), tokens(2, 9)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is MemoryFormerForCausalLM
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert loaded.dtype == torch.float64
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values), name
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=1e-9)


def test_resizing_the_vocabulary_and_tying_the_head_work(tmp_path: Any) -> None:
    model = small_model(tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.resize_token_embeddings(100, mean_resizing=False)
    assert model(tokens(1, 4)).logits.shape == (1, 4, 100)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("name", "variant", "layers", "width", "heads", "tables"),
    [
        ("tiny", "paper", 6, 512, 8, 415_236_096),
        ("small", "paper", 12, 768, 12, 1_868_562_432),
        ("base", "paper", 24, 1024, 16, 6_643_777_536),
        ("tiny", "official", 6, 512, 8, 415_236_096),
        ("small", "official", 6, 768, 8, 934_281_216),
    ],
)
def test_presets_on_the_meta_device_have_the_papers_sizes(
    name: str, variant: str, layers: int, width: int, heads: int, tables: int
) -> None:
    # L (K 256 (3 d + 10 K) + K 1024 d) with K = d / 8; the specification rounds to 415 M, 1.87 G, 6.64 G
    config = MemoryFormerConfig.preset(name, variant)
    with torch.device("meta"):
        model = MemoryFormerForCausalLM(config)
    found = sum(values.numel() for key, values in model.named_parameters() if key.endswith("tables"))
    assert found == tables
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (
        layers,
        width,
        heads,
    )
    assert config.norm == ("rmsnorm" if variant == "official" else "layernorm")
    assert all(values.is_meta for values in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tinny",), r"no preset 'tinny'.*tiny, small, base.*Did you mean 'tiny'"),
        (("base", "official"), r"There are: tiny, small.*released no config of base"),
        (("tiny", "papers"), r"variant is 'papers'; it may be 'paper' or 'official'"),
    ],
)
def test_a_wrong_preset_lists_those_there_are(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(MemoryFormerError, match=message):
        MemoryFormerConfig.preset(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30}, r"hidden_size 30 is not divisible by tau 4; .* 28 and 32"),
        ({"num_attention_heads": 5}, r"hidden_size 32 is not divisible by num_attention_heads 5"),
        ({"tau": 17}, r"tau is 17; it must be a whole number from 1 to 16"),
        ({"tau": 0}, r"tau is 0"),
        ({"expand_bits": 13}, r"expand_bits is 13; it must be a whole number from 0 to 12"),
        ({"score": "cosine"}, r"score is 'cosine'; it may be 'scaled' or 'softmax'"),
        ({"norm": "batchnorm"}, r"norm is 'batchnorm'; it may be 'layernorm' or 'rmsnorm'"),
        ({"expand": "rows"}, r"expand is 'rows'; it may be 'bits' or 'tables'"),
        ({"activation": "relu"}, r"activation is 'relu'; it may be None or 'gelu'"),
        ({"temperature": 0.0}, r"temperature is 0.0; it must be above 0"),
        ({"vocab_size": "97"}, r"vocab_size is '97'; it must be a whole number >= 1"),
        ({"num_hidden_layer": 2}, r"no 'num_hidden_layer'; did you mean 'num_hidden_layers'"),
        ({"num_attention_heads": 16}, r"heads of width 2 rotates 0 dimensions"),
    ],
)
def test_an_impossible_config_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MemoryFormerError, match=message):
        small_config(**changes)


def test_a_model_larger_than_the_free_memory_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 16_000_000_000)
    # 6,747,090,944 parameters of 4 bytes are 27.0 GB
    with pytest.raises(MemoryFormerError, match=r"needs 27\.0 GB in float32, and cpu has 16\.0 GB free"):
        MemoryFormerForCausalLM(MemoryFormerConfig.preset("base"))


def test_the_free_memory_of_this_machine_is_known() -> None:
    if not _MEMINFO.exists():
        pytest.skip("free memory is read from /proc/meminfo")
    free = free_bytes(torch.device("cpu"))
    assert free is not None
    assert 1e7 < free < 1e14


def test_an_input_longer_than_the_positions_is_refused() -> None:
    model = small_model(max_position_embeddings=8)
    with pytest.raises(MemoryFormerError, match=r"9 tokens are more than max_position_embeddings 8"):
        model(tokens(1, 9))
    step = model(tokens(1, 8), use_cache=True)
    with pytest.raises(MemoryFormerError, match=r"9 tokens are more"):
        model(tokens(1, 1), past_key_values=step.past_key_values)
    with pytest.raises(MemoryFormerError, match=r"either input_ids or inputs_embeds"):
        model()


@pytest.mark.slow
def test_the_model_compiles_whole() -> None:
    model, ids = small_model(), tokens(2, 9)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(ids, use_cache=False).logits
    torch.testing.assert_close(compiled(ids, use_cache=False).logits, expected, rtol=0, atol=1e-9)


def test_a_static_cache_gives_the_same_tokens() -> None:
    model, ids = small_model(), tokens(2, 9)
    settings = {"max_new_tokens": 8, "do_sample": False}
    static = model.generate(ids, **settings, cache_implementation="static")
    assert torch.equal(static, model.generate(ids, **settings))
