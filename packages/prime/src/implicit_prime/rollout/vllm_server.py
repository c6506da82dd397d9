"""Rollouts by a vLLM server: on other GPUs or machines than the trainer's."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor, nn

from implicit_prime.errors import MissingExtraError, PrimeError
from implicit_prime.rollout.base import Rollouts, Sampling
from implicit_prime.rollout.weights import whole_weights
from implicit_prm.backends.openai import CompletionsServer
from implicit_prm.sampling import OpenAISampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILE_BYTES = 4 * 2**30  # what the trainer holds in memory of the whole weights
_RELOAD_SECONDS = 1800


class _Transfer(Protocol):
    """Brings weights to the server; all processes go through all weights, the main one sends them."""

    def send(self, model: nn.Module) -> None: ...


class VLLMServerEngine:
    """A `RolloutEngine` on a vLLM server, started as

        VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}'

    url          the server's address, such as "http://localhost:8000/v1"
    tokenizer    the policy's
    sync_folder  a folder that trainer and server both see: weights go through files in it, and the server
                 needs no --weight-transfer-config; None: over NCCL by TRL's client, for which both need CUDA

    Every process asks the server for its own responses; only the main one sends weights.

    Raises `PrimeError` for a server that does not answer or lacks what the weights need.
    """

    def __init__(
        self, url: str, tokenizer: PreTrainedTokenizerBase, *, sync_folder: str | Path | None = None
    ) -> None:
        url = url.rstrip("/")
        root = url.removesuffix("/v1")
        self._sampler = OpenAISampler(CompletionsServer.connect(f"{root}/v1", _served(root)), tokenizer)
        self._transfer: _Transfer = (
            _ByNCCL(root) if sync_folder is None else _ByFolder(root, Path(sync_folder))
        )

    def sync_weights(self, model: nn.Module) -> None:
        """See `RolloutEngine.sync_weights`. Raises `PrimeError` for a server that does not take them."""
        self._transfer.send(model)
        PartialState().wait_for_everyone()

    def generate(self, prompt_ids: Sequence[Sequence[int]], n: int, sampling: Sampling) -> Rollouts:
        """See `RolloutEngine.generate`; raises `ImplicitPRMError` also for a server that fails."""
        return Rollouts.from_samples(
            self._sampler.sample(
                prompt_ids,
                n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed,
            )
        )

    def rest(self) -> None:
        """Nothing to give back: the server has a device of its own."""


class _ByFolder:
    """By files: slower than NCCL, and works wherever both see one disk.

    But not for models with tied embeddings on CPUs, whose head vLLM 0.32 does not renew on a reload; the
    drift of the log-probs shows it.
    """

    def __init__(self, root: str, folder: Path) -> None:
        self._root = root
        self._folder = folder.resolve() / "policy-weights"  # of our own, for the server reads all files in it

    def send(self, model: nn.Module) -> None:
        weights = whole_weights(model)
        if not PartialState().is_main_process:
            for _ in weights:
                pass
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for number, part in enumerate(_parts(weights)):
            save_file(part, self._folder / f"model-{number:05d}.safetensors")
        _ask(
            f"{self._root}/collective_rpc",
            {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}},
        )
        _reset_prefix_cache(self._root)


class _ByNCCL:
    """By TRL's client, which joins the server's workers in a process group."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._metadata: list[tuple[str, str, list[int]]] = []
        if not torch.cuda.is_available():
            raise PrimeError(
                "weights go to a vLLM server over NCCL, which needs CUDA here; without it set "
                "vllm_sync_folder to a folder that the server sees too"
            )
        if PartialState().is_main_process:
            self._client = _trl_client(root)

    def send(self, model: nn.Module) -> None:
        # The server must know all tensors before the first one comes. They do not change from step to step.
        if not self._metadata:
            self._metadata = [
                (name, str(value.dtype).removeprefix("torch."), list(value.shape))
                for name, value in whole_weights(model)
            ]
        weights = whole_weights(model)
        if not PartialState().is_main_process:
            for _ in weights:
                pass
            return
        self._client.update_named_params(self._metadata, weights)
        _reset_prefix_cache(self._root)


def _trl_client(root: str) -> Any:
    try:
        from trl.generation.vllm_client import VLLMClient
    except ImportError as error:
        raise MissingExtraError(
            "weights go to a vLLM server by TRL's client: pip install 'implicit-prime[trl,vllm]', or set "
            "vllm_sync_folder"
        ) from error
    try:
        client = VLLMClient(base_url=root)
        client.init_communicator(device=PartialState().device)
    except (ImportError, RuntimeError, OSError) as error:  # its own messages say what to do
        raise PrimeError(str(error)) from error
    return client


def _parts(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The weights on the CPU, about `_FILE_BYTES` at a time."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, value in weights:
        part[name] = value.cpu().contiguous()
        size += value.nbytes
        if size >= _FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part


def _served(root: str) -> str:
    """The name of the model that the server has."""
    url = f"{root}/v1/models"
    try:
        return str(_ask(url)["data"][0]["id"])
    except (PrimeError, LookupError, TypeError) as error:
        told = error if isinstance(error, PrimeError) else f"{url} names no model, as vLLM's server would"
        raise PrimeError(f"{told}; is the server up, and vllm_server_url right?") from error


def _reset_prefix_cache(root: str) -> None:
    """What the cache holds was computed with the weights of before."""
    url = f"{root}/reset_prefix_cache"
    answer = _ask(url, {})
    if not isinstance(answer, dict) or "success" not in answer:
        raise PrimeError(f"{url} answers {answer!r:.80} and not, as vLLM's server would, whether it is done")
    if not answer["success"]:
        raise PrimeError(
            f"{root} could not empty its prefix cache, as requests are still under way; "
            "is the server used by others too?"
        )


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The server's answer, read as JSON: by POST with a `body`, else by GET."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_RELOAD_SECONDS) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise PrimeError(
                f"the server has no {url}: start it with VLLM_SERVER_DEV_MODE=1 in its environment"
            ) from error
        raise PrimeError(
            f"{url} failed with {error.code}: {error.read().decode(errors='replace')}"
        ) from error
    except OSError as error:
        raise PrimeError(f"no answer from {url}: {error}") from error
    except (ValueError, HTTPException) as error:  # no address, no JSON, or no HTTP
        raise PrimeError(f"no answer of a vLLM server from {url}: {error}") from error
