"""The model behind vLLM's OpenAI-compatible server, in a process of its own, where vLLM is installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 600
"""Seconds until the server must answer: on a busy processor, vLLM takes minutes to start."""


@contextmanager
def vllm_chat(
    folder: Path, weights: str, name: str, context: int, threads: int
) -> Iterator[Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
    """Serve GGUF weights, unpacked to 16 bits, and give what sends a request to them; raises as `served`."""
    with tempfile.TemporaryDirectory() as unpacked:
        unpack(folder, weights, unpacked)
        with served(unpacked, name, context, threads) as address:
            yield sender(f"{address}/chat/completions")


@contextmanager
def served(
    folder: str | Path, name: str, context: int, threads: int, dtype: str = "bfloat16"
) -> Iterator[str]:
    """Serve the model in a folder, and give the address of its API.

    Raises `RuntimeError` if the server ends, or does not answer in ten minutes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--model": str(folder),
        "--served-model-name": name,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--max-model-len": str(context),
        "--generation-config": "vllm",
        "--dtype": dtype,
    }
    words = [word for pair in options.items() for word in pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *words],
        env={"VLLM_CPU_KVCACHE_SPACE": "1"} | os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def unpack(folder: Path, weights: str, target: str) -> None:
    """Write GGUF weights and their tokenizer in the form that vLLM reads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=weights, dtype=torch.bfloat16)
    model.hf_quantizer.remove_quantization_config(model)  # the weights are plain by now, and may be saved
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=weights).save_pretrained(target)


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the address answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended with code {process.returncode} before it answered")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"vLLM did not answer within {PATIENCE} s")


def sender(url: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """What posts a request as JSON and returns the answer, or what the server says is wrong."""

    def send(payload: Mapping[str, Any]) -> Mapping[str, Any]:
        request = urllib.request.Request(
            url, json.dumps(payload).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as reply:
                return dict(json.load(reply))
        except urllib.error.HTTPError as error:
            return {"error": {"message": error.read().decode("utf-8", "replace"), "code": error.code}}

    return send
