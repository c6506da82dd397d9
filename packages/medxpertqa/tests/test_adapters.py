"""Other harnesses: their files become our records, and lm-eval's task gives the letters that we give."""

from __future__ import annotations

import json

import pytest

from medxpertqa.adapters.evalscope import read_evalscope
from medxpertqa.adapters.lm_eval import read_letters, task_folder
from medxpertqa.adapters.opencompass import read_opencompass
from medxpertqa.engine.stub_server import StubServer, prompt_text
from medxpertqa.errors import DataError
from medxpertqa.results import score_records
from medxpertqa.synthetic import synthetic_questions

QUESTIONS = synthetic_questions("text")
REPLIES = ["I think it is {label}", "The answer is not A but {label}", "**{label}**", "no idea", "{answer}"]


def reply_to(number, question):
    template = REPLIES[number % len(REPLIES)]
    return template.format(label=question.label, answer=question.answer)


def review(question, reply):
    about = {"id": question.id, "images": [], **question.attributes}
    score = {"value": {"acc": 1.0}, "prediction": reply, "extracted_prediction": "A"}
    sample = {"score": score, "sample_id": 0, "group_id": 0, "sample_metadata": about}
    return {"index": 0, "input": "withheld", "target": question.label, "sample_score": sample}


def test_evalscope_reviews_become_records(tmp_path):
    file = tmp_path / "reviews" / "m" / "medxpertqa_Text.jsonl"
    file.parent.mkdir(parents=True)
    rows = [review(question, f"ANSWER: {question.label}") for question in QUESTIONS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = read_evalscope(tmp_path)
    assert (results.name, results.protocol, results.n, results.accuracy) == ("m", "evalscope", 12, 1.0)
    assert [record.attributes["body_system"] for record in results.records] == [
        q.body_system for q in QUESTIONS
    ]
    separated = review(QUESTIONS[0], "One line\u2028and another.\u0085 ANSWER: A")
    file.write_text(json.dumps(separated, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_evalscope(file).records[0].response.startswith("One line\u2028and")
    file.write_text(json.dumps(rows[0]) + "\n{}\n")
    with pytest.raises(DataError, match="line 2"):
        read_evalscope(file)
    file.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="cannot be read as JSON lines"):
        read_evalscope(file)
    with pytest.raises(DataError, match="no reviews"):
        read_evalscope(tmp_path / "elsewhere")


def test_opencompass_parts_are_numbered_on_and_read_by_the_answer_only_rule(tmp_path):
    folder = tmp_path / "predictions" / "m"
    folder.mkdir(parents=True)
    rows = [
        {
            "origin_prompt": [],
            "prediction": f"Among A through J, the answer is {q.label}. Not A.",
            "gold": q.label,
        }
        for q in QUESTIONS
    ]
    for part, chosen in ((0, rows[:7]), (1, rows[7:])):
        (folder / f"medxpertqa_{part}.json").write_text(
            json.dumps({str(i): row for i, row in enumerate(chosen)})
        )
    results = read_opencompass(tmp_path)
    assert [record.id for record in results.records] == [f"Text-{i}" for i in range(12)]
    assert (results.parser, results.accuracy) == ("official", 1.0)
    (folder / "medxpertqa_1.json").write_text("[]")
    with pytest.raises(DataError, match="holds no predictions"):
        read_opencompass(tmp_path)


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """lm-eval's own evaluation of the task through its chat API model, on the stub."""
    evaluator = pytest.importorskip("lm_eval.evaluator")
    tasks = pytest.importorskip("lm_eval.tasks")
    data = tmp_path_factory.mktemp("lm-eval") / "questions.jsonl"
    data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in QUESTIONS))

    def answer(payload):
        place, question = next((i, q) for i, q in enumerate(QUESTIONS) if q.stem in prompt_text(payload))
        return reply_to(place, question)

    manager = tasks.TaskManager(
        include_path=str(task_folder()), include_defaults=False, metadata={"data": str(data)}
    )
    with StubServer(answer) as server:
        found = evaluator.simple_evaluate(
            model="local-chat-completions",
            model_args={"model": "m", "base_url": f"{server.base_url}/chat/completions", "num_concurrent": 4},
            tasks=["medxpertqa_text_cot"],
            task_manager=manager,
            apply_chat_template=True,
            bootstrap_iters=0,
        )
    return found, server.requests


@pytest.mark.slow  # lm-eval takes seconds to import
def test_the_lm_eval_task_gives_the_letters_that_we_give(harness):
    found, requests = harness
    samples = found["samples"]["medxpertqa_text_cot"]
    assert len(samples) == len(requests) == 12
    records = [
        {
            "id": question.id,
            "response": reply_to(place, question),
            "label": question.label,
            "n_options": 10,
            "options": question.options,
        }
        for place, question in enumerate(QUESTIONS)
    ]
    ours = score_records(records, parser="official")
    assert found["results"]["medxpertqa_text_cot"]["acc,none"] == sum(ours.correct("robust")) / 12
    assert found["results"]["medxpertqa_text_cot"]["acc_official,none"] == sum(ours.correct("official")) / 12
    assert 0 < sum(ours.correct("official")) < sum(ours.correct("robust")) < 12  # the replies tell them apart
    for place, record in enumerate(records):
        letters = read_letters(record["response"], record["options"])
        assert letters == {name: answers[place].letter for name, answers in ours.answers.items()}


@pytest.mark.slow  # lm-eval takes seconds to import
def test_the_lm_eval_task_sends_the_first_turn_of_the_protocol(harness):
    texts = {prompt_text(payload) for payload in harness[1]}
    assert texts == {
        f"Q: {question.to_prompt_string()}\nA: Let's think step by step." for question in QUESTIONS
    }
