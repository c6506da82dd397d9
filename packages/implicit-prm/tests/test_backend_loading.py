"""Implicit PRMs by names alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from implicit_prm.backends.loading import load_prm
from implicit_prm.errors import ImplicitPRMError

ROWS = [{"prompt": "what is 2+2?", "completion": "so\n\nthe answer is 4."}]


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any], tokenizer: Any
) -> list[str]:
    """The folders of a model and of its reference."""
    folders = [tmp_path_factory.mktemp(name) for name in ("model", "reference")]
    for seed, folder in enumerate(folders):
        tiny_llama(seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return [str(folder) for folder in folders]


def test_transformers_is_the_backend_unless_another_is_named(models: list[str]) -> None:
    (with_ref,) = load_prm(*models, beta=0.5).score(ROWS)
    (ours,), (theirs,) = (load_prm(name, None, beta=0.5).score(ROWS) for name in models)
    assert with_ref.token_rewards == pytest.approx(ours.token_rewards - theirs.token_rewards, abs=1e-6)
    assert load_prm(models[0], None, options={"dtype": "bfloat16"}).model.dtype.itemsize == 2


def test_servers_are_asked_by_the_models_names(models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    connected = []

    def connect(url: str, name: str, **options: Any) -> Any:
        connected.append((url, name, options))

    monkeypatch.setattr("implicit_prm.backends.openai.CompletionsServer.connect", connect)
    options = {"ref_url": "http://b/v1", "tokenizer": models[0], "concurrency": 4}
    prm = load_prm("served", "start", 0.05, "openai", options)
    assert connected == [
        ("http://b/v1", "start", {"concurrency": 4}),
        ("http://localhost:8000/v1", "served", {"concurrency": 4}),
    ]
    assert prm.model.form == "echo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "b", 0.05, "onnx"), "there is no backend 'onnx'; there are: hf, vllm, openai"),
        (("a", "b", 0.0), "beta must be above 0, not 0.0"),
        (("a", "base", 0.05, "vllm"), 'the reference "base" needs the backend hf'),
        (("a", "b", 0.05, "openai", {"form": "x", "port": 80}), "an option does not fit the backend openai"),
    ],
)
def test_what_does_not_fit_is_told_before_a_model_is_loaded(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ImplicitPRMError, match=message):
        load_prm(*arguments)
