from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from implicit_prm.checkpoints import last_checkpoint
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.reference_cache import ReferenceCache, model_digest
from implicit_prm.token_store import TokenStore

STORE = TokenStore.of([("a", [1, 2], [3, 4, 5]), ("b", [1], [6]), ("c", [2], [7, 8])])


def test_rows_are_unknown_until_they_are_written(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path / "made" / "here", "key", STORE)
    cache.create()
    values = cache.open(writable=True)
    assert cache.missing(values).tolist() == [0, 1, 2]
    cache.write(values, 1, np.array([-4.0], np.float32))
    values[0] = -1.0  # a row of which only a part arrived
    assert cache.missing(values).tolist() == [0, 2]
    cache.create()  # leaves what is there
    assert cache.open()[3] == -4
    assert [path.name for path in cache.path.parent.iterdir()] == ["key.npy"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "not there; reference_cache_dir must be on a file system that all processes share"),
        (b"", "cannot be read"),
        (np.zeros(5, np.float32), "has 5 log-probs for 6 tokens; remove it"),
    ],
)
def test_files_that_do_not_fit(content: object, told: str, tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, "key", STORE)
    if isinstance(content, bytes):
        cache.path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(cache.path, content)
    with pytest.raises(ImplicitPRMError, match=told):
        cache.open()


def test_data_and_models_have_digests_of_their_own(tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    renamed = TokenStore(STORE.tokens, STORE.starts, STORE.splits, ("x", "y", "z"))
    moved = TokenStore(STORE.tokens, STORE.starts, STORE.splits - [1, 0, 0], STORE.ids)
    assert STORE.digest() == renamed.digest() != moved.digest()
    model = tiny_llama()
    digests = {model_digest(model), model_digest(tiny_llama(1)), model_digest(tiny_llama(rope_theta=5000.0))}
    assert len(digests) == 3
    assert model_digest(tiny_llama()) in digests
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    assert model_digest(model) not in digests


def test_the_last_checkpoint_is_one_that_all_processes_wrote(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nowhere") is None
    for step in (9, 10, 11):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}" if step < 11 else "{")
        for rank in range(2 if step < 10 else 1):
            (folder / f"rng_state_{rank}.pth").touch()
    assert last_checkpoint(tmp_path, processes=2) == tmp_path / "checkpoint-9"
