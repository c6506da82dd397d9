"""After a sync vLLM writes with the trainer's weights, in this process and on a server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError
from implicit_prime.rollout import engine_for, vllm_server
from implicit_prime.rollout.base import RolloutEngine, Rollouts, Sampling, log_prob_drift
from implicit_prime.rollout.vllm_colocate import VLLMEngine
from implicit_prime.rollout.vllm_server import VLLMServerEngine
from implicit_prime.rollout.weights import whole_weights

PROMPTS = [(5, 6, 7), (8,), (9, 10)]


def expected(model, rollouts: Rollouts) -> list[np.ndarray]:
    """By definition: a row at a time, the log-softmax of all logits."""
    each = len(rollouts.ids) // len(PROMPTS)
    found = []
    for at, ids in enumerate(rollouts.ids):
        prompt = PROMPTS[at // each]
        with torch.no_grad():
            table = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        found.append(table.gather(1, torch.tensor(ids)[:, None])[:, 0].numpy())
    return found


def a_training_step(model) -> None:
    """One that is felt: all weights move."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = torch.arange(4, 44).reshape(4, 10)
    model(ids, labels=ids).loss.backward()
    optimizer.step()


def check_syncs(engine: RolloutEngine, model) -> None:
    engine.sync_weights(model)
    sampling = Sampling(max_tokens=20, seed=1)
    first = engine.generate(PROMPTS, 5, sampling)
    assert len(first.ids) == 15
    assert log_prob_drift(expected(model, first), first.log_probs) < 1e-4
    a_training_step(model)
    stale = engine.generate(PROMPTS, 5, sampling)
    assert stale.ids == first.ids
    assert log_prob_drift(expected(model, stale), stale.log_probs) > 0.1
    engine.sync_weights(model)
    fresh = engine.generate(PROMPTS, 5, sampling)
    assert fresh.ids != first.ids
    assert log_prob_drift(expected(model, fresh), fresh.log_probs) < 1e-4
    for ids, cut in zip(fresh.ids, fresh.truncated, strict=True):
        assert cut == (ids[-1] != 1)


@pytest.mark.vllm
@pytest.mark.parametrize("tied", [True, False])
def test_after_a_sync_the_engines_log_probs_are_the_trainers(tiny_llama, words, tied: bool) -> None:
    model = tiny_llama(tie_word_embeddings=tied)
    options: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 8, "gpu_memory_utilization": 0.2}
    engine = VLLMEngine.from_model(model, words, max_length=64, **options)
    assert isinstance(engine, RolloutEngine)
    with pytest.raises(PrimeError, match="no weights: call sync_weights"):
        engine.generate(PROMPTS, 1, Sampling(max_tokens=2))
    check_syncs(engine, model)
    engine.rest()  # no sleep mode on CPUs: the weights stay
    engine.generate(PROMPTS, 1, Sampling(max_tokens=2))


@pytest.fixture(scope="module")
def served(tiny_llama, words, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server of a model with other weights."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(seed=7).save_pretrained(folder)
    words.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"--host 127.0.0.1 --port {port} --dtype float32 --max-model-len 64 --max-num-seqs 8"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += [*settings.split(), "--gpu-memory-utilization", "0.2", "--enforce-eager"]
    process = subprocess.Popen(
        command, env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"}, start_new_session=True
    )
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.vllm
def test_after_a_sync_through_a_folder_the_servers_log_probs_are_the_trainers(
    served: str, tiny_llama, words, tmp_path: Path
) -> None:
    check_syncs(VLLMServerEngine(served, words, sync_folder=tmp_path), tiny_llama())


# ---- without vLLM


class Recorder:
    """The part of a `vllm.LLM` in this process that an engine calls, writing down what is called."""

    def __init__(self, tied: bool = True) -> None:
        config = SimpleNamespace(logprobs_mode="raw_logprobs", max_model_len=64, enable_sleep_mode=True)
        config.hf_config = SimpleNamespace(tie_word_embeddings=tied)
        self.llm_engine = SimpleNamespace(
            model_executor=object(), vllm_config=SimpleNamespace(model_config=config)
        )
        self.calls: list[Any] = []

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(("wake_up", *tags))

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.weights = {name: value.clone() for name, value in kwargs["weights_iterator"]}
        self.calls.append(method)


def test_memory_is_given_back_after_a_step_and_weights_come_before_the_cache(tiny_llama, words) -> None:
    llm, model = Recorder(), tiny_llama()
    engine = VLLMEngine(llm, words)
    engine.sync_weights(model)
    engine.rest()
    engine.rest()
    with pytest.raises(PrimeError, match="no weights: call sync_weights"):
        engine.generate(PROMPTS, 1, Sampling(max_tokens=2))
    engine.sync_weights(model)
    assert llm.calls == [
        "reload_weights",
        "reset_prefix_cache",
        ("sleep", 2),
        ("wake_up", "weights"),
        "reload_weights",
        ("wake_up", "kv_cache"),
        "reset_prefix_cache",
    ]
    assert llm.weights.keys() == dict(model.named_parameters()).keys()


def test_tied_weights_go_to_an_engine_that_does_not_tie_them_under_both_names(tiny_llama, words) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    for tied in (True, False):
        llm = Recorder(tied)
        VLLMEngine(llm, words).sync_weights(model)
        assert ("lm_head.weight" in llm.weights) is not tied
    assert torch.equal(llm.weights["lm_head.weight"], model.model.embed_tokens.weight)


def test_an_engine_in_another_process_is_refused(words) -> None:
    llm = Recorder()
    del llm.llm_engine.model_executor
    with pytest.raises(PrimeError, match=r"process of its own.*VLLM_ENABLE_V1_MULTIPROCESSING=0"):
        VLLMEngine(llm, words)


class Server(ThreadingHTTPServer):
    """Answers as vLLM's server does, keeping what it is asked and the weights that it is to load.

    missing  a path that it does not have
    page     what it answers to everything, where it is another server
    """

    def __init__(self, missing: str = "", page: str | None = None) -> None:
        asked, loaded, files = [], {}, []
        self.asked, self.loaded, self.files = asked, loaded, files

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body: dict[str, Any] | None) -> None:
                asked.append((self.path, body))
                if self.path == missing:
                    self.send_error(404)
                    return
                if self.path == "/collective_rpc" and body is not None:
                    loaded.clear()
                    files[:] = sorted(Path(body["kwargs"]["weights_path"]).glob("*.safetensors"))
                    for file in files:
                        loaded.update(load_file(file))
                answers = {"/v1/models": {"data": [{"id": "tiny"}]}, "/reset_prefix_cache": {"success": True}}
                self.send_response(200)
                self.end_headers()
                told = json.dumps(answers.get(self.path, {})) if page is None else page
                self.wfile.write(told.encode())

            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def serve() -> Iterator[Any]:
    running = []

    def start(**options: str) -> Server:
        running.append(Server(**options))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_the_folder_has_all_weights_of_now_in_files_of_bounded_size(
    tiny_llama, words, serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "_FILE_BYTES", 40_000)
    server, model = serve(), tiny_llama(tie_word_embeddings=True)
    config = PrimeConfig(
        output_dir="run", rollout="vllm_server", vllm_server_url=server.url, vllm_sync_folder=str(tmp_path)
    )
    engine = engine_for(config, model, words)
    for _ in range(2):
        engine.sync_weights(model)
        expected_weights = dict(model.named_parameters())
        assert server.loaded.keys() == expected_weights.keys()
        assert all(torch.equal(server.loaded[name], value) for name, value in expected_weights.items())
        assert len(server.files) > 2
        a_training_step(model)
    assert [path for path, _ in server.asked] == ["/v1/models"] + [
        "/collective_rpc",
        "/reset_prefix_cache",
    ] * 2
    assert server.asked[1][1]["method"] == "reload_weights"


def test_a_server_without_the_development_endpoints_is_told_how_to_start(
    tiny_llama, words, serve, tmp_path
) -> None:
    engine = VLLMServerEngine(serve(missing="/collective_rpc").url, words, sync_folder=tmp_path)
    with pytest.raises(PrimeError, match=r"no http.*/collective_rpc: start it with VLLM_SERVER_DEV_MODE=1"):
        engine.sync_weights(tiny_llama())


def test_no_server_and_no_way_for_the_weights_are_named(words, serve) -> None:
    with pytest.raises(PrimeError, match=r"no answer from .*is the server up"):
        VLLMServerEngine("http://127.0.0.1:9/v1", words)
    if not torch.cuda.is_available():
        with pytest.raises(PrimeError, match=r"needs CUDA here.*vllm_sync_folder"):
            VLLMServerEngine(serve().url, words)


@pytest.mark.parametrize("url", ["localhost/v1", "localhost:9/v1", "http://127.0.0.1:port/v1"])
def test_what_is_no_address_is_told(words, url: str) -> None:
    with pytest.raises(PrimeError, match=r"no answer .*is the server up, and vllm_server_url right"):
        VLLMServerEngine(url, words)


@pytest.mark.parametrize("page", ["<html></html>", "[]", "{}", '{"data": []}', '{"data": {"id": 1}}'])
def test_a_server_that_is_not_vllms_is_told(words, serve, page: str) -> None:
    server = serve(page=page)
    with pytest.raises(PrimeError, match="is the server up, and vllm_server_url right"):
        VLLMServerEngine(server.url, words)
    with pytest.raises(PrimeError, match="vLLM"):
        vllm_server._reset_prefix_cache(server.url.removesuffix("/v1"))


def test_over_nccl_all_weights_are_announced_before_they_are_streamed(
    tiny_llama, words, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's client needs a GPU; here stands what it is given."""
    updates: list[Any] = []
    client = SimpleNamespace(
        update_named_params=lambda metadata, named: updates.append((metadata, dict(named)))
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(vllm_server, "_trl_client", lambda root: client)
    engine, model = VLLMServerEngine(serve().url, words), tiny_llama()
    monkeypatch.undo()
    engine.sync_weights(model)
    a_training_step(model)
    engine.sync_weights(model)
    for metadata, streamed in updates:
        assert metadata == [(name, "float32", list(value.shape)) for name, value in whole_weights(model)]
        assert list(streamed) == [name for name, _, _ in metadata]
    assert torch.equal(updates[1][1]["lm_head.weight"], model.lm_head.weight)


def test_without_vllm_the_extra_that_brings_it_is_named(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("implicit_prime.rollout.choice.find_spec", lambda name: None)
    config = PrimeConfig(output_dir="run", rollout="vllm_colocate")
    with pytest.raises(PrimeError, match=r"pip install 'implicit-prime\[vllm\]'"):
        engine_for(config, torch.nn.Identity(), words)
