"""The endpoint that the other tests talk to: it must tell what it was sent, and fail as endpoints do."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request

import pytest

from medxpertqa.engine.stub_server import Reply, StubServer, prompt_text, sent_images

PIXELS = b"\x89PNG\r\n\x1a\nnot much"


def post(server, content):
    payload = {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": content}],
    }
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions", json.dumps(payload).encode(), {"Authorization": "Bearer k"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def test_a_reply_has_the_words_counted_and_the_request_is_kept():
    with StubServer(lambda payload: "two words") as server:
        reply = post(server, "and three more")
    assert reply["choices"][0]["message"]["content"] == "two words"
    assert reply["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    assert prompt_text(server.requests[0]) == "s\nand three more"
    assert server.keys == ["Bearer k"]


def test_images_come_back_as_type_and_bytes_in_order():
    url = "data:image/png;base64," + base64.b64encode(PIXELS).decode()
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
    with StubServer() as server:
        post(server, parts)
    assert sent_images(server.requests[0]) == [("image/png", PIXELS)]
    parts[1]["image_url"]["url"] = "https://example.org/a.png"
    with pytest.raises(ValueError, match="data URI"):
        sent_images({"messages": [{"role": "user", "content": parts}]})


def test_faults_are_a_status_or_a_dropped_connection():
    replies = iter([Reply("slow down", status=429), Reply(drop=True)])
    with StubServer(lambda payload: next(replies)) as server:
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(server, "x")
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            post(server, "x")
    assert refused.value.code == 429
    assert json.load(refused.value)["error"]["message"] == "slow down"
