"""An implicit PRM by names alone, whatever computes its log-probs: what the command takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.functional import check_beta
from implicit_prm.model import BASE, ImplicitPRM
from implicit_prm.pretrained import check_same_tokenizer, load_model, load_tokenizer

if TYPE_CHECKING:
    from implicit_prm.sampling import Sampler

BACKENDS = ("hf", "vllm", "openai")
SERVER = "http://localhost:8000/v1"

# Two engines share a GPU; vLLM's own default would give all of it to the first.
_SHARE_OF_TWO = 0.45


def load_prm(
    model: str,
    ref: str | None,
    beta: float = 0.05,
    backend: str = "hf",
    options: Mapping[str, Any] | None = None,
) -> ImplicitPRM:
    """An `ImplicitPRM` whose log-probs come from `backend`; `ref` None is no reference.

    hf      transformers; `options` as those of `ImplicitPRM.from_pretrained`
    vllm    an engine for each model in this process; `options` as those of `vllm.LLM`
    openai  completions servers; `options`: url, ref_url (by default the same server), form, concurrency,
            api_key (by default OPENAI_API_KEY of the environment), and tokenizer, where the model's name on
            the server is not that of its tokenizer

    Raises `ImplicitPRMError` for another backend, an option that it does not have, and what cannot be loaded.
    """
    check_beta(beta)
    given = dict(options or {})
    with _told(backend):
        if backend == "hf":
            return ImplicitPRM.from_pretrained(model, ref, beta, **given)
        if ref == BASE:
            raise ImplicitPRMError(
                f'the reference "{BASE}" needs the backend hf; name the base model instead'
            )
        return (_on_vllm if backend == "vllm" else _on_servers)(model, ref, beta, **given)


def load_sampler(model: str, backend: str = "hf", options: Mapping[str, Any] | None = None) -> Sampler:
    """A `Sampler` of the model of this name; `options` as for `load_prm`, of hf also batch_size.

    Raises `ImplicitPRMError` as `load_prm` does.
    """
    from implicit_prm.backends.openai import CompletionsServer
    from implicit_prm.sampling import HFSampler, OpenAISampler, VLLMSampler

    given = dict(options or {})
    with _told(backend):
        if backend == "vllm":
            return VLLMSampler.from_pretrained(model, **given)
        if backend == "openai":
            url, tokenizer = given.pop("url", SERVER), load_tokenizer(given.pop("tokenizer", model))
            return OpenAISampler(CompletionsServer.connect(url, model, **given), tokenizer)
        batch_size = given.pop("batch_size", 64)
        if type(batch_size) is not int:
            raise ImplicitPRMError(f"batch_size must be a whole number, not {batch_size!r}")
        loaded = load_model(model, **given)
        if "device_map" not in given:
            loaded = loaded.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        return HFSampler(loaded, load_tokenizer(model), batch_size=batch_size)


@contextmanager
def _told(backend: str) -> Iterator[None]:
    """Raises `ImplicitPRMError` for a backend that does not exist, and an option that it does not have."""
    if backend not in BACKENDS:
        raise ImplicitPRMError(f"there is no backend {backend!r}; there are: {', '.join(BACKENDS)}")
    try:
        yield
    except TypeError as error:
        if "argument" not in str(error):  # not that of an option that nobody takes
            raise
        raise ImplicitPRMError(f"an option does not fit the backend {backend}: {error}") from error


def _on_vllm(model: str, ref: str | None, beta: float, **options: Any) -> ImplicitPRM:
    from implicit_prm.backends.vllm import VLLMBackend

    tokenizer = load_tokenizer(model)
    if ref is None:
        return ImplicitPRM(VLLMBackend.from_pretrained(model, **options), tokenizer, None, beta)
    check_same_tokenizer(tokenizer, load_tokenizer(ref))
    options.setdefault("gpu_memory_utilization", _SHARE_OF_TWO)
    backends = [VLLMBackend.from_pretrained(name, **options) for name in (model, ref)]
    return ImplicitPRM(backends[0], tokenizer, backends[1], beta)


def _on_servers(
    model: str,
    ref: str | None,
    beta: float,
    *,
    url: str = SERVER,
    ref_url: str | None = None,
    form: Any = "echo",
    tokenizer: str | None = None,
    **options: Any,
) -> ImplicitPRM:
    from implicit_prm.backends.openai import CompletionsServer, OpenAIBackend

    def server(name: str, where: str) -> OpenAIBackend:
        return OpenAIBackend(CompletionsServer.connect(where, name, **options), form=form)

    reference = None if ref is None else server(ref, ref_url or url)
    return ImplicitPRM(server(model, url), load_tokenizer(tokenizer or model), reference, beta)
