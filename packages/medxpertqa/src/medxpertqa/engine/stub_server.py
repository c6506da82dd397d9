"""A small OpenAI-compatible endpoint on this machine, for tests, rehearsals and measurements of harnesses."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the endpoint answers to one request: a text, or a fault.

    `status` other than 200 gives an error with `text` as its message; `drop` closes the connection without
    an answer; `reasoning` goes where providers put it, beside the content.
    """

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    reasoning: str | None = None
    drop: bool = False


Answer = Callable[[Mapping[str, Any]], "str | Reply"]


def prompt_text(payload: Mapping[str, Any]) -> str:
    """All text of the messages of a request, a message a line."""
    return "\n".join(
        part["text"] for message in payload["messages"] for part in _parts(message) if part["type"] == "text"
    )


def sent_images(payload: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """The (MIME type, bytes) of every image of a request, in order; ValueError if one is no data URI."""
    found = []
    for message in payload["messages"]:
        for part in _parts(message):
            if part["type"] != "image_url":
                continue
            head, comma, data = part["image_url"]["url"].partition(";base64,")
            if not comma or not head.startswith("data:"):
                raise ValueError("an image was not sent as a base64 data URI")
            found.append((head.removeprefix("data:"), base64.b64decode(data, validate=True)))
    return found


class StubServer:
    """Answers /chat/completions by `answer(payload)` after `delay` seconds; a context manager.

    `requests` keeps the payloads in the order in which they came, `keys` the Authorization headers. The
    server runs in a thread of its own on a free port of 127.0.0.1; `base_url` ends in /v1. `context` is what
    it says its models can read, in vLLM's words, by name; a number is its only model's.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        delay: float = 0.0,
        port: int = 0,
        context: int | dict[str, int] | None = None,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.most_at_once = 0
        self._answer: Answer = answer or (lambda payload: "The answer is (A).")
        self._delay, self._port = delay, port
        self._contexts = context if isinstance(context, dict) else {"stub": context}
        self._at_once, self._numbers = 0, itertools.count()
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """The address that OpenAI clients take."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> StubServer:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=512)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client hung up, or the server stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request of a connection; False to close it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not first.split()[1].endswith("/chat/completions"):
            served = [
                {"id": name, "object": "model", "max_model_len": limit}
                for name, limit in self._contexts.items()
            ]
            return await _send(writer, 200, {"object": "list", "data": served})
        payload = json.loads(body)
        self.requests.append(payload)
        self.keys.append(headers.get("authorization", ""))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self._delay)
            reply = self._answer(payload)
        finally:
            self._at_once -= 1
        reply = Reply(reply) if isinstance(reply, str) else reply
        if reply.drop:
            return False
        if reply.status != 200:
            error = {"message": reply.text or "stub", "type": "stub_error", "code": str(reply.status)}
            return await _send(writer, reply.status, {"error": error})
        return await _send(writer, 200, self._completion(payload, reply))

    def _completion(self, payload: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.reasoning is not None:
            message["reasoning_content"] = reply.reasoning
        n_in, n_out = len(prompt_text(payload).split()), len(reply.text.split())
        return {
            "id": f"stub-{next(self._numbers)}",
            "object": "chat.completion",
            "created": 0,
            "model": payload.get("model", "stub"),
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
        }


async def _send(writer: asyncio.StreamWriter, status: int, body: Mapping[str, Any]) -> bool:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} stub\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return True


def _parts(message: Mapping[str, Any]) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
