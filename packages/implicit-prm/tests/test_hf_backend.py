"""Log-probabilities by transformers: what they depend on, and what not (test 6 of section 7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from implicit_prm import ImplicitPRMError
from implicit_prm.backends.base import LogProbBackend
from implicit_prm.backends.hf import HFBackend

VOCABULARY = 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
}
# The last two may not share a prompt: a window shorter than it, and no position ids.
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=16)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    ),
}
SHARING = {"llama", "gpt2"}


def build(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]()


@pytest.fixture(scope="module")
def llama() -> Any:
    return build("llama")


def sample_rows(seed: int = 0) -> tuple[list[list[int]], list[list[bool]]]:
    """Three prompts, of 70, 41 and 3 tokens, each with five responses of 1 to 30 tokens; shuffled."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in (70, 41, 3):
        prompt = rng.integers(0, VOCABULARY, length).tolist()
        for size in (1, 30, 7, 12, 12):
            completion = rng.integers(0, VOCABULARY, size).tolist()
            rows.append((prompt + completion, [False] * length + [True] * size))
    order = rng.permutation(len(rows))
    return [rows[at][0] for at in order], [rows[at][1] for at in order]


def alone(model: Any, ids: list[int], marks: list[bool]) -> np.ndarray:
    """The definition: one row, all logits, log-softmax in float64."""
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    scores = logits.log_softmax(-1)
    return np.array([float(scores[at - 1, ids[at]]) for at, mark in enumerate(marks) if mark])


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], atol: float = 1e-5) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_every_row_alone(name, share):
    model = build(name)
    ids, marks = sample_rows()
    backend = HFBackend(model, batch_size=4, share_prompts=share)
    assert isinstance(backend, LogProbBackend)
    found = backend.token_log_probs(ids, marks)
    assert all(row.dtype == np.float32 for row in found)
    assert_close(found, [alone(model, *row) for row in zip(ids, marks, strict=True)])
    # 10 of the 15 rows have a prompt that is worth sharing: 5 x 70 + 5 x 41 tokens become 70 + 41.
    saves = share and name in SHARING
    assert (backend.workload.computed < backend.workload.tokens) == saves


def test_a_batch_of_any_size_and_order_gives_the_same(llama):
    ids, marks = sample_rows()
    expected = HFBackend(llama, batch_size=1).token_log_probs(ids, marks)
    for size in (2, 3, 64):
        backend = HFBackend(llama, batch_size=size)
        assert_close(backend.token_log_probs(ids, marks), expected)
        assert_close(backend.token_log_probs(ids[::-1], marks[::-1]), expected[::-1])


def test_float64_weights_agree_to_the_last_digit_of_float32():
    model = build("llama").double()
    ids, marks = sample_rows()
    expected = [alone(model, *row) for row in zip(ids, marks, strict=True)]
    found = HFBackend(model, batch_size=4).token_log_probs(ids, marks)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_max_ulp(ours, theirs.astype(np.float32), maxulp=1)


def test_marks_may_have_gaps_and_rows_may_ask_for_nothing(llama):
    ids = [[3, 1, 4, 1, 5, 9], [2, 7], [2, 7, 1, 8]]
    marks = [[False, True, False, False, True, False], [False, False], [False, True, True, True]]
    found = HFBackend(llama).token_log_probs(ids, marks)
    assert [len(row) for row in found] == [2, 0, 3]
    assert_close(found, [alone(llama, *row) for row in zip(ids, marks, strict=True)])
    assert HFBackend(llama).token_log_probs([], []) == []


def test_equal_rows_are_computed_once(llama):
    ids, marks = [[1, 2, 3, 4]] * 6 + [[1, 2, 3, 5]], [[False, False, True, True]] * 7
    backend = HFBackend(llama)
    found = backend.token_log_probs(ids, marks)
    assert backend.workload.computed == 2 * 3
    assert_close(found, [alone(llama, *row) for row in zip(ids, marks, strict=True)])


def test_dropout_is_off_while_scoring_and_on_again_after():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=0.5)).train()
    model.model.layers[0].eval()
    ids, marks = sample_rows()
    first = HFBackend(model).token_log_probs(ids, marks)
    assert_close(HFBackend(model).token_log_probs(ids, marks), first, atol=0)
    assert [layer.training for layer in model.model.layers] == [False, True]
    assert model.training


def test_what_does_not_fit_into_memory_is_tried_in_smaller_batches(llama):
    ids, marks = sample_rows()
    expected = HFBackend(llama).token_log_probs(ids, marks)
    with at_most_rows(llama, 2):
        assert_close(HFBackend(llama, batch_size=8).token_log_probs(ids, marks), expected)
    with at_most_rows(llama, 0), pytest.raises(ImplicitPRMError, match="does not fit into memory"):
        HFBackend(llama, batch_size=8).token_log_probs(ids, marks)


@contextmanager
def at_most_rows(model: Any, most: int) -> Iterator[None]:
    """A device whose memory is full with more than `most` rows."""

    def check(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        if len(inputs["input_ids"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def test_what_cannot_be_scored_is_named(llama):
    backend = HFBackend(llama)
    with pytest.raises(ImplicitPRMError, match="2 rows and 1 masks"):
        backend.token_log_probs([[1, 2], [1, 2]], [[False, True]])
    with pytest.raises(ImplicitPRMError, match="row 0 has the token id 50, and the model has 50 tokens"):
        backend.token_log_probs([[1, 50]], [[False, True]])
    with pytest.raises(ImplicitPRMError, match="batch_size must be at least 1"):
        HFBackend(llama, batch_size=0)
