from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medxpertqa import DataError, Question, load_results, score_records, summarize, write_results
from medxpertqa.results import Record
from medxpertqa.synthetic import synthetic_questions


def _lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _official(question: Question, last_prompt: str | None, reply: str) -> dict[str, Any]:
    """A row as the official code writes it, with the messages of its protocol."""
    prompt = "Q: ...\nA: Let's think step by step."
    messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    if last_prompt:
        messages += [{"role": "assistant", "content": "hm"}, {"role": "user", "content": last_prompt}]  # type: ignore[dict-item]
    messages.append({"role": "assistant", "content": reply})  # type: ignore[dict-item]
    row = question.to_record("official")
    return row | {"messages": messages, "response": reply, "prediction": ["A"], "correct": False}


def _doc(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "stem": question.stem,
        "options": list(question.options.values()),
        "label": question.label,
        "images": list(question.images),
        **question.attributes,
    }


def test_written_results_are_read_again(tmp_path: Path) -> None:
    questions = synthetic_questions("text")
    records = [
        Record.of(questions[0], "The answer is A\u2028.", input_tokens=7, cost=0.5, stop_reason="stop"),
        Record.of(questions[0], "J", order=(9, 0, 1, 2, 3, 4, 5, 6, 7, 8)),
        Record.of(questions[1], "", status="error", error="timeout"),
    ]
    results = score_records(records, name="a model", protocol="official-ao", trigger="ao", n_expected=12)
    write_results(results, tmp_path / "run.jsonl")
    again = load_results(tmp_path / "run.jsonl")
    assert again.records == results.records
    assert again.answers == results.answers
    assert (again.name, again.protocol, again.n_expected) == ("a model", "official-ao", 12)
    assert load_results(tmp_path).records == results.records  # the only file of a folder


@pytest.mark.parametrize(
    ("last_prompt", "reply", "protocol", "parser"),
    [
        ("Therefore, among A through E, the answer is", "I say C", "official-cot", "official"),
        (
            "Put your final answer within \\boxed{}. Therefore, among A through E, the answer is",
            "A or \\boxed{C}",
            "official-r1",
            "official-r1",
        ),
        (None, "A or B. Final answer: C", "official-qvq", "official-qvq"),
    ],
)
def test_an_official_output_is_read_by_the_parser_of_its_messages(
    tmp_path: Path, last_prompt: str | None, reply: str, protocol: str, parser: str
) -> None:
    questions = synthetic_questions("mm")
    rows = [_official(question, last_prompt, reply) for question in questions]
    rows[3] |= {"response": "No answer provided: content_filter."}
    folder = tmp_path / "outputs/leaderboard/a-model/medxpertqa/zero_shot/cot"
    results = load_results(_lines(folder / "medxpertqa_mm_output.jsonl", rows))
    assert (results.name, results.protocol, results.parser) == ("a-model", protocol, parser)
    letters = [answer.letter for answer in results.answers[parser]]
    assert letters == ["C", "C", "C", None, "C", "C", "C", "C"]
    assert summarize(results).n_errors == 1
    assert results.records[0].attributes == questions[0].attributes


def test_samples_of_lm_eval_are_read_as_text_or_as_the_likeliest_letter(tmp_path: Path) -> None:
    question = synthetic_questions("mm")[0]
    text = {"doc": _doc(question), "resps": [["So the answer is B."]], "filtered_resps": ["..."]}
    likely = [
        [["-3.5", "False"]],
        [["-1.5", "True"]],
        [["-2.0", "False"]],
        [["-9", "False"]],
        [["-4", "False"]],
    ]
    for name, row in (("cot", text), ("ll", {"doc": _doc(question), "resps": likely, "filtered_resps": []})):
        file = _lines(tmp_path / "my__model" / f"samples_medxpertqa_mm_{name}_2026-01-01T00.jsonl", [row])
        results = load_results(file)
        assert results.answers["robust"][0].letter == "B"
        assert (results.name, results.protocol) == ("my__model", f"lm-eval medxpertqa_mm_{name}")
        assert results.records[0].label == question.label


def test_plain_json_lines_are_read_and_joined_with_their_questions(tmp_path: Path) -> None:
    questions = synthetic_questions("text")
    rows = [{"id": q.id, "response": q.answer, "label": q.label, "n_options": 10} for q in questions]
    path = _lines(tmp_path / "plain.jsonl", rows)
    assert summarize(load_results(path), "robust").n_no_answer == 12
    joined = load_results(path, questions=questions)
    assert summarize(joined, "robust").n_correct == 12
    assert set(summarize(joined).by["subset"]) == {"Text"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there are no lines"),
        ("{", "line 1 is no JSON"),
        ("3", "line 1 is no object"),
        ('{"id": "x"}', "x: response, label, n_options missing"),
        ('{"schema": 2, "kind": "medxpertqa-results"}', "has schema 2; this version reads schema 1"),
        ('{"filtered_resps": [], "doc": {}}', "line 1 is no sample"),
        ('{"kind": "medxpertqa-results"}', "has schema None; this version reads schema 1"),
        (
            '{"schema": 1, "kind": "medxpertqa-results", "name": "m"}',
            "the first line has no parser",
        ),
        (
            '{"schema": 1, "kind": "medxpertqa-results", "parser": "best", "name": "", "protocol": "", '
            '"dataset": "", "digest": "", "n_expected": null}',
            "line 1: parser is 'best'",
        ),
    ],
)
def test_a_file_that_holds_no_results_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"a\.jsonl.*{message}"):
        load_results(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": []}, "line 1 is no record of the official code: IndexError"),
        ({"messages": [{"role": "user"}]}, "line 1 is no record of the official code: KeyError 'content'"),
        ({"response": 3}, "line 1 is no record of the official code: AttributeError"),
        ({"label": ["Z"]}, "line 1: Text-0: label is 'Z'"),
    ],
)
def test_a_damaged_line_of_the_official_code_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    row = _official(synthetic_questions("text")[0], None, "A")
    with pytest.raises(DataError, match=rf"x_output\.jsonl, {message}"):
        load_results(_lines(tmp_path / "x_output.jsonl", [row | changes]))


def test_a_folder_of_no_run_or_several_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no results that can be read"):
        load_results(tmp_path)
    with pytest.raises(DataError, match="there is no file or folder"):
        load_results(tmp_path / "x")
    for name in "ab":
        _lines(tmp_path / f"{name}.jsonl", [{}])
    with pytest.raises(DataError, match="has 2 files of JSON lines; give one run"):
        load_results(tmp_path)
