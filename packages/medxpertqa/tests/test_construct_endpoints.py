"""The construction's models behind an endpoint: what is sent, tried again, shown and kept."""

from __future__ import annotations

import hashlib
import json

import pytest

from medxpertqa.construct.endpoints import EndpointModel
from medxpertqa.construct.pipeline import Item, run_pipeline
from medxpertqa.construct.settings import BuildSettings, ModelSettings
from medxpertqa.engine.stub_server import Reply, StubServer, sent_images
from medxpertqa.errors import DataError, MedXpertQAError
from medxpertqa.images import ImageStore
from medxpertqa.synthetic import synthetic_images, synthetic_questions

KEY = "sk-a-secret-key"
ASKED = [{"role": "user", "content": "Which?"}]
QUESTIONS, IMAGES = synthetic_questions("mm"), synthetic_images()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def model(server, **changes):
    return EndpointModel(ModelSettings(model="m", base_url=server.base_url), **changes)


def test_messages_parameters_and_key_go_out_and_a_busy_endpoint_is_asked_again():
    replies = iter([Reply("slow down", status=429), "A reply."])
    with StubServer(lambda payload: next(replies)) as server:
        asked = model(server)
        assert asked(ASKED, temperature=0.7, max_tokens=9) == "A reply."
    assert asked.name == f"m at {server.base_url}"
    assert (
        server.requests
        == [
            {"model": "m", "messages": ASKED, "temperature": 0.7, "max_tokens": 9},
        ]
        * 2
    )
    assert set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply("no such key " + KEY, status=401), "AuthenticationError"),
        (Reply("", reasoning="hm"), "empty reply"),
    ],
)
def test_a_failure_is_told_with_the_endpoint_and_without_the_key(reply, problem):
    with StubServer(lambda payload: reply) as server, pytest.raises(MedXpertQAError, match=problem) as raised:
        model(server)(ASKED)
    assert server.base_url in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_remote_endpoint_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MedXpertQAError, match="set OPENAI_API_KEY"):
        EndpointModel(ModelSettings(model="m", base_url="https://api.example.org/v1"))


def ai_filter(folder, server, images, questions=QUESTIONS[:3]):
    voter = {"model": "m", "base_url": server.base_url}
    settings = BuildSettings.model_validate({"ai": {"basic": [voter], "samples": 1}})
    items = [Item(question) for question in questions]
    return run_pipeline(items, settings, folder, lambda m: EndpointModel(m, images), images)


def test_the_ai_filter_shows_images_and_its_ledger_keeps_their_hash_alone(tmp_path):
    with StubServer(lambda payload: f"The answer is {QUESTIONS[1].label}.") as server:
        build = ai_filter(tmp_path, server, ImageStore(IMAGES))
        sent = [sent_images(payload) for payload in server.requests]
        assert sent == [[ImageStore(IMAGES)(name) for name in q.images] for q in QUESTIONS[:3]]
        again = ai_filter(tmp_path, server, ImageStore(IMAGES))
        assert (build.new_calls, again.new_calls) == (3, 0)
        changed = ai_filter(tmp_path, server, ImageStore(IMAGES | {"MM-0-a.jpeg": IMAGES["MM-5-a.png"]}))
        assert changed.new_calls == 1
    # The voter always says one letter: the questions whose label it is are too easy.
    assert {q.id for q in build.questions} == {q.id for q in QUESTIONS[:3] if q.label != QUESTIONS[1].label}
    ledger = (tmp_path / "calls.jsonl").read_text()
    assert "base64" not in ledger
    parts = json.loads(ledger.splitlines()[0])["messages"][-1]["content"]
    digest = hashlib.sha256(IMAGES["MM-0-a.jpeg"]).hexdigest()
    assert parts[1] == {"type": "image", "image": "MM-0-a.jpeg", "sha256": digest}


def test_an_image_that_is_not_there_stops_the_filter_before_anything_is_asked(tmp_path):
    with StubServer() as server:
        with pytest.raises(DataError, match=r'MM-0 has images, .*images = "images\.zip"'):
            ai_filter(tmp_path, server, None)
        lacking = {name: data for name, data in IMAGES.items() if name != "MM-2-b.jpeg"}
        with pytest.raises(DataError, match=r"MM-2: there is no image MM-2-b\.jpeg"):
            ai_filter(tmp_path, server, ImageStore(lacking))
    assert not server.requests
