"""vLLM gives the log-probs that transformers gives, whatever else the engine does; and writes samples."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from implicit_prm.backends.base import LogProbBackend
from implicit_prm.backends.vllm import VLLMBackend
from implicit_prm.errors import ImplicitPRMError

VOCABULARY = 48
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 64,
    "max_num_seqs": 8,
    "disable_log_stats": True,
    "skip_tokenizer_init": True,
    "gpu_memory_utilization": 0.2,  # of the machine's memory, which others use too
}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    # vLLM's attention on CPUs wants heads of at least 32.
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.2,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def backend(model, tmp_path_factory: pytest.TempPathFactory) -> VLLMBackend:
    folder: Path = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return VLLMBackend.from_pretrained(str(folder), enable_prefix_caching=True, **ENGINE)


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    """Twelve rows of 2 to 63 tokens; the first six share a prompt of 32."""
    random = np.random.default_rng(0)
    prompt = random.integers(2, VOCABULARY, 32).tolist()
    shared = [prompt + random.integers(2, VOCABULARY, n).tolist() for n in (1, 5, 9, 17, 30, 31)]
    return shared + [random.integers(2, VOCABULARY, n).tolist() for n in (2, 3, 8, 33, 60, 63)]


def expected(model: LlamaForCausalLM, rows: list[list[int]]) -> list[np.ndarray]:
    """By definition: a row at a time, the log-softmax of all logits."""
    found = []
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            table = model(ids).logits[0, :-1].log_softmax(-1)
        found.append(table.gather(1, ids[0, 1:, None])[:, 0].numpy())
    return found


def masks(rows: list[list[int]]) -> list[list[bool]]:
    return [[False] + [True] * (len(row) - 1) for row in rows]


@pytest.mark.vllm
def test_vllm_gives_the_log_probs_of_transformers(backend, model, rows) -> None:
    assert isinstance(backend, LogProbBackend)
    found = backend.token_log_probs(rows, masks(rows))
    for ours, theirs in zip(found, expected(model, rows), strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() < 1e-3
    assert sum(len(row) for row in found) > 300


@pytest.mark.vllm
def test_requests_before_do_not_change_the_log_probs_though_prefixes_are_cached(backend, rows) -> None:
    first = backend.token_log_probs(rows, masks(rows))
    again = backend.token_log_probs(rows[::-1] + rows, masks(rows[::-1] + rows))
    for a, b in zip(first[::-1] + first, again, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.vllm
def test_only_marked_tokens_come_back(backend, rows) -> None:
    (all_of_them,) = backend.token_log_probs(rows[:1], masks(rows[:1]))
    mask = [[False] * 30 + [True, False, True], [False] * len(rows[1])]
    some, none = backend.token_log_probs(rows[:2], mask)
    assert some == pytest.approx(all_of_them[[29, 31]], abs=1e-5)
    assert none.shape == (0,)
    assert backend.token_log_probs([], []) == []


@pytest.mark.vllm
def test_a_row_that_does_not_fit_is_named(backend) -> None:
    assert backend.max_length == 63
    with pytest.raises(ImplicitPRMError, match="row 1 has 64 tokens, and 63 fit"):
        backend.token_log_probs([[1, 2], [3] * 64], masks([[1, 2], [3] * 64]))
    with pytest.raises(ImplicitPRMError, match="row 0 has the token id 48, and the model has 48 tokens"):
        backend.token_log_probs([[1, 48]], masks([[1, 48]]))


def engine(mode: str) -> Any:
    """The part of a `vllm.LLM` that tells how it was built."""
    config = SimpleNamespace(logprobs_mode=mode, max_model_len=9, get_vocab_size=lambda: 5)
    return SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=SimpleNamespace(model_config=config)))


def test_an_engine_whose_log_probs_are_not_the_models_own_is_refused() -> None:
    assert VLLMBackend(engine("raw_logprobs")).max_length == 8
    with pytest.raises(ImplicitPRMError, match="logprobs_mode='processed_logprobs'"):
        VLLMBackend(engine("processed_logprobs"))


def test_rows_and_masks_that_do_not_fit_each_other_are_named() -> None:
    backend = VLLMBackend(engine("raw_logprobs"))
    for ids, mask, message in [
        ([[1, 2]], [], "1 rows and 0 masks"),
        ([[1, 2]], [[False]], "row 0 has 2 tokens and a mask of 1"),
        ([[1, 2], [3]], [[False, True], [True]], "row 1 asks for its first token"),
    ]:
        with pytest.raises(ImplicitPRMError, match=message):
            backend.token_log_probs(ids, mask)


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImplicitPRMError, match=r"pip install 'implicit-prm\[vllm\]'"):
        VLLMBackend.from_pretrained("model")
