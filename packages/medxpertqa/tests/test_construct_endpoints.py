"""The construction's models behind an endpoint: what is sent, tried again, shown and kept."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from medxpertqa.construct.endpoints import EndpointModel
from medxpertqa.construct.ledger import Ledger
from medxpertqa.construct.pipeline import Item, run_pipeline
from medxpertqa.construct.settings import BuildSettings, ModelSettings
from medxpertqa.engine.stub_server import Reply, StubServer, prompt_text, sent_images
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
        (Reply("no such key " + KEY, status=401), r"AuthenticationError \(HTTP 401\)"),
        (Reply("too long " + KEY, status=400), r"BadRequestError \(HTTP 400\)"),
    ],
)
def test_a_failure_is_told_with_the_endpoint_and_without_the_key(reply, problem):
    with StubServer(lambda payload: reply) as server, pytest.raises(MedXpertQAError, match=problem) as raised:
        model(server)(ASKED)
    assert server.base_url in str(raised.value)
    assert KEY not in str(raised.value)


def test_what_a_filter_left_of_a_reply_is_no_reply():
    with StubServer(lambda payload: Reply("I cannot help with A.", finish_reason="content_filter")) as server:
        assert model(server)(ASKED) == ""


def test_a_remote_endpoint_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MedXpertQAError, match="set OPENAI_API_KEY"):
        EndpointModel(ModelSettings(model="m", base_url="https://api.example.org/v1"))


def ai_filter(folder, server, images=None, questions=QUESTIONS[:3], samples=1, **voter):
    voter = {"model": "m", "base_url": server.base_url, **voter}
    settings = BuildSettings.model_validate({"ai": {"basic": [voter], "samples": samples}})
    items = [Item(question) for question in questions]
    return run_pipeline(items, settings, folder, lambda m: EndpointModel(m, images), images)


def test_the_ai_filter_shows_images_and_its_ledger_keeps_their_hash_alone(tmp_path):
    with StubServer(lambda payload: f"The answer is {QUESTIONS[1].label}.") as server:
        build = ai_filter(tmp_path, server, ImageStore(IMAGES), max_connections=1)
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


TEXTS = synthetic_questions("text")


def test_as_many_requests_are_under_way_as_the_settings_say(tmp_path):
    with StubServer(delay=0.05) as server:
        build = ai_filter(tmp_path, server, questions=TEXTS, samples=2, max_connections=4)
    assert server.most_at_once == 4
    assert build.new_calls == len(server.requests) == 2 * len(TEXTS)


def test_a_request_that_is_turned_down_names_its_question_and_the_others_are_kept(tmp_path):
    def answer(payload):
        refused = TEXTS[2].stem in prompt_text(payload)
        return Reply("content policy", status=400) if refused else "The answer is (A)."

    with StubServer(answer) as server:
        with pytest.raises(
            MedXpertQAError, match=rf"1 of {len(TEXTS)} questions .*{TEXTS[2].id}: m at .*400"
        ):
            ai_filter(tmp_path, server, questions=TEXTS)
        assert len(server.requests) == len(TEXTS)
        assert ai_filter(tmp_path, server, questions=TEXTS[:2] + TEXTS[3:]).new_calls == 0


def test_an_endpoint_that_fails_for_all_is_not_asked_for_all(tmp_path):
    with StubServer(lambda payload: Reply("no", status=401)) as server:
        with pytest.raises(MedXpertQAError, match="HTTP 401"):
            ai_filter(tmp_path, server, questions=TEXTS, samples=3, max_connections=2)
        # Two under way, and what may begin before the first error is seen: on a busy machine a few more.
        assert len(server.requests) <= len(TEXTS)  # of three times as many


def test_replies_without_a_letter_are_counted_and_wrong(tmp_path):
    replies = iter([Reply("", reasoning="hm"), "I can't say.", f"The answer is ({TEXTS[2].label})."])
    with StubServer(lambda payload: next(replies)) as server:
        build = ai_filter(tmp_path, server, questions=TEXTS[:3], max_connections=1)
    assert build.no_letter == {f"m at {server.base_url}": (2, 3)}
    assert build.questions == TEXTS[:2]


def test_threads_that_ask_the_same_at_once_make_one_call(tmp_path):
    with StubServer(delay=0.1) as server, Ledger(tmp_path / "calls.jsonl") as ledger:
        with ThreadPoolExecutor(4) as pool:
            asked = model(server)
            assert set(pool.map(lambda _: ledger.ask(asked, ASKED), range(4))) == {"The answer is (A)."}
        assert (len(server.requests), ledger.new_calls) == (1, 1)
