"""The latent cache gives what the ordinary one gives, in fewer bytes."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DynamicCache,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    Olmo2Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

import lpa

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "max_position_embeddings": 64,
}
RANK = 9


def low_rank(config: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config).eval()
    if not lpa.is_lpa(model):
        lpa.apply_lpa(model, lpa.LPAConfig(rank=RANK, init="matched"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.3)  # biases and norms that matter
    return model


@pytest.fixture(params=["llama", "llama_mha", "qwen2", "qwen3", "gpt_neox", "gpt2", "classic"])
def model(request: pytest.FixtureRequest, tiny_llama: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    configs = {
        "llama": tiny_llama().config,
        "llama_mha": tiny_llama(num_key_value_heads=4, attention_bias=True).config,  # a query a key
        "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
        "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),  # a norm on keys
        "gpt_neox": GPTNeoXConfig(**SIZES),  # a quarter of each head rotates
        "gpt2": GPT2Config(
            vocab_size=64, n_embd=32, n_head=4, n_layer=2, n_positions=64, initializer_range=0.2
        ),
        "classic": lpa.ClassicConfig(
            **{key: value for key, value in SIZES.items() if key != "initializer_range"},
            head_dim=8,
            rank=RANK,
        ),
    }
    return low_rank(configs[request.param])


@pytest.mark.parametrize("keys", ["latent", "rotated"])
def test_greedy_tokens_are_the_same_without_cache_with_the_dense_and_with_the_latent_one(
    model: PreTrainedModel, keys: Any, token_ids: torch.Tensor
) -> None:
    ids, mask = token_ids[:, :12], torch.ones(3, 12, dtype=torch.long)
    mask[1, :5] = 0  # padded on the left: positions differ between rows

    def tokens(**settings: Any) -> torch.Tensor:
        return model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=32,
            eos_token_id=None,
            pad_token_id=0,
            **settings,
        )

    cache = lpa.latent_cache(model, keys)
    latent = tokens(past_key_values=cache)
    assert torch.equal(latent, tokens(past_key_values=DynamicCache()))
    assert torch.equal(latent, tokens(use_cache=False))
    assert cache.get_seq_length() == 12 + 32 - 1  # the last token is never read
    if keys == "latent":
        assert cache.nbytes == 3 * 43 * 2 * (2 * RANK) * 4  # batch, tokens, layers, numbers, bytes
        assert cache.nbytes == 3 * 43 * 4 * lpa.estimate(model, 43).latent_kv_elements_per_token


@pytest.mark.parametrize("keys", ["latent", "rotated"])
@torch.no_grad()
def test_pieces_of_any_length_copies_crops_and_chosen_rows(
    model: PreTrainedModel, keys: Any, token_ids: torch.Tensor
) -> None:
    latent, dense = lpa.latent_cache(model, keys), DynamicCache()

    def check(ids: torch.Tensor, latent: Any, dense: Any) -> None:
        expected = model(ids, past_key_values=dense).logits
        torch.testing.assert_close(model(ids, past_key_values=latent).logits, expected, atol=2e-4, rtol=1e-3)

    for start, end in ((0, 6), (6, 9), (9, 10), (10, 17)):
        check(token_ids[:, start:end], latent, dense)
    copies = copy.deepcopy(latent), copy.deepcopy(dense)
    for cache in (latent, dense):
        cache.crop(-4)
        cache.batch_select_indices(torch.tensor([2, 0]))
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 1, 0, 2]))
    check(token_ids[:1, 17:18].expand(4, -1), latent, dense)
    check(token_ids[:, 17:20], *copies)
    latent.reset()
    check(token_ids, latent, DynamicCache())


@torch.no_grad()
def test_storage_grows_and_long_contexts_are_expanded_in_blocks(
    tiny_llama: Callable[..., PreTrainedModel],
) -> None:
    model = low_rank(tiny_llama(max_position_embeddings=1024).config)
    ids = torch.randint(0, 64, (2, 600))
    latent, dense = lpa.latent_cache(model), DynamicCache()
    for piece in (ids[:, :300], ids[:, 300:599], ids[:, 599:]):
        logits = model(piece, past_key_values=latent).logits
        torch.testing.assert_close(logits, model(piece, past_key_values=dense).logits, atol=5e-4, rtol=1e-3)


def test_beam_search_and_assisted_decoding(
    tiny_llama: Callable[..., PreTrainedModel], token_ids: torch.Tensor
) -> None:
    model = low_rank(tiny_llama().config)
    for settings in ({"num_beams": 3}, {"prompt_lookup_num_tokens": 3}):
        common = {
            "do_sample": False,
            "max_new_tokens": 12,
            "eos_token_id": None,
            "pad_token_id": 0,
            **settings,
        }
        ids = token_ids[:1]
        latent = model.generate(ids, past_key_values=lpa.latent_cache(model), **common)
        assert torch.equal(latent, model.generate(ids, **common))


@torch.no_grad()
def test_half_precision_and_two_caches_in_turn(
    tiny_llama: Callable[..., PreTrainedModel], token_ids: torch.Tensor
) -> None:
    model = low_rank(tiny_llama().config).bfloat16()
    one, two, dense = lpa.latent_cache(model), lpa.latent_cache(model), DynamicCache()
    for start, end in ((0, 8), (8, 9), (9, 10)):
        logits = model(token_ids[:, start:end], past_key_values=one).logits
        model(token_ids.flip(1)[:, start:end], past_key_values=two)
        expected = model(token_ids[:, start:end], past_key_values=dense).logits
        assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


def test_two_threads_generate_with_one_model_and_a_cache_each(
    tiny_llama: Callable[..., PreTrainedModel], token_ids: torch.Tensor
) -> None:
    model = low_rank(tiny_llama().config)
    prompts = [token_ids[:1, :8], token_ids[1:2, :8]]
    settings: dict[str, Any] = {
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": 0,
    }
    expected = [model.generate(ids, **settings) for ids in prompts]
    caches = [lpa.latent_cache(model) for _ in prompts]
    together = threading.Barrier(2, timeout=60)  # neither goes on before the other has computed its latents

    def meet(*_: Any) -> None:
        together.wait()

    for layer in model.model.layers:
        layer.self_attn.v_proj.up.register_forward_hook(meet)

    def generate(number: int) -> torch.Tensor:
        return model.generate(prompts[number], past_key_values=caches[number], **settings)

    with ThreadPoolExecutor(2) as pool:
        for found, tokens in zip(pool.map(generate, range(2)), expected, strict=True):
            assert torch.equal(found, tokens)


def test_a_cache_leaves_no_hooks_and_a_model_that_can_be_pickled_behind(
    tiny_llama: Callable[..., PreTrainedModel], token_ids: torch.Tensor
) -> None:
    model = low_rank(tiny_llama().config)
    with torch.no_grad():
        before = model(token_ids).logits
        cache = lpa.latent_cache(model)
        model(token_ids, past_key_values=cache)
        del cache
        gc.collect()
        assert not any(module._forward_hooks for module in model.modules())
        assert torch.equal(model(token_ids).logits, before)


def test_refusals(tiny_llama: Callable[..., PreTrainedModel], token_ids: torch.Tensor) -> None:
    wide = lpa.apply_lpa(tiny_llama(), lpa.LPAConfig(rank=16, allow_expand=True))
    with pytest.raises(lpa.LPAError, match="rank 16, not below its width 16"):
        lpa.latent_cache(wide)
    with pytest.raises(lpa.LPAError, match="k of layer 0 is not low-rank"):
        lpa.latent_cache(lpa.apply_lpa(tiny_llama(), lpa.LPAConfig(rank=RANK, targets=("q", "v"))))
    with pytest.raises(lpa.LPAError, match="v of layer 1 is not low-rank"):
        lpa.latent_cache(lpa.apply_lpa(tiny_llama(), lpa.LPAConfig(rank=RANK, layers=(0,))), keys="rotated")
    with pytest.raises(lpa.LPAError, match="must be 'latent' or 'rotated'"):
        lpa.latent_cache(wide, keys="both")  # type: ignore[arg-type]
    model = low_rank(tiny_llama().config)
    model.set_attn_implementation("eager")
    with pytest.raises(lpa.LPAError, match="the model uses 'eager'"):
        lpa.latent_cache(model)
    model.set_attn_implementation("sdpa")
    model.model.layers[1].self_attn.k_proj.up = nn.Sequential(model.model.layers[1].self_attn.k_proj.up)
    with pytest.raises(lpa.LPAError, match="an adapter"):
        lpa.latent_cache(model)
    with pytest.raises(lpa.LPAError, match="attention code of its own"):
        lpa.latent_cache(low_rank(FalconConfig(**SIZES, multi_query=False, new_decoder_architecture=False)))
    other = low_rank(tiny_llama().config)
    lpa.latent_cache(other)
    with pytest.raises(lpa.LPAError, match="belongs to another model"):
        other(token_ids, past_key_values=lpa.latent_cache(low_rank(tiny_llama().config)))


def test_a_norm_over_all_heads_together(token_ids: torch.Tensor) -> None:
    model = low_rank(Olmo2Config(**SIZES, pad_token_id=0, eos_token_id=1))
    with pytest.raises(lpa.LPAError, match="keys='rotated'"):
        lpa.latent_cache(model)
    with torch.no_grad():
        cache = lpa.latent_cache(model, keys="rotated")
        model(token_ids[:, :-1], past_key_values=cache)
        logits = model(token_ids[:, -1:], past_key_values=cache).logits
        torch.testing.assert_close(logits[:, 0], model(token_ids).logits[:, -1], atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_keys_that_a_model_changes_in_an_unknown_way_are_noticed(
    token_ids: torch.Tensor,
) -> None:
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    model = low_rank(
        CohereConfig(**sizes, pad_token_id=0, eos_token_id=1, bos_token_id=1)
    )  # rotates neighbours
    with pytest.raises(lpa.LPAError, match="does not know how this model's keys"):
        model(token_ids, past_key_values=lpa.latent_cache(model))
