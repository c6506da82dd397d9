"""vLLM gives the log-probs that transformers gives, whatever else the engine does; and writes samples."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prm.backends.base import LogProbBackend
from implicit_prm.backends.openai import CompletionsServer, OpenAIBackend
from implicit_prm.backends.vllm import VLLMBackend
from implicit_prm.encoding import encode_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.sampling import HFSampler, OpenAISampler, Sampler, VLLMSampler, prompt_ids
from implicit_prm.tasks.vocabulary import word_tokenizer

VOCABULARY = 48
PROMPTS = ["w1 w2", "w3", "w4 w5 w6 w7", [7, 8]]
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
def folder(model, words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backend(folder: Path) -> VLLMBackend:
    return VLLMBackend.from_pretrained(str(folder), enable_prefix_caching=True, **ENGINE)


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    """Twelve rows of 2 to 63 tokens; the first six share a prompt of 32."""
    random = np.random.default_rng(0)
    prompt = random.integers(2, VOCABULARY, 32).tolist()
    shared = [prompt + random.integers(2, VOCABULARY, n).tolist() for n in (1, 5, 9, 17, 30, 31)]
    return shared + [random.integers(2, VOCABULARY, n).tolist() for n in (2, 3, 8, 33, 60, 63)]


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return word_tokenizer([f"w{n}" for n in range(VOCABULARY - 3)], between=" ")


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
def test_samples_of_vllm_have_the_log_probs_of_transformers_and_their_end_token(
    backend, model, words
) -> None:
    sampler = VLLMSampler(backend.llm, words)
    assert isinstance(sampler, Sampler)
    found = sampler.sample(PROMPTS, 6, temperature=0.9, top_p=0.95, max_tokens=40, seed=1)
    assert [len(samples) for samples in found] == [6] * 4
    samples = [sample for row in found for sample in row]
    rows = [
        [*prompt, *sample.token_ids]
        for prompt, row in zip(prompt_ids(PROMPTS, words), found, strict=True)
        for sample in row
    ]
    for sample, log_probs in zip(samples, expected(model, rows), strict=True):
        assert np.abs(sample.log_probs - log_probs[-len(sample.token_ids) :]).max() < 1e-3
        assert sample.truncated == (sample.token_ids[-1] != words.eos_token_id)
    scored = encode_rows([{"prompt": "w1", "completion_ids": sample.token_ids} for sample in samples], words)
    assert [sample.text for sample in samples] == [row.completion for row in scored]
    assert {sample.truncated for sample in samples} == {True, False}
    assert len({sample.token_ids for sample in samples}) > 20


@pytest.mark.vllm
def test_with_a_seed_vllm_gives_the_same_samples_again_and_greedy_ones_are_those_of_transformers(
    backend, model, words
) -> None:
    sampler = VLLMSampler(backend.llm, words)
    first = sampler.sample(PROMPTS, 3, max_tokens=10, seed=4)
    again = sampler.sample(PROMPTS[:2], 3, max_tokens=10, seed=4)
    fresh = sampler.sample(PROMPTS, 3, max_tokens=10)
    ids = [[sample.token_ids for sample in row] for row in first]
    assert [[sample.token_ids for sample in row] for row in again] == ids[:2]
    assert [[sample.token_ids for sample in row] for row in fresh] != ids
    greedy = {"temperature": 0.0, "max_tokens": 10}
    ours = HFSampler(model, words).sample(PROMPTS, **greedy)
    theirs = sampler.sample(PROMPTS, **greedy)
    assert [row[0].token_ids for row in ours] == [row[0].token_ids for row in theirs]
    with pytest.raises(ImplicitPRMError, match=r"prompt 2 has 4 tokens; with max_tokens=61 .* than the 64"):
        sampler.sample(PROMPTS, max_tokens=61)


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


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[CompletionsServer]:
    """vLLM's own server, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        ("host", "127.0.0.1"),
        ("port", port),
        ("model", folder),
        ("served-model-name", "tiny"),
        ("dtype", "float32"),
        ("max-model-len", 64),
        ("max-num-seqs", 8),
        ("gpu-memory-utilization", 0.2),
    ]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += [part for name, value in options for part in (f"--{name}", str(value))]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(1)
        yield CompletionsServer.connect(f"http://127.0.0.1:{port}/v1", "tiny")
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.vllm
def test_vllms_server_gives_the_log_probs_of_transformers_in_both_forms(server, model, rows) -> None:
    for form in ("echo", "prompt_logprobs"):
        found = OpenAIBackend(server, form=form).token_log_probs(rows, masks(rows))
        for ours, theirs in zip(found, expected(model, rows), strict=True):
            assert np.abs(ours - theirs).max() < 1e-3
    with pytest.raises(ImplicitPRMError, match="row 0 is refused by"):
        OpenAIBackend(server).token_log_probs([[1] * 80], masks([[1] * 80]))


@pytest.mark.vllm
def test_samples_of_vllms_server_say_which_tokens_were_drawn(server, model, words) -> None:
    found = OpenAISampler(server, words).sample(PROMPTS, 4, max_tokens=20, seed=1)
    rows = [
        [*prompt, *sample.token_ids]
        for prompt, row in zip(prompt_ids(PROMPTS, words), found, strict=True)
        for sample in row
    ]
    samples = [sample for row in found for sample in row]
    for sample, log_probs in zip(samples, expected(model, rows), strict=True):
        assert np.abs(sample.log_probs - log_probs[-len(sample.token_ids) :]).max() < 1e-3
        assert sample.truncated == (sample.token_ids[-1] != words.eos_token_id)
    untold = OpenAISampler(server).sample(PROMPTS[:3], 4, max_tokens=20, seed=1)
    assert [[s.token_ids for s in row] for row in untold] == [[s.token_ids for s in row] for row in found[:3]]
    greedy = {"temperature": 0.0, "max_tokens": 10}
    ours = HFSampler(model, words).sample(PROMPTS, **greedy)
    theirs = OpenAISampler(server, words).sample(PROMPTS, **greedy)
    assert [row[0].token_ids for row in ours] == [row[0].token_ids for row in theirs]


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
