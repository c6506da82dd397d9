"""`apply_memoryformer`: what becomes of models of other families."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.pytorch_utils import Conv1D

from memoryformer.errors import MemoryFormerError, MemoryFormerWarning
from memoryformer.hf import application, apply_memoryformer
from memoryformer.hf.sharing import KeyOrValue, QueryKeyValue
from memoryformer.layers import MemoryBlock, MemoryLayer
from memoryformer.quantization import quantize_tables_

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=16),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "gpt2": lambda: GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64),
}


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()


def tokens(batch: int = 2, length: int = 10) -> torch.Tensor:
    return torch.randint(3, 61, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", CONFIGS)
def test_only_the_head_is_still_a_matrix_and_all_tables_learn(family: str) -> None:
    model = apply_memoryformer(build(family), tau=4)
    dense = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    assert dense == [next(name for name, m in model.named_modules() if m is model.get_output_embeddings())]
    layers = [module for module in model.modules() if isinstance(module, MemoryLayer)]
    assert len(layers) == 2 * 3  # q | k | v, and two in the block, in each of two layers
    model.train()
    model(tokens(), labels=tokens()).loss.backward()
    for name, values in model.named_parameters():
        assert values.grad is not None, name
        assert values.grad.abs().sum() > 0 or name.endswith("k_proj.bias"), name


@pytest.mark.parametrize("family", CONFIGS)
def test_decoding_with_a_cache_is_the_full_pass(family: str) -> None:
    model, ids = apply_memoryformer(build(family), tau=4).double(), tokens()
    full = model(ids).logits
    step = model(ids[:, :6], use_cache=True)
    parts = [step.logits]
    for position in range(6, 10):
        step = model(ids[:, position : position + 1], past_key_values=step.past_key_values, use_cache=True)
        parts.append(step.logits)
    # RMSNorm of transformers computes in float32 also in a float64 model; the rest is exact
    torch.testing.assert_close(torch.cat(parts, 1), full, rtol=0, atol=1e-6)


def test_q_k_and_v_are_one_look_up_of_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = apply_memoryformer(build("llama"), tau=4, mlp=False), tokens()
    calls = []
    original = MemoryLayer.forward
    monkeypatch.setattr(MemoryLayer, "forward", lambda self, x: calls.append(self) or original(self, x))
    model(ids)
    assert len(calls) == 2  # one a layer
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.layer.tables.shape == (8, 16, 32 + 16 + 16)  # 2 of 4 heads have keys and values
    assert isinstance(attention.o_proj, nn.Identity)


def test_the_shared_parts_are_those_of_the_whole_layer_whoever_calls_when() -> None:
    layer = MemoryLayer(16, 24, tau=4)
    query = QueryKeyValue(layer, (8, 8, 8))
    key, value = KeyOrValue(query, 1), KeyOrValue(query, 2)
    x, other = torch.randn(5, 16), torch.randn(5, 16)
    expected = layer(x).split(8, -1)
    for order in ((query, key, value), (value, key, query), (key, query, value)):
        got = {module: module(x) for module in order}
        for module, part in zip((query, key, value), expected, strict=True):
            assert torch.equal(got[module], part)
    query(x)
    assert torch.equal(key(other), layer(other)[:, 8:16])
    query(x)
    x.add_(1)  # the same tensor with other values
    assert torch.equal(value(x), layer(x)[:, 16:])
    query(x)
    with torch.no_grad():
        layer.tables.mul_(2)
    assert torch.equal(key(x), layer(x)[:, 8:16])
    with torch.no_grad():
        query(x)
    assert key(x).requires_grad


def test_a_copy_of_the_model_has_its_own_tables() -> None:
    model, ids = apply_memoryformer(build("llama"), tau=4), tokens()
    before = model(ids).logits
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.layers[0].self_attn.q_proj.layer.tables.zero_()
    assert torch.equal(model(ids).logits, before)
    keys = twin.model.layers[0].self_attn.k_proj
    assert keys.source is twin.model.layers[0].self_attn.q_proj
    assert not any("k_proj" in name or "v_proj" in name for name, _ in model.named_parameters())


def test_replicas_of_data_parallel_say_what_to_do_instead() -> None:
    """`nn.DataParallel` copies each module so, one a GPU; k and v of a copy would read the first GPU's q."""
    attention = apply_memoryformer(build("llama"), tau=4).model.layers[0].self_attn
    for name in ("q_proj", "k_proj", "v_proj"):
        replica = attention.get_submodule(name)._replicate_for_data_parallel()
        with pytest.raises(MemoryFormerError, match=r"does not run in nn\.DataParallel.*torchrun"):
            replica(torch.zeros(1, 32))
        attention.get_submodule(name)(torch.zeros(1, 32))


def test_an_output_projection_of_other_widths_becomes_a_memory_layer() -> None:
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES, head_dim=16))  # 4 heads of 16 to 32
    with pytest.warns(MemoryFormerWarning, match=r"layers\.0\.self_attn\.o_proj maps 64 numbers to 32"):
        apply_memoryformer(model, tau=4)
    output = model.model.layers[1].self_attn.o_proj
    assert isinstance(output, MemoryLayer)
    assert output.tables.shape == (16, 16, 32)
    assert model(tokens()).logits.isfinite().all()


def test_parts_can_be_left_as_they_are() -> None:
    model = apply_memoryformer(build("llama"), tau=8, expand_bits=1, attention=False)
    assert isinstance(model.model.layers[0].self_attn.q_proj, nn.Linear)
    block = model.model.layers[0].mlp
    assert isinstance(block, MemoryBlock)
    assert block.layer2.tables.shape == (4, 512, 32)
    assert isinstance(apply_memoryformer(build("gpt2"), mlp=False).transformer.h[0].mlp.c_fc, Conv1D)


def test_training_with_gradient_checkpointing_gives_the_same_gradients() -> None:
    grads = []
    for reentrant in (None, False, True):
        model = apply_memoryformer(build("llama"), tau=4).train()
        if reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(tokens(), labels=tokens(), use_cache=False).loss.backward()
        grads.append([values.grad for values in model.parameters()])
    for others in grads[1:]:
        for grad, other in zip(grads[0], others, strict=True):
            torch.testing.assert_close(grad, other, rtol=0, atol=1e-6)


def test_on_the_meta_device_nothing_is_allocated() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
        apply_memoryformer(model, tau=4)
    assert all(values.is_meta for values in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: apply_memoryformer(build("llama"), tau=5), r"tau = 5 does not divide"),
        (
            lambda: apply_memoryformer(AutoModelForCausalLM.from_config(MixtralConfig(**SIZES))),
            r"2 layers, and 0 feed-forward modules that can be replaced.*mixtures of experts.*mlp=False",
        ),
        (
            lambda: apply_memoryformer(build("llama"), attention=False, mlp=False),
            r"leave nothing to replace",
        ),
        (lambda: apply_memoryformer(apply_memoryformer(build("gpt2"), tau=4)), r"has Memory Layers already"),
        (lambda: apply_memoryformer(nn.Sequential(nn.Linear(8, 8))), r"0 attention modules"),
    ],
)
def test_what_cannot_be_replaced_is_said(change: Any, message: str) -> None:
    with pytest.raises(MemoryFormerError, match=message):
        change()


@pytest.mark.parametrize("settings", [{"tau": 5}, {"tau": 8, "expand_bits": 9}, {"tau": 4, "score": "none"}])
def test_a_refused_model_is_as_it_was(settings: dict[str, Any]) -> None:
    model, ids = build("qwen3"), tokens()
    before, names = model(ids).logits, list(model.state_dict())
    with pytest.raises(MemoryFormerError):
        apply_memoryformer(model, **settings)
    assert list(model.state_dict()) == names
    assert torch.equal(model(ids).logits, before)


def test_tables_larger_than_the_free_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "free_bytes", lambda device: 1_000_000)
    # tau 8: 4 tables of 256 rows of 64 numbers, and a block of 4 * 256 * 40 + 4 * 1024 * 32; two layers
    with pytest.raises(MemoryFormerError, match=r"need 0\.0 GB.*smaller tau or expand_bits"):
        apply_memoryformer(build("llama"))


def test_training_int8_tables_is_refused() -> None:
    model = quantize_tables_(apply_memoryformer(build("llama"), tau=4)).train()
    with pytest.raises(MemoryFormerError, match="quantized tables are for inference"):
        model(tokens())
