"""SmolLM2-135M behind an OpenAI-compatible address of this machine: by vLLM, llama.cpp or transformers."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medxpertqa.reproduce.claims import MODEL
from medxpertqa.reproduce.vllm_server import vllm_chat
from tenfold.data import get

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 4096
NAME = "smollm2-135m"

Complete = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class ChatServer:
    """Gives requests to /chat/completions to `complete` and counts, by first question, those it answered.

    A context manager; `base_url` is what OpenAI clients take. `answered` has how many requests were answered
    for each text of a first message of a user: two turns of one question count twice for one key.
    """

    def __init__(self, complete: Complete) -> None:
        self.complete = complete
        self.answered: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._idle, self._under_way = threading.Condition(), 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """The address, ending in /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def snapshot(self) -> Counter[str]:
        """A copy of `answered` as it is now."""
        with self._lock:
            return Counter(self.answered)

    def finished(self, turns: int) -> int:
        """How many questions have had all their turns answered."""
        return sum(count >= turns for count in self.snapshot().values())

    def wait_until_idle(self) -> None:
        """Return when no request is under way: clients may have gone while the model still writes."""
        with self._idle:
            self._idle.wait_for(lambda: self._under_way == 0)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _count(self, payload: Mapping[str, Any]) -> None:
        with self._lock:
            self.answered[first_question(payload)] += 1

    @contextmanager
    def _busy(self) -> Iterator[None]:
        with self._idle:
            self._under_way += 1
        try:
            yield
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})

            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner._busy():
                    answer = _safe(owner.complete, payload)
                    status = int(answer["error"].get("code") or 500) if "error" in answer else 200
                    self._send(status, answer)
                    if status == 200:
                        owner._count(payload)

            def _send(self, status: int, body: Mapping[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *values: Any) -> None:
                """Say nothing: requests hold questions that no log may have."""

            def handle(self) -> None:
                try:
                    super().handle()
                except (ConnectionError, BrokenPipeError):
                    self.close_connection = True  # the client was killed

        return Handler


def _safe(complete: Complete, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return complete(payload)
    except Exception as error:  # whatever it is, the client is told, and decides
        return {"error": {"message": str(error), "type": type(error).__name__, "code": 500}}


def first_question(payload: Mapping[str, Any]) -> str:
    """The text of the first message of a user in a request."""
    content = next(message["content"] for message in payload["messages"] if message["role"] == "user")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


@contextmanager
def model_server(threads: int = 1) -> Iterator[ChatServer]:
    """Serve the model by `backend()`; raises `DataUnavailableError` if its weights are not to be had."""
    with open_model(threads) as complete, ChatServer(complete) as server:
        yield server


@contextmanager
def open_model(threads: int = 1) -> Iterator[Complete]:
    """The model itself, by `backend()`; raises as `model_server`."""
    folder = get(MODEL)
    if backend() == "vllm":
        with vllm_chat(folder, WEIGHTS, NAME, CONTEXT, threads) as complete:
            yield complete
    else:
        yield (llama_cpp if backend() == "llama.cpp" else transformers_chat)(folder, threads)


def backend() -> str:
    """The first that is installed of "vllm", "llama.cpp" (xllamacpp) and "transformers", which always is."""
    if find_spec("vllm") is not None:
        return "vllm"
    return "llama.cpp" if find_spec("xllamacpp") is not None else "transformers"


def llama_cpp(folder: Path, threads: int) -> Complete:
    """The chat endpoint of llama.cpp's server, called in this process; it applies the model's template."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(folder / WEIGHTS)
    params.model_alias = {NAME}
    params.n_ctx, params.n_parallel = CONTEXT, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port, params.verbosity = 0, -1
    server = xllamacpp.Server(params)

    def complete(payload: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = server.handle_chat_completions({**payload, "stream": False})
        return dict(json.loads(answer) if isinstance(answer, str) else answer)

    return complete


def transformers_chat(folder: Path, threads: int) -> Complete:
    """The same by transformers, with the weights unpacked to 32 bits: slower, one request at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32).eval()
    lock = threading.Lock()

    def complete(payload: Mapping[str, Any]) -> Mapping[str, Any]:
        turns = [
            {"role": message["role"], "content": first_question({"messages": [message | {"role": "user"}]})}
            for message in payload["messages"]
        ]
        encoded: Any = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        length = encoded["input_ids"].shape[1]
        most = int(payload.get("max_tokens") or payload.get("max_completion_tokens") or 128)
        temperature = float(payload.get("temperature") or 0.0)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with lock, torch.no_grad():
            torch.manual_seed(int(payload.get("seed") or 0))
            found = model.generate(**encoded, max_new_tokens=most, **sampling)[0, length:]
        text = tokenizer.decode(found, skip_special_tokens=True)
        reason = "length" if len(found) == most else "stop"
        usage = {
            "prompt_tokens": length,
            "completion_tokens": len(found),
            "total_tokens": length + len(found),
        }
        message = {"role": "assistant", "content": text}
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": NAME,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": usage,
        }

    return complete
