"""vLLM: a converted model says what transformers says, and vLLM's own FoPE is the same function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import fope.hf
from fope import FopeConfig, FourierPositionEmbedding
from fope.hf.config import StoredFope
from fope.vllm_plugin import ARCHITECTURE

PROMPTS = [[1, 17, 5, 80, 33, 2, 9], [4, 4, 8, 21], [120, 7, 64, 64, 3, 50, 11, 90, 12, 77]]
NEW_TOKENS = 16


def converted_model(folder: Path) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,  # so that the most likely token leads by more than rounding
    )
    model = LlamaForCausalLM(config).eval()
    fope.hf.convert_to_fope(model, train_length=64, init_gain=1.0, seed=3, zero_sin=1.0, preserve=False)
    model.save_pretrained(folder)
    words = {f"w{number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    return model


def greedy(model: LlamaForCausalLM) -> list[list[int]]:
    return [
        model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None)[
            0, len(prompt) :
        ].tolist()
        for prompt in PROMPTS
    ]


@pytest.mark.vllm
def test_vllm_generates_the_same_tokens_as_transformers(tmp_path: Path) -> None:
    from vllm import LLM, SamplingParams

    model = converted_model(tmp_path)
    expected = greedy(model)
    llm = LLM(
        str(tmp_path),
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=4,
        hf_overrides={"architectures": [ARCHITECTURE]},
    )
    settings = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    answers = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], settings, use_tqdm=False)
    assert [list(answer.outputs[0].token_ids) for answer in answers] == expected
    assert len(set(expected[0])) > 3  # a text, not one token over and over
    for layer in model.model.layers:  # and it is the coefficients that vLLM had to get right
        layer.self_attn.fope.cos_coef.mul_(-1)
    assert greedy(model) != expected


def test_coefficients_loaded_again_make_the_tables_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With vLLM's names stood in for: what is looked at is our own loader."""
    modules = {
        "vllm.config": {"VllmConfig": object},
        "vllm.distributed": {
            "get_tensor_model_parallel_rank": lambda: 1,
            "get_tensor_model_parallel_world_size": lambda: 2,
        },
        "vllm.model_executor.models.llama": dict.fromkeys(
            ("LlamaAttention", "LlamaDecoderLayer", "LlamaForCausalLM"), torch.nn.Module
        ),
    }
    for name in ("vllm", "vllm.model_executor", "vllm.model_executor.models", *modules):
        module = ModuleType(name)
        vars(module).update(modules.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "fope.vllm_model", raising=False)
    served_class = importlib.import_module("fope.vllm_model").ServedFope
    monkeypatch.delitem(sys.modules, "fope.vllm_model")
    config = FopeConfig(16, 4, 64)
    served, positions = served_class(StoredFope(config), 2), torch.arange(8)
    for seed in (0, 1):
        whole = FourierPositionEmbedding(config, generator=torch.Generator().manual_seed(seed))
        for name in ("cos_coef", "sin_coef"):
            coef = getattr(served, name)
            coef.weight_loader(coef, getattr(whole, name))
        for ours, theirs in zip(whole.cos_sin(positions), served.cos_sin(positions), strict=True):
            torch.testing.assert_close(theirs, ours[2:], atol=1e-5, rtol=0)


@pytest.mark.vllm
def test_registering_again_changes_nothing() -> None:
    from vllm import ModelRegistry

    from fope.vllm_plugin import register

    register()
    register()
    assert list(ModelRegistry.get_supported_archs()).count(ARCHITECTURE) == 1


@pytest.mark.vllm
def test_vllms_own_embedding_is_the_same_function(record_property: pytest.FixtureRequest) -> None:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.fope import FourierRotaryEmbedding

    config = FopeConfig.intern_s1(64, 2, 512, theta=1e4, init_gain=0.5)
    ours = FourierPositionEmbedding(config, generator=torch.Generator().manual_seed(0))
    with set_current_vllm_config(VllmConfig()):
        theirs = FourierRotaryEmbedding(
            64, 64, 512, 1e4, True, torch.float32, False,
            num_key_value_heads=2, num_inv_freq=None, fope_sep_head=True, fope_init_factor=0.5,
        )  # fmt: skip
    theirs.cos_coef.data.copy_(ours.cos_coef)
    theirs.sin_coef.data.copy_(ours.sin_coef)
    positions = torch.tensor([0, 3, 77, 400, 511])
    q, k = torch.randn(5, 8 * 64), torch.randn(5, 2 * 64)
    rotated = theirs.forward_native(positions, q, k)
    zero_sin = theirs.cos_sin_cache[0, 0, -1].item()  # the sine of the last pair, of frequency zero
    assert zero_sin in (0.0, 1.0)
    record_property("zero_sin of this vLLM", zero_sin)
    print(f"vLLM's FourierRotaryEmbedding pads the sine with {zero_sin:g}")
    matching = FourierPositionEmbedding(FopeConfig.from_dict(config.to_dict() | {"zero_sin": zero_sin}))
    matching.load_state_dict(ours.state_dict())
    by_head = [x.unflatten(-1, (-1, 64)).transpose(0, 1)[None] for x in (q, k)]
    for theirs_x, ours_x in zip(rotated, matching(*by_head, positions), strict=True):
        assert (theirs_x.view(5, -1, 64).transpose(0, 1) - ours_x[0]).abs().max() <= 1e-5
