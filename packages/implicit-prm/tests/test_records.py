"""Files of rows: our own, and those of public data sets as ours; what is wrong names its file and line."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm.encoding import encode_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.records import own_row, read_responses, read_rows, write_rows
from implicit_prm.steps import token_steps

Q = [{"role": "user", "content": "q"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"dataset": "gsm8k", "prompt": "q", "completions": ["a", "b"], "correctness": [True, False]},
            {"dataset": "gsm8k", "prompt": Q, "completions": [said("a"), said("b")], "labels": [1.0, 0.0]},
        ),
        (
            {  # the columns that the hub's card of ultrainteract_math_rollout lists
                "prompt": "q", "reference": "4", "dataset": "MATH", "completions": ["a\n\nb"],
                "correctness": [True], "steps": [["a", "b"]],
            },
            {
                "dataset": "MATH", "prompt": Q, "completions": [said("a\n\nb")], "labels": [1.0],
                "answer": "4",
            },
        ),
        (
            {
                "task": "Math_CoT", "dataset": "MATH", "id": "i", "parent_id": "p",
                "trajectory": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "s"},
                               {"from": "user", "value": "r"}],
                "chosen": "a", "rejected": "b",
            },
            {
                "task": "Math_CoT", "dataset": "MATH", "id": "i", "parent_id": "p",
                "prompt": [*Q, *said("s"), {"role": "user", "content": "r"}],
                "chosen": said("a"), "rejected": said("b"),
            },
        ),
        (
            {"idx": 3, "prompt": "q", "response": "a", "reference": 4, "correctness": True, "reward": {}},
            {"idx": 3, "prompt": Q, "completion": said("a"), "label": 1.0, "answer": "4"},
        ),
        (
            {"problem": "q", "solution": "s", "answer": "4", "subject": "a", "level": 2, "unique_id": "t/1"},
            {"id": "t/1", "prompt": Q, "solution": "s", "answer": "4", "subject": "a", "level": 2},
        ),
        (
            {"id": "gsm8k-1", "generator": "g", "problem": "q", "steps": ["a ", "b"],
             "final_answer_correct": False, "label": 1},
            {
                "id": "gsm8k-1", "generator": "g", "final_answer_correct": False, "prompt": Q,
                "completion": said("a\n\nb"),
                "step_spans": [[0, 3], [3, 4]], "first_error": 1,
            },
        ),
        (
            {"question": "q", "answer": "2+2=<<2+2=4>>4\n#### 4"},
            {"prompt": Q, "solution": "2+2=<<2+2=4>>4", "answer": "4"},
        ),
        (
            {"chosen": [*Q, *said("a")], "rejected": [*Q, *said("b")]},
            {"prompt": Q, "chosen": said("a"), "rejected": said("b")},
        ),
        (
            {"prompt": "q", "completion": "a", "label": True, "more": 1},
            {"prompt": "q", "completion": "a", "label": 1.0, "more": 1},
        ),
        (
            {"prompt_ids": [1], "completion_ids": [2], "label": 0.25},
            {"prompt_ids": [1], "completion_ids": [2], "label": 0.25},
        ),
        (
            {"prompt": "p", "completion": "c", "problem": "p", "solution": "s", "answer": "4"},
            {"prompt": "p", "completion": "c", "problem": "p", "solution": "s", "answer": "4"},
        ),
    ],
)  # fmt: skip
def test_rows_of_every_format_become_ours(row, expected) -> None:
    assert own_row(row) == expected
    assert own_row(expected) == expected  # and ours stay what they are


def test_the_public_files_read_as_they_are_described() -> None:
    """Row counts and shares of the data's own README: 207 of 400 with an error, 21.7 to 56.3 % correct."""
    folder = Path(os.environ.get("TENFOLD_DATA", "")) / "implicit-prm"
    if not (folder / "math500.jsonl").is_file():
        pytest.skip("the data sets of this package are not in $TENFOLD_DATA")
    problems = list(read_rows(folder / "math500.jsonl"))
    assert len({row["id"] for row in problems}) == 500
    steps = list(read_rows(folder / "processbench_gsm8k_upto_error.jsonl"))
    assert Counter(row["first_error"] >= 0 for row in steps) == {True: 207, False: 193}
    for row in steps:
        text = row["completion"][0]["content"]
        assert "".join(text[start:end] for start, end in row["step_spans"]) == text
    solutions = list(read_rows(folder / "gsm8k_example_model_solutions.jsonl"))
    shares = [sum(row["labels"][at] for row in solutions) / len(solutions) for at in range(4)]
    assert [round(100 * share, 1) for share in shares] == [21.7, 39.0, 34.7, 56.3]
    answers = [row["answer"] for row in read_rows(folder / "gsm8k_test.jsonl")]
    assert (len(answers), answers[:2]) == (1319, ["18", "3"])
    responses = list(read_responses(folder / "gsm8k_example_model_solutions.jsonl"))
    assert (len(responses), len({row["id"] for row in responses})) == (5276, 5276)


def test_processbench_steps_are_the_steps_that_are_scored(tokenizer) -> None:
    row = own_row({"problem": "q", "steps": [" a b\n\nc", "d ", "e"], "label": -1})
    (encoded,) = encode_rows([row], tokenizer)
    steps, ends = token_steps(encoded.completion, encoded.offsets, row["step_spans"])
    assert [step.text for step in steps] == ["a b\n\nc\n\n", "d\n\n", "e"]
    assert ends[-1] == len(encoded.completion_ids) - 1


def test_a_column_of_responses_that_is_none_is_one_that_a_row_does_not_have(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "label": 1.0}
    assert own_row({**row, "chosen": None, "rejected": None, "completions": None, "prompt_ids": None}) == row
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": None, "chosen": "a", "rejected": "b"}])
    with pytest.raises(ImplicitPRMError, match="row 1 has no completion to score"):
        list(read_responses(tmp_path / "rows.jsonl"))


def test_responses_of_grouped_rows_are_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    grouped = {"prompt": "p", "completions": ["a", "b"], "labels": [1, 0], "answer": "4"}
    write_rows(path, [{**grouped, "id": "x"}, {"prompt": "p", "completion": "c"}, grouped])
    rows = list(read_responses(path))
    assert [row.get("id") for row in rows] == ["x-0", "x-1", None, "3-0", "3-1"]
    assert rows[1] == {"prompt": "p", "id": "x-1", "completion": "b", "label": 0.0, "answer": "4"}


def test_a_json_list_and_empty_lines_are_read(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c"}
    (tmp_path / "rows.json").write_text(json.dumps([row, row], indent=1))
    assert list(read_rows(tmp_path / "rows.json")) == [row, row]
    (tmp_path / "rows.jsonl").write_text("\ufeff" + json.dumps(row) + "\n\n" + json.dumps(row))
    assert list(read_rows(tmp_path / "rows.jsonl")) == [row, row]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "p", "completion":', "no JSON"),
        (b'{"prompt": "\xff"}', "no JSON: 'utf-8' codec"),
        (b"[1]", "a JSON object is expected, not [1]"),
        (b'{"text": "p"}', "['text'] are of no format"),
        (b'{"prompt": "p", "completion": "  "}', "completion is '  '"),
        (b'{"prompt": 3, "completion": "c"}', "prompt is 3: neither text nor a list of messages"),
        (b'{"prompt": "p", "completion": [{"role": "user"}]}', "neither text nor"),
        (b'{"prompt": "p", "completion": "c", "label": 1.5}', "the label 1.5 is outside [0, 1]"),
        (b'{"prompt": "p", "completion": "c", "label": NaN}', "the label nan is outside"),
        (b'{"prompt": "p", "completion": "c", "label": "right"}', "the label 'right' is outside"),
        (b'{"prompt": "p", "completions": ["a"], "labels": [1, 0]}', "1 completions and 2 labels"),
        (b'{"prompt": "p", "completions": "a", "labels": [1]}', "no list of responses"),
        (b'{"prompt": "p", "completions": ["a"], "labels": null}', "labels is None: no list with one a"),
        (b'{"prompt": "p", "completions": ["a"], "labels": 1}', "labels is 1: no list with one a completion"),
        (b'{"prompt": "p", "completions": ["a", ""], "labels": [1, 0]}', "completion 1 is ''"),
        (b'{"prompt": "p", "completions": [1], "correctness": [true]}', "not its content"),
        (b'{"problem": "p", "steps": ["a"], "label": 1}', "label 1 is no index of its 1 steps"),
        (b'{"problem": "p", "steps": ["a"], "label": false}', "label False is no index of its 1 steps"),
        (b'{"problem": "p", "steps": "ab", "label": -1}', "not its content"),
        (b'{"problem": "p", "steps": ["a", " ", "b"], "label": 2}', "step 1 of 3, counted from 0, is empty"),
        (b'{"prompt": "p", "chosen": "a", "rejected": ""}', "rejected is ''"),
        (b'{"chosen": "a", "rejected": "b"}', "must be two conversations"),
        (b'{"chosen": [{"role": "user", "content": "a"}], "rejected": []}', "equal up to their last message"),
    ],
)
def test_a_bad_line_is_an_error_that_names_file_and_line(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "p", "completion": "c"}\n\n' + line + b"\n")
    with pytest.raises(ImplicitPRMError) as error:
        list(read_rows(path))
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert words in str(error.value)


def test_a_file_that_is_not_there_or_has_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImplicitPRMError, match=r"there is no file .*none\.jsonl"):
        list(read_rows(tmp_path / "none.jsonl"))
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(ImplicitPRMError, match="no JSON list"):
        list(read_rows(tmp_path / "one.json"))
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}')
    with pytest.raises(ImplicitPRMError, match="row 1 has no completion to score"):
        list(read_responses(tmp_path / "pairs.jsonl"))


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"prompt": st.text(), "completion": st.text(min_size=1).filter(str.strip)}),
        max_size=4,
    )
)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.jsonl"
    assert write_rows(path, rows) == len(rows)
    assert list(read_rows(path)) == rows


def test_a_row_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"prompt": "p"}])
    with pytest.raises(ImplicitPRMError, match="row 2 cannot be written as JSON"):
        write_rows(path, [{"prompt": "q"}, {"reward": float("nan")}])
    assert path.read_text() == '{"prompt": "p"}\n'
    assert os.listdir(tmp_path) == ["rows.jsonl"]
