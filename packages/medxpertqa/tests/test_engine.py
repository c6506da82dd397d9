"""Runs through inspect-ai against an endpoint on this machine: what is sent, kept and asked again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medxpertqa.engine.logs import read_logs
from medxpertqa.engine.run_settings import demonstrations_of
from medxpertqa.engine.running import EvalRun, evaluate
from medxpertqa.engine.stub_server import Reply, StubServer, prompt_text, sent_images
from medxpertqa.errors import MedXpertQAError, MedXpertQAWarning
from medxpertqa.questions import Question

MODEL = "openai-api/local/m"
KEY = "sk-a-secret-key"
PNG, JPEG = b"\x89PNG\r\n\x1a\n-a-png", b"\xff\xd8\xff\xe0-a-jpeg"
FILES = {"MM-2-a.jpeg": ("image/png", PNG), "MM-2-b.jpeg": ("image/jpeg", JPEG)}


def question(name, label, n=5, images=()):
    options = {chr(65 + i): f"made-up option {name} {i}" for i in range(n)}
    return Question(
        name, f"A wholly made-up stem of {name}.", options, label, images, "Diagnosis", "Nervous", "Reasoning"
    )


QUESTIONS = [
    question("Text-1", "A", 10),
    question("Text-3", "C", 10),
    question("MM-2", "B", 5, ("MM-2-a.jpeg", "MM-2-b.jpeg")),
    question("Text-5", "D", 10),
]
SECOND = {10: "Therefore, among A through J, the answer is", 5: "Therefore, among A through E, the answer is"}


def stem(name):
    return f"made-up stem of {name}."


def is_second(payload):
    return payload["messages"][-1]["content"] in SECOND.values()


def about(payload, name):
    return stem(name) in prompt_text(payload)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", KEY)


class Script:
    """First turn: a thought. Second: the reply given for the question. A fault while `faults` has it."""

    def __init__(self, letters, faults=None):
        self.letters, self.faults = letters, dict(faults or {})

    def __call__(self, payload):
        name = next(name for name in self.letters if about(payload, name))
        if self.faults.get(name):
            return self.faults[name].pop(0)
        return self.letters[name] if is_second(payload) else f"  I think about {name}. \n"


LETTERS = {"Text-1": "(A).", "Text-3": "C", "MM-2": "The answer is E", "Text-5": "I think it is D"}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run in which a question fails, one meets 429 and one a dropped connection; then two more runs."""
    folder = tmp_path_factory.mktemp("engine") / "logs"
    faults = {
        "Text-5": [Reply("stem repeated: " + KEY, status=400)],
        "Text-3": [Reply("slow down", status=429)],
        "MM-2": [Reply(drop=True)],
    }
    script = Script(LETTERS, faults)
    with pytest.MonkeyPatch.context() as patch, StubServer(script) as server:
        patch.setenv("LOCAL_API_KEY", KEY)
        arguments = {
            "model": MODEL,
            "log_dir": folder,
            "base_url": server.base_url,
            "images": FILES.__getitem__,
        }
        incomplete = evaluate(QUESTIONS, **arguments)
        n_first = len(server.requests)
        complete = evaluate(QUESTIONS, **arguments)
        n_second = len(server.requests) - n_first
        again = evaluate(QUESTIONS, **arguments)
        requests = list(server.requests)
        assert len(requests) == n_first + n_second, "a complete run asks nothing"
        assert set(server.keys) <= {f"Bearer {KEY}"}
    return {
        "folder": folder,
        "incomplete": incomplete,
        "complete": complete,
        "again": again,
        "requests": requests,
        "n_second": n_second,
    }


def test_the_two_turns_are_sent_word_for_word_with_the_officials_parameters(first):
    asked = [payload for payload in first["requests"] if about(payload, "Text-1")]
    opening = [
        {"role": "system", "content": "You are a helpful medical assistant."},
        {
            "role": "user",
            "content": f"Q: {QUESTIONS[0].to_prompt_string()}\nA: Let's think step by step.",
        },
    ]

    def flat(payload):
        return [
            {"role": message["role"], "content": prompt_text({"messages": [message]})}
            for message in payload["messages"]
        ]

    assert flat(asked[0]) == opening
    assert flat(asked[1]) == [
        *opening,
        {"role": "assistant", "content": "I think about Text-1."},
        {"role": "user", "content": "Therefore, among A through J, the answer is"},
    ]
    for payload in asked:
        assert (payload["temperature"], payload["max_tokens"], payload["seed"]) == (0, 2048, 0)


def test_images_follow_the_text_in_order_with_the_type_of_their_content(first):
    for payload in (payload for payload in first["requests"] if about(payload, "MM-2")):
        assert sent_images(payload) == [("image/png", PNG), ("image/jpeg", JPEG)]
        user = next(message for message in payload["messages"] if message["role"] == "user")
        assert [part["type"] for part in user["content"]] == ["text", "image_url", "image_url"]


def test_a_failed_question_is_an_error_and_counts_as_wrong(first):
    results = first["incomplete"]
    failed = [record for record in results.records if record.status == "error"]
    assert [record.id for record in failed] == ["Text-5"]
    assert "HTTP 400" in failed[0].error
    assert (results.n, results.n_correct, results.n_expected) == (4, 2, 4)


def test_the_same_call_again_asks_only_what_failed(first):
    assert first["n_second"] == 2  # two turns of Text-5
    assert sorted(record.id for record in first["complete"].records) == sorted(LETTERS)
    assert all(record.status == "ok" for record in first["complete"].records)
    assert first["again"] == first["complete"] == read_logs(first["folder"])


def test_a_busy_endpoint_and_a_dropped_connection_are_asked_again_and_answered_once(first):
    for name in ("Text-3", "MM-2"):
        assert sum(about(payload, name) for payload in first["requests"]) == 3  # two turns, one of them twice
        assert sum(record.id == name for record in first["complete"].records) == 1


def test_letters_are_those_of_both_parsers(first):
    results = first["complete"]
    found = {
        record.id: (official.letter, robust.letter)
        for record, official, robust in zip(
            results.records, results.answers["official"], results.answers["robust"], strict=True
        )
    }
    # "The answer is (I think it is D).": the official parser takes the pronoun, robust the stated letter.
    assert found == {"Text-1": ("A", "A"), "Text-3": ("C", "C"), "MM-2": ("E", "E"), "Text-5": ("I", "D")}
    assert results.disagreement() == ["Text-5"]


def test_neither_questions_nor_keys_are_in_the_logs(first):
    from inspect_ai.log import list_eval_logs, read_eval_log

    logs = [read_eval_log(info).model_dump_json() for info in list_eval_logs(str(first["folder"]))]
    logs += [path.read_text() for path in first["folder"].rglob("*.json")]
    assert any("I think about Text-1." in text for text in logs)  # the replies are
    for text in logs:
        assert "made-up" not in text
        assert KEY not in text
        assert "base64" not in text


def test_a_folder_with_another_run_is_refused_and_says_what_differs(first):
    with pytest.raises(MedXpertQAError, match=r"protocol 'official-cot', not 'official-ao'"):
        evaluate(
            QUESTIONS,
            model=MODEL,
            log_dir=first["folder"],
            base_url="http://127.0.0.1:1/v1",
            protocol="official-ao",
        )
    changed = [replace(QUESTIONS[0], stem="Another stem."), *QUESTIONS[1:]]
    with pytest.raises(MedXpertQAError, match="digest"):
        evaluate(changed, model=MODEL, log_dir=first["folder"], base_url="http://127.0.0.1:1/v1")


def test_a_run_does_not_go_on_with_other_demonstrations(tmp_path):
    shown = [question(f"Text-{number}", "A", 10) for number in (11, 12, 13)]
    arguments = {"model": MODEL, "log_dir": tmp_path, "protocol": "few-shot"}
    with StubServer(lambda payload: "A") as server:
        arguments["base_url"] = server.base_url
        evaluate(QUESTIONS[:1], demonstrations=shown[:2], **arguments)
        with pytest.raises(MedXpertQAError, match=r"holds a run with demonstrations '\w+', not '\w+'"):
            evaluate(QUESTIONS[:1], demonstrations=shown[:3], **arguments)
        assert evaluate(QUESTIONS[:1], demonstrations=shown[:2], **arguments).n == 1
    assert len(server.requests) == 1


def test_a_changed_parameter_is_told_and_the_options_turn_with_their_label(tmp_path):
    def first_option(payload):
        return "A"

    with StubServer(first_option) as server:
        results = evaluate(
            QUESTIONS[1:2],
            model=MODEL,
            log_dir=tmp_path,
            base_url=server.base_url,
            protocol="official-ao",
            permute=5,
            ablate=["stem"],
            max_tokens=96,
            max_connections=1,
        )
    assert results.protocol == "official-ao (max_tokens=96, without stem)"
    assert {payload["max_tokens"] for payload in server.requests} == {96}
    assert server.most_at_once == 1
    assert not any("made-up stem" in prompt_text(payload) for payload in server.requests)
    # The right text stands third (C); after a turn by 2 it stands first.
    by_shift = {record.order[:1]: record.label for record in results.records}
    assert by_shift == {(): "C", (2,): "A", (4,): "I", (6,): "G", (8,): "E"}
    assert results.n_correct == 1


def test_a_question_keeps_its_place_through_both_turns_and_no_image_is_read_before_its_turn(tmp_path):
    seen, read = [], []

    def image(name):
        read.append(name)
        return "image/png", PNG

    def answer(payload):
        name = next(asked.id for asked in shown if about(payload, asked.id))
        seen.append((name, is_second(payload), set(read)))
        return "A"

    shown = [question(f"MM-{i}", "A", 5, (f"MM-{i}-a.png",)) for i in range(4)]
    with StubServer(answer) as server:
        base_url = server.base_url
        evaluate(shown, model=MODEL, log_dir=tmp_path, base_url=base_url, images=image, max_connections=1)
    names = [name for name, second, _ in seen if not second]
    assert [(name, second) for name, second, _ in seen] == [(name, turn) for name in names for turn in (0, 1)]
    for place, (_, _, images) in enumerate(seen):
        assert images == {f"{name}-a.png" for name in names[: place // 2 + 1]}


def test_the_next_question_is_asked_while_a_reply_is_scored(tmp_path, monkeypatch):
    import anyio
    from inspect_ai.scorer import accuracy, scorer

    from medxpertqa.engine.solving import letter_scorer

    def patient_scorer(exam):
        @scorer(metrics=[accuracy()], name="patient")
        def make():
            score = letter_scorer(exam)

            async def wait(state, target):
                with anyio.fail_after(20):
                    while len(server.requests) < 2:
                        await anyio.sleep(0.01)
                return await score(state, target)

            return wait

        return make()

    monkeypatch.setattr("medxpertqa.engine.tasks.letter_scorer", patient_scorer)
    with StubServer(lambda payload: "A") as server:
        arguments = {"protocol": "official-ao", "base_url": server.base_url, "max_connections": 1}
        results = evaluate(QUESTIONS[:2], model=MODEL, log_dir=tmp_path, **arguments)
    assert [record.status for record in results.records] == ["ok", "ok"]
    assert server.most_at_once == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_connections": 0}, "max_connections = 0: it must be"),
        ({"max_tokens": -1}, "max_tokens = -1: it must be at least 1"),
        ({"top_k": "x"}, "top_k = 'x': .*integer"),
    ],
)
def test_a_setting_that_cannot_be_is_told_before_anything_is_asked(tmp_path, settings, said):
    with pytest.raises(MedXpertQAError, match=said):
        evaluate(QUESTIONS, model=MODEL, log_dir=tmp_path, base_url="http://127.0.0.1:9/v1", **settings)


def test_refused_keys_stop_the_run_at_the_start(tmp_path):
    questions = [question(f"Text-{i}", "A") for i in range(40)]
    with StubServer(lambda payload: Reply("wrong key " + KEY, status=401)) as server:
        arguments = {"model": MODEL, "log_dir": tmp_path, "base_url": server.base_url, "max_connections": 2}
        with pytest.raises(MedXpertQAError, match="no question was answered") as raised:
            evaluate(questions, **arguments)
    assert KEY not in str(raised.value)
    assert len(server.requests) <= 4


def test_a_cost_limit_needs_a_price_and_stops_the_run(tmp_path):
    questions = [question(f"Text-{i}", "A") for i in range(10)]
    with StubServer(lambda payload: "A") as server:
        arguments = {
            "model": "openai-api/local/priced",
            "base_url": server.base_url,
            "protocol": "official-ao",
        }
        with pytest.raises(MedXpertQAError, match="price"):
            evaluate(questions, log_dir=tmp_path / "a", cost_limit=1, **arguments)
        # $1 a reply: the fourth would be over the limit of $2.5.
        arguments |= {"price": (0.0, 1e6), "cost_limit": 2.5, "max_connections": 1}
        with pytest.warns(MedXpertQAWarning, match=r"cost limit of \$2\.5 is reached: after that nothing"):
            results = evaluate(questions, log_dir=tmp_path / "b", **arguments)
    assert len(server.requests) == 3
    assert sum(record.cost or 0 for record in results.records) == pytest.approx(3.0)
    assert (results.n, results.n_expected) == (3, 10)  # what was not asked is missing, and not wrong


def test_what_replies_lack_is_told_by_their_stop_reason(tmp_path):
    replies = {
        "Text-1": Reply("A cut off", finish_reason="length"),
        "Text-3": Reply("", reasoning="thinking ..."),
        "Text-5": Reply("I cannot help with A.", finish_reason="content_filter"),
    }
    texts = [entry for entry in QUESTIONS if entry.id in replies]
    with StubServer(
        lambda payload: next(replies[name] for name in replies if about(payload, name))
    ) as server:
        results = evaluate(texts, model=MODEL, log_dir=tmp_path, base_url=server.base_url)
    assert {record.id: (record.stop_reason, record.response) for record in results.records} == {
        "Text-1": ("max_tokens", "A cut off"),
        "Text-3": ("reasoning_only", ""),
        "Text-5": ("content_filter", ""),
    }


def test_an_endpoint_that_is_not_there_is_told_before_anything_is_asked(tmp_path):
    with pytest.raises(MedXpertQAError, match=r"nobody answers at http://127\.0\.0\.1:9/v1"):
        evaluate(QUESTIONS[:2], model=MODEL, log_dir=tmp_path, base_url="http://127.0.0.1:9/v1")


def test_two_runs_on_one_folder_are_refused(tmp_path):
    from medxpertqa.engine.description import sole_user

    with sole_user(tmp_path), pytest.raises(MedXpertQAError, match="another process"):
        evaluate(QUESTIONS, model=MODEL, log_dir=tmp_path, base_url="http://127.0.0.1:9/v1")


def test_an_estimate_counts_calls_and_bounds_the_cost_without_asking(tmp_path):
    run = EvalRun(
        QUESTIONS[:2], "openai-api/local/estimated", tmp_path, base_url="http://127.0.0.1:9/v1", epochs=3
    )
    estimate = run.estimate()
    assert (estimate.n_questions, estimate.n_done, estimate.n_calls) == (6, 0, 12)  # epochs count each
    assert estimate.max_output_tokens == 12 * 2048
    assert estimate.cost is None
    priced = replace(run, price=(0.0, 2.0)).estimate()
    assert priced.cost == pytest.approx(12 * 2048 * 2.0 / 1e6)


def test_demonstrations_of_a_file_need_not_be_of_the_sample_that_is_asked(tmp_path):
    shown = [question(f"Text-{number}", "A", 10) for number in (11, 12, 13)]
    file = tmp_path / "shown.jsonl"
    file.write_text("".join(json.dumps(one.to_record()) + "\n" for one in shown))
    found = demonstrations_of("few-shot", "text/o1", None, file)
    assert [one.id for one in found] == ["Text-11", "Text-12", "Text-13"]
