"""Models by folder and by hub id: taken where they are, and told at once where they are not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from memoryformer import MemoryFormerConfig, MemoryFormerError
from memoryformer.hub import find_model, load_config


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network: nobody listens at the endpoint."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "cache"


def test_a_folder_is_taken(cache: Path, tmp_path: Path) -> None:
    assert find_model(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("source", ["./nothere", "/no/such/folder", "runs/tiny/modle", "nothere/"])
def test_a_path_that_is_no_folder_is_told_without_the_hub(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(MemoryFormerError, match=f"there is no folder {source}, and it is no hub id"):
        find_model(source)


@pytest.mark.parametrize("source", ["nothere", "me/nothere"])
def test_without_a_network_a_name_is_told_at_once(cache: Path, source: str) -> None:
    start = time.monotonic()
    with pytest.raises(
        MemoryFormerError, match=rf"no folder {source}, and the hub has no such .*\(\w+Error: "
    ):
        find_model(source)
    assert time.monotonic() - start < 10  # transformers' own retries take 24 s for each of its files


def test_what_the_hub_has_is_left_to_transformers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: object())
    assert find_model("me/there") == "me/there"


def test_without_a_network_the_cache_is_taken(cache: Path) -> None:
    """As a download of me/tiny leaves it."""
    repository = cache / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456")
    MemoryFormerConfig.preset("tiny").save_pretrained(repository / "snapshots" / "0123456")
    assert load_config("me/tiny").hidden_size == 512
