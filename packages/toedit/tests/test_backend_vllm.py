"""vLLM as the prior: the same scores and edits as transformers, in any order of requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from toedit import EditConfig, Editor, ToEditError, ToEditWarning
from toedit.backends import backend_class
from toedit.windows import Window

WORDS = ["hello", "world,", "the", "cat", "in", "the", "hat", "sat", "on", "mat", "😀", "<|im_end|>"]
# So that vLLM's default limit of 20 would not do.
CFG = EditConfig(threshold=0.005, top_k=24, temperature=3.0, window=4096, overlap=32, seed=1)
ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 128,
    "max_num_seqs": 8,
    "disable_log_stats": True,
    "gpu_memory_utilization": 0.2,  # of the machine's memory, which others use too
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama, tokenizer: PreTrainedTokenizerFast) -> Path:
    path = tmp_path_factory.mktemp("prior")
    # vLLM's attention on CPUs wants heads of at least 32.
    model = tiny_llama(
        hidden_size=64, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128
    )
    model.lm_head.weight.data *= 2  # so that some tokens are likely
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, length)) for length in (330, 200, 90, 20, 5, 1)]


@pytest.fixture(scope="module")
def vllm_editor(folder: Path) -> Editor:
    with pytest.warns(ToEditWarning, match="prefix caching is turned off"):
        return Editor.from_pretrained(str(folder), CFG, backend="vllm", enable_prefix_caching=True, **ENGINE)


@pytest.mark.vllm
def test_vllm_and_transformers_give_the_same_scores_and_edits(vllm_editor, folder, texts) -> None:
    ours = Editor.from_pretrained(str(folder), CFG.replace(window=127))
    assert vllm_editor.window == 127  # one less than max_model_len
    assert vllm_editor.backend.max_logprobs == 24
    differences, tokens = [], 0
    for a, b in zip(ours.score(texts), vllm_editor.score(texts), strict=True):
        differences.append(np.nanmax(np.abs(a.log_p - b.log_p), initial=0.0))
        tokens += len(a.ids)
        assert (np.isnan(a.log_p) == np.isnan(b.log_p)).all()
        near = np.abs(np.exp(a.log_p) - CFG.threshold) < 1e-4
        assert set(np.setxor1d(a.scores.rows, b.scores.rows)) <= set(np.flatnonzero(near))
    assert tokens >= 1024
    assert max(differences) < 1e-3
    ids = range(len(texts))
    edited = vllm_editor.edit_batch(texts, ids)
    expected = ours.edit_batch(texts, ids)
    assert [result.text for result in edited] == [result.text for result in expected]
    assert sum(result.n_changed for result in edited) > 10


@pytest.mark.vllm
def test_vllm_scores_do_not_depend_on_the_requests_before(vllm_editor, texts) -> None:
    first = vllm_editor.score(texts)
    again = vllm_editor.score(texts[::-1] + texts)
    for a, b in zip(first[::-1] + first, again, strict=True):
        assert a.log_p == pytest.approx(b.log_p, abs=1e-5, nan_ok=True)
        assert a.scores.rows.tolist() == b.scores.rows.tolist()


@pytest.mark.vllm
def test_vllm_gives_exactly_k_top_tokens_and_none_where_none_are_wanted(vllm_editor) -> None:
    window = Window(np.arange(3, 60), 5, 0)
    (scores,) = vllm_editor.backend.score([window], CFG.replace(threshold=1e-40, top_k=3))
    assert scores.rows.tolist() == list(range(5, 57))
    assert scores.top_ids.shape == scores.top_log_p.shape == (52, 3)
    assert (np.diff(scores.top_log_p, axis=1) <= 0).all()
    assert all(len(set(row)) == 3 for row in scores.top_ids.tolist())
    (off,) = vllm_editor.backend.score([window], EditConfig(threshold=2.0, top_k=3))
    assert len(off.rows) == 0
    assert off.log_p == pytest.approx(scores.log_p, abs=1e-5, nan_ok=True)
    with pytest.raises(ToEditError, match="top_k is 30, but the engine gives 24"):
        vllm_editor.backend.score([window], CFG.replace(top_k=30))


class Settings:
    """The part of a `vllm.LLM` that tells how it was built."""

    def __init__(self, caching):
        self.llm_engine = self.vllm_config = self.cache_config = self
        self.enable_prefix_caching = caching


def test_an_engine_with_prefix_caching_is_refused() -> None:
    with pytest.raises(ToEditError, match="enable_prefix_caching=False"):
        backend_class("vllm")(Settings(caching=True))
