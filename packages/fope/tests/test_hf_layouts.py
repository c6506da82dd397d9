"""Coefficients in three public layouts, and compared over ranks."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

import fope.hf
from fope.compat.layouts import read_coefficients
from fope.errors import FopeError, FopeWarning
from fope.hf.layouts import coefficients, load_coefficients
from fope.hf.ranks import check_ranks_at_first_step
from fope.hf.rotation import rotating_layers

torch.set_num_threads(1)

IDS = torch.arange(20)[None]


def llama(**options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    return fope.hf.convert_to_fope(LlamaForCausalLM(config), train_length=64, **options)


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.parametrize(
    ("layout", "key", "per_layer"),
    [
        ("fope", "model.layers.1.self_attn.fope.sin_coef", True),
        ("olmo", "transformer.blocks.1.pos_emb.sin_coef", True),
        ("intern_s1", "model.language_model.rotary_emb.sin_coef", False),
    ],
)
def test_coefficients_travel_in_every_layout(layout: str, key: str, per_layer: bool) -> None:
    model, other = (llama(per_layer=per_layer, zero_sin=1.0, seed=seed) for seed in (3, 4))
    written = coefficients(model, layout)  # type: ignore[arg-type]
    assert key in written
    assert len(written) == (4 if per_layer else 2)
    assert not torch.equal(logits(other), logits(model))
    assert torch.equal(logits(load_coefficients(other, written)), logits(model))


@pytest.mark.parametrize(("layout", "warned"), [("olmo", True), ("intern_s1", True), ("fope", False)])
def test_coefficients_trained_with_zero_sin_1_are_not_put_into_a_model_with_0_unsaid(
    layout: Any, warned: bool
) -> None:
    written = coefficients(llama(per_layer=False, zero_sin=1.0), layout)
    expected = pytest.warns(FopeWarning, match="`fope fold` from the shell") if warned else nullcontext()
    with warnings.catch_warnings(), expected:
        warnings.simplefilter("always" if warned else "error")
        load_coefficients(llama(per_layer=False), written)


def test_layers_of_their_own_do_not_fit_into_one_set() -> None:
    with pytest.raises(FopeError, match="per_layer=False"):
        coefficients(llama(), "intern_s1")


def test_a_layer_without_coefficients_is_named() -> None:
    written = {key: coef for key, coef in coefficients(llama(), "olmo").items() if "blocks.0" in key}
    model = llama(seed=5)
    before = coefficients(model)
    with pytest.raises(FopeError, match=r"no coefficients for layer 1; it has those of \[0\]"):
        load_coefficients(model, written)
    assert all(torch.equal(coef, before[key]) for key, coef in coefficients(model).items())


def test_coefficients_of_another_length_name_both_numbers() -> None:
    longer = fope.hf.extend(llama(), 1024)
    with pytest.raises(FopeError, match=r"keep R=3 pairs and the checkpoint has R=5"):
        load_coefficients(llama(), coefficients(longer))


def test_a_rope_model_has_none() -> None:
    with pytest.raises(FopeError, match="use convert_to_fope first"):
        coefficients(LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=16, num_attention_heads=2)))


def test_ranks_are_compared_once_when_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("fope.hf.ranks.check_ranks", compared.append)
    model = check_ranks_at_first_step(llama())
    model.eval()(IDS)
    assert not compared
    for _ in range(2):
        model.train()(IDS)
    assert compared == [model]


def test_families_that_name_their_attention_otherwise():
    config = GPTNeoXConfig(
        vocab_size=64, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    model = fope.hf.convert_to_fope(GPTNeoXForCausalLM(config), train_length=64)
    layout, sets = read_coefficients(model.state_dict())
    assert layout == "fope"
    assert torch.equal(sets[1][0], rotating_layers(model)[1].fope.cos_coef)
