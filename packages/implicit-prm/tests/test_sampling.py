"""Samples come from the policy's distribution, with its log-probs; a seed fixes them in any batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.utils import ModelOutput

from implicit_prm.backends.hf import HFBackend
from implicit_prm.backends.prompts import can_share_prompts
from implicit_prm.decoding import draw
from implicit_prm.encoding import encode_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.sampling import HFSampler, Sampler, prompt_ids

PROMPTS = ["Step 1: 4", "the answer", "so", [84, 85], [{"role": "user", "content": "4"}]]


@pytest.fixture(scope="module")
def model(tiny_llama, tokenizer):
    """A policy that likes the end token, so that responses have all lengths."""
    model = tiny_llama(vocab_size=len(tokenizer), initializer_range=0.1)
    model.lm_head.weight.data[tokenizer.eos_token_id] *= 4
    return model


@pytest.fixture(scope="module")
def sampler(model, tokenizer) -> HFSampler:
    return HFSampler(model, tokenizer)


def flat(found) -> list:
    return [sample for samples in found for sample in samples]


def test_log_probs_are_the_policys_own_whatever_was_drawn_with(model, sampler, tokenizer) -> None:
    assert isinstance(sampler, Sampler)
    ids = prompt_ids(PROMPTS, tokenizer)
    for temperature, top_p in ((1.0, 1.0), (0.5, 0.9), (0.0, 1.0)):
        found = sampler.sample(PROMPTS, 3, temperature=temperature, top_p=top_p, max_tokens=20, seed=1)
        rows = [[*prompt, *s.token_ids] for prompt, samples in zip(ids, found, strict=True) for s in samples]
        masks = [
            [at >= len(row) - len(s.token_ids) for at in range(len(row))]
            for row, s in zip(rows, flat(found), strict=True)
        ]
        expected = HFBackend(model).token_log_probs(rows, masks)
        for sample, row in zip(flat(found), expected, strict=True):
            assert sample.log_probs.dtype == np.float32
            assert sample.log_probs == pytest.approx(row, abs=1e-4)


def test_with_a_seed_a_response_does_not_depend_on_how_many_are_written_together(model, tokenizer) -> None:
    most = {"temperature": 1.0, "max_tokens": 12, "seed": 5}
    many = HFSampler(model, tokenizer, batch_size=64).sample(PROMPTS, 3, **most)
    one = HFSampler(model, tokenizer, batch_size=1).sample(PROMPTS, 3, **most)
    fewer = HFSampler(model, tokenizer, batch_size=3).sample(PROMPTS[:3], 2, **most)
    assert [s.token_ids for s in flat(one)] == [s.token_ids for s in flat(many)]
    assert [s.token_ids for s in flat(fewer)] == [s.token_ids for row in many[:3] for s in row[:2]]
    assert len({len(s.token_ids) for s in flat(many)}) > 3  # samples left the batch at different times
    assert len({s.token_ids for s in flat(many)}) == 15  # and no two had the same random numbers


def test_without_a_seed_samples_are_fresh_and_the_global_generator_is_left_alone(sampler) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (sampler.sample(["so"], max_tokens=12)[0][0] for _ in range(2))
    assert first.token_ids != second.token_ids
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sample_ends_with_its_end_token_which_is_no_text_or_is_truncated(sampler, tokenizer) -> None:
    found = flat(sampler.sample(PROMPTS, 8, max_tokens=24, seed=0))
    assert {sample.truncated for sample in found} == {True, False}
    for sample in found:
        assert sample.truncated == (sample.token_ids[-1] != tokenizer.eos_token_id)
        assert len(sample.token_ids) == 24 if sample.truncated else tokenizer.eos_token not in sample.text
        assert tokenizer.eos_token_id not in sample.token_ids[:-1]
    row = {"prompt": "so", "completion_ids": found[0].token_ids, "truncated": found[0].truncated}
    assert encode_rows([row], tokenizer)[0].completion == found[0].text


def test_prompts_are_the_tokens_that_scoring_sees(tokenizer) -> None:
    texts = prompt_ids(PROMPTS, tokenizer)
    scored = encode_rows([{"prompt": p, "completion": "4"} for p in (*PROMPTS[:3], PROMPTS[4])], tokenizer)
    assert [*texts[:3], texts[4]] == [row.prompt_ids for row in scored]
    assert texts[3] == (84, 85)
    assert texts[4][-len(tokenizer("<|im_start|>assistant\n").input_ids) :] == tuple(
        tokenizer("<|im_start|>assistant\n").input_ids
    )


@pytest.mark.parametrize("kind", ["llama", "sliding windows"])
def test_the_most_probable_tokens_are_those_of_generate(tiny_llama, tokenizer, kind) -> None:
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "eos_token_id": 2}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    window = {"sliding_window": 4, "initializer_range": 0.2}
    model = (
        tiny_llama(**shape)
        if kind == "llama"
        else MistralForCausalLM(MistralConfig(**shape, **heads, **window))
    )
    ids = prompt_ids(PROMPTS, tokenizer)
    found = HFSampler(model, tokenizer).sample(PROMPTS, temperature=0.0, max_tokens=12)
    for prompt, (sample,) in zip(ids, found, strict=True):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert sample.token_ids == tuple(expected[0, len(prompt) :].tolist())


def forward_with_cache(self, input_ids, attention_mask=None, position_ids=None, cache=None, use_cache=None):
    """As transformers has it from 5.24 on: the cache is called `cache`, in arguments and outputs."""
    inputs = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache}
    output = LlamaForCausalLM.forward(self, input_ids, past_key_values=cache, **inputs)
    return NewerOutput(logits=output.logits, cache=output.past_key_values)


@dataclass
class NewerOutput(ModelOutput):
    logits: torch.Tensor | None = None
    cache: object = None


def test_a_cache_of_the_newer_name_is_read_and_kept(tiny_llama, tokenizer) -> None:
    model = tiny_llama(vocab_size=len(tokenizer))
    usual = HFSampler(model, tokenizer).sample(PROMPTS, temperature=0.0, max_tokens=12)
    model.forward = forward_with_cache.__get__(model)
    assert can_share_prompts(model)
    newer = HFSampler(model, tokenizer).sample(PROMPTS, temperature=0.0, max_tokens=12)
    assert [one.token_ids for one in flat(newer)] == [one.token_ids for one in flat(usual)]


def test_a_model_without_a_cache_is_refused(tiny_llama, tokenizer) -> None:
    model = tiny_llama(vocab_size=len(tokenizer))
    model.forward = lambda input_ids, attention_mask=None: None
    with pytest.raises(ImplicitPRMError, match="takes no cache of keys and values"):
        HFSampler(model, tokenizer).sample(PROMPTS, max_tokens=2)


def test_the_shares_drawn_are_the_softmax_at_that_temperature() -> None:
    """Stratified random numbers: each share is within one stratum of its probability, by the inverse CDF."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf])
    strata = 10_000
    uniforms = (torch.arange(strata, dtype=torch.float64) + 0.5) / strata
    for temperature in (0.5, 1.0, 2.0):
        drawn = Counter(draw(logits.expand(strata, 5), uniforms, temperature, 1.0).tolist())
        expected = (logits / temperature).softmax(-1)
        for token in range(5):
            assert abs(drawn[token] - strata * float(expected[token])) <= 2
        assert drawn[4] == 0


def test_top_p_keeps_the_fewest_tokens_that_have_the_share() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(1000, 4)
    uniforms = torch.arange(1000, dtype=torch.float64) / 1000
    drawn = Counter(draw(logits, uniforms, 1.0, 0.65).tolist())
    assert set(drawn) == {1, 3}  # 0.4 + 0.3
    assert drawn[1] == pytest.approx(1000 * 4 / 7, abs=2)
    assert set(draw(logits, uniforms, 1.0, 0.3).tolist()) == {1}


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=9), st.floats(0, 1, exclude_max=True))
def test_no_random_number_draws_a_token_outside_the_vocabulary_or_of_probability_0(values, uniform) -> None:
    logits = torch.tensor([[-torch.inf, *values, -torch.inf]])
    for number in (uniform, 0.0, float(np.nextafter(1.0, 0.0))):
        token = int(draw(logits, torch.tensor([number], dtype=torch.float64), 1.0, 1.0))
        assert 1 <= token <= len(values)


def test_dropout_is_off_while_writing_and_on_again_afterwards(tiny_llama, tokenizer) -> None:
    model = tiny_llama(attention_dropout=0.9).train()
    sampler = HFSampler(model, tokenizer)
    first, second = (sampler.sample(["so"], max_tokens=12, seed=0)[0][0] for _ in range(2))
    assert first.token_ids == second.token_ids
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature must be a number of at least 0"),
        ({"temperature": float("nan")}, "temperature must be a number of at least 0, not nan"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"seed": -1}, "seed must be at least 0, or None"),
        ({"max_tokens": 510}, r"prompt 1 has 3 tokens; with max_tokens=510 .* than the 512"),
    ],
)
def test_settings_out_of_range_are_named(sampler, settings, message) -> None:
    with pytest.raises(ImplicitPRMError, match=message):
        sampler.sample([[5], [5, 6, 7]], **{"max_tokens": 4} | settings)


def test_prompts_and_models_that_cannot_be_are_named(sampler, tiny_llama, tokenizer) -> None:
    with pytest.raises(ImplicitPRMError, match="row '1': the prompt has no tokens"):
        sampler.sample(["so", ""], max_tokens=2)
    with pytest.raises(ImplicitPRMError, match="row '0': token 5000 is not in the tokenizer's vocabulary"):
        sampler.sample([[5000]], max_tokens=2)
    with pytest.raises(ImplicitPRMError, match="batch_size must be at least 1"):
        HFSampler(sampler.model, tokenizer, batch_size=0)
    endless = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    with pytest.raises(ImplicitPRMError, match=r"neither .* has an end token"):
        HFSampler(endless, SimpleNamespace(eos_token_id=None))  # type: ignore[arg-type]
    broken = tiny_llama()
    broken.lm_head.weight.data[:] = torch.nan
    with pytest.raises(ImplicitPRMError, match="logits have NaN"):
        HFSampler(broken, tokenizer).sample(["so"], max_tokens=2)
    assert sampler.sample([], max_tokens=2) == []
