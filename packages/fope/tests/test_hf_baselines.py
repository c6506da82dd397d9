"""Baselines as models: what each does to attention, on the models it was applied to and on no other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedModel, StaticCache

from fope import FopeError
from fope.baselines import alibi_bias
from fope.hf import convert_to_fope
from fope.hf.baselines import KINDS, apply_position

ADDITIVE = ("alibi", "kerple", "fire")


def llama(**changes: int) -> PreTrainedModel:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    return AutoModelForCausalLM.from_config(LlamaConfig(**settings | changes)).eval()


def applied(kind: str, **changes: int) -> PreTrainedModel:
    options = {"train_length": 16} if kind in ("rope_a", "fire") else {}
    return apply_position(llama(**changes), kind, **options)


TOKENS = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: torch.Tensor = TOKENS, **inputs: object) -> torch.Tensor:
    return model(input_ids=tokens, use_cache=False, **inputs).logits


def test_rope_is_the_model_as_it_was() -> None:
    assert torch.equal(logits(applied("rope")), logits(llama()))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rope"])
def test_every_other_kind_changes_its_model_and_no_other(kind: str) -> None:
    other, before = llama(), logits(llama())
    ours = applied(kind)
    assert not torch.allclose(logits(ours), before, atol=1e-3)
    assert torch.equal(logits(other), before)
    assert torch.equal(logits(llama()), before)


def test_nope_does_not_see_the_order_of_what_came_before() -> None:
    model = applied("nope", num_hidden_layers=1)
    shuffled = torch.cat([TOKENS[:, :-1].flip(1), TOKENS[:, -1:]], dim=1)
    assert torch.allclose(logits(model)[:, -1], logits(model, shuffled)[:, -1], atol=1e-5)


def test_alibi_is_nope_with_its_bias_in_the_mask() -> None:
    positions = torch.arange(12)
    bias = alibi_bias(4, positions, positions)
    future = torch.triu(torch.full((12, 12), -torch.inf), diagonal=1)
    expected = logits(applied("nope"), attention_mask=(bias + future).expand(2, 4, 12, 12))
    assert torch.allclose(logits(applied("alibi")), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_a_cache_is_the_full_forward(kind: str) -> None:
    model = applied(kind)
    with torch.no_grad():
        first = model(input_ids=TOKENS[:, :7], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        for token in TOKENS[:, 7:].split(1, dim=1):
            step = model(input_ids=token, past_key_values=cache, use_cache=True)
            steps.append(step.logits)
            cache = step.past_key_values
    assert torch.allclose(torch.cat(steps, dim=1), logits(model), atol=1e-4)


@pytest.mark.parametrize("kind", ADDITIVE)
@pytest.mark.parametrize("padded", [0, 3])
@torch.no_grad()
def test_a_static_cache_has_empty_places_behind_the_queries(kind: str, padded: int) -> None:
    model = applied(kind)
    tokens = torch.cat([torch.zeros(2, padded, dtype=torch.long), TOKENS], dim=1)
    mask = torch.cat([torch.zeros(2, padded, dtype=torch.long), torch.ones_like(TOKENS)], dim=1)
    cache = StaticCache(config=model.config, max_cache_len=32)
    steps = [
        model(input_ids=part, attention_mask=mask[:, :end], past_key_values=cache).logits
        for part, end in ((tokens[:, : padded + 7], padded + 7), (tokens[:, padded + 7 :], padded + 12))
    ]
    expected = logits(model, tokens, attention_mask=mask)
    assert torch.allclose(torch.cat(steps, dim=1)[:, padded:], expected[:, padded:], atol=1e-4)


@pytest.mark.parametrize("kind", ["nope", "alibi", "kerple"])
def test_padding_on_the_left_changes_nothing(kind: str) -> None:
    model = applied(kind)
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), TOKENS], dim=1)
    mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones_like(TOKENS)], dim=1)
    assert torch.allclose(logits(model, padded, attention_mask=mask)[:, 3:], logits(model), atol=1e-5)


@pytest.mark.parametrize("kind", ["kerple", "fire"])
def test_learned_biases_are_trained_and_stay_in_the_weights(kind: str) -> None:
    model = applied(kind).train()
    learned = {name: p for name, p in model.named_parameters() if "position_bias" in name}
    assert learned
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learned.values())
    with torch.no_grad():
        for parameter in learned.values():
            parameter.add_(0.05)
    fresh = applied(kind)
    assert not torch.allclose(logits(fresh), logits(model.eval()), atol=1e-4)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(logits(fresh), logits(model))


@pytest.mark.parametrize("kind", ADDITIVE)
def test_a_copy_is_on_its_own(kind: str) -> None:
    model = applied(kind)
    before = logits(model)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied), before)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", ADDITIVE)
def test_the_config_it_was_made_from_stays_as_it_was(kind: str) -> None:
    plain = llama()
    config = copy.deepcopy(plain.config)
    first, second = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    second.load_state_dict(plain.state_dict())
    apply_position(first, kind, train_length=16)
    third = AutoModelForCausalLM.from_config(config).eval()
    third.load_state_dict(plain.state_dict())
    for other in (second, third):
        assert torch.equal(logits(other), logits(plain))


def of_family(family: str, **changes: Any) -> PreTrainedModel:
    settings: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2}
    settings |= {"num_attention_heads": 4, "intermediate_size": 48, "initializer_range": 0.3}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings | changes)).eval()


def test_alibi_in_a_family_that_names_its_attention_otherwise() -> None:
    positions = torch.arange(12)
    future = torch.triu(torch.full((12, 12), -torch.inf), diagonal=1)
    mask = (alibi_bias(4, positions, positions) + future).expand(2, 4, 12, 12)
    nope, alibi = (apply_position(of_family("gpt_neox"), kind) for kind in ("nope", "alibi"))
    assert torch.allclose(logits(alibi), logits(nope, attention_mask=mask), atol=1e-5)
    assert not torch.allclose(logits(alibi), logits(nope), atol=1e-3)


def test_families_without_a_place_for_it_are_refused_and_left_as_they_were() -> None:
    with pytest.raises(FopeError, match="GPT2LMHeadModel has no rotary embedding that these positions"):
        apply_position(of_family("gpt2"), "alibi")
    gemma = of_family("gemma2", head_dim=8, num_key_value_heads=2, pad_token_id=0)
    before = logits(gemma)
    with pytest.raises(FopeError, match=r"caps its attention scores, which alibi's attention does not"):
        apply_position(gemma, "alibi")
    assert torch.equal(logits(gemma), before)
    assert not torch.allclose(logits(apply_position(gemma, "nope")), before, atol=1e-3)


def test_mistakes_are_named() -> None:
    with pytest.raises(FopeError, match="has Fourier position embeddings, which would go on rotating"):
        apply_position(convert_to_fope(llama(), train_length=16), "nope")
    with pytest.raises(FopeError, match=r"kind 'sandwich'.*rope, rope_a, nope, alibi, kerple, fire"):
        apply_position(llama(), "sandwich")
    with pytest.raises(FopeError, match="rope_a needs train_length"):
        apply_position(llama(), "rope_a")
    twice = applied("alibi")
    with pytest.raises(FopeError, match="already has positions of kind 'alibi'"):
        apply_position(twice, "nope")
