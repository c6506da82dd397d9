"""Files of scored responses: read with their mistakes told, and put together by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.scored_files import candidates, first_wrong_step, prompt_text, read_scored


def line(
    name: str, prompt: Any = "q", rewards: tuple[float, ...] = (0.5, -0.25), **columns: Any
) -> dict[str, Any]:
    text = columns.pop("text", "so\n\n#### 4")
    return {
        "id": name,
        "prompt": prompt,
        "step_rewards": list(rewards),
        "outcome_reward": sum(rewards),
        "steps": [{"text": text, "start": 0, "end": len(text)}],
        **columns,
    }


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def test_shards_are_read_together_and_responses_put_together_by_prompt(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}]
    first = write(tmp_path / "1.jsonl", [line("a", label=1), line("b", messages, label=False)])
    second = write(tmp_path / "2.jsonl", [line("c", rewards=(0.25,), text="no", label=0.5)])
    found = candidates(read_scored([first, second]))
    assert found.prompts == ["q", messages]
    assert found.ids == [["a", "c"], ["b"]]
    assert found.correct == [[1.0, 0.5], [0.0]]
    assert found.answers == [["4", None], ["4"]]
    assert [scores.tolist() for scores in found.scores("min")] == [[-0.25, 0.25], [-0.25]]
    assert [scores.tolist() for scores in found.scores("sum")] == [[0.25, 0.25], [0.25]]


def test_without_a_label_the_final_answer_is_compared_with_the_right_one() -> None:
    lines = [
        line("text", answer="4.0"),
        line("wrong", answer=5),
        line("column", answer="5", final_answer="5"),
        line("none", text="I do not know", answer="4"),
    ]
    found = candidates(lines)
    assert found.correct == [[1.0, 0.0, 1.0, 0.0]]
    assert found.answers == [["4", "4", "5", None]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there are no scored responses"),
        ("[1]\n", "line 1 is no scored response; give files that `implicit-prm score` wrote"),
        ('{"id": "a", "prompt": "q", "completion": "c"}\n', "line 1 is no scored response"),
        ("{\n", "line 1 is no scored response"),
        (json.dumps(line("a", rewards=())) + "\n", "line 1: step_rewards are no list of finite numbers"),
        (json.dumps(line("a") | {"step_rewards": ["x"]}) + "\n", "line 1: step_rewards are no list"),
        (json.dumps(line("a") | {"step_rewards": [float("nan")]}) + "\n", "line 1: step_rewards are no list"),
        (
            json.dumps(line("a")) + "\n" + json.dumps(line("b"))[:9],
            "line 2 was cut off; run `implicit-prm score`",
        ),
        ((json.dumps(line("a")) + "\n") * 2, r"line 2: the response 'a' is at .*jsonl, line 1 already"),
    ],
)
def test_what_is_no_file_of_scores_is_told_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text(content)
    with pytest.raises(ImplicitPRMError, match=message):
        list(read_scored([path]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line("a"), "nothing tells whether the response 'a' is right; give the rows a column label"),
        (line("a", label=2), "the label of the response 'a' is 2; it must be from 0 to 1"),
        (line("a", label="yes"), "the label of the response 'a' is 'yes'"),
        (line("a", label=float("nan")), "the label of the response 'a' is nan"),
        (line("a", None, label=1), "the response 'a' has no prompt"),
        (line("a", label=1, final_answer=[4]), r"the final_answer of the response 'a' is \[4\]; it must be"),
        (line("a", label=1) | {"steps": None}, "the response 'a' has no steps with their text"),
    ],
)
def test_a_response_that_cannot_be_judged_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ImplicitPRMError, match=message):
        candidates([row])


@pytest.mark.parametrize("prompt", [3, ["so"], [{"role": "user"}]])
def test_a_prompt_that_is_no_text_and_no_messages_is_not_shown(prompt: Any) -> None:
    assert prompt_text(line("a")) == "q"
    assert prompt_text(line("a", None, prompt_ids=[1])) == ""
    with pytest.raises(ImplicitPRMError, match="the prompt of the response 'a' is neither text nor"):
        prompt_text(line("a", prompt))


@pytest.mark.parametrize("found", ["1", 1.0, True, -2])
def test_a_first_error_is_an_index_or_minus_one(found: Any) -> None:
    assert first_wrong_step(line("a", first_error=-1)) == -1
    assert first_wrong_step(line("a")) is None
    with pytest.raises(ImplicitPRMError, match="the first_error of the response 'a' is "):
        first_wrong_step(line("a", first_error=found))


def test_a_first_error_among_other_steps_than_were_scored_is_told() -> None:
    steps = [{"text": "a\n\n", "start": 0, "end": 3}, {"text": "b", "start": 3, "end": 4}]
    given = {"first_error": 2, "step_rewards": [0.0, 1.0], "steps": steps}
    assert first_wrong_step(line("a", **given, step_spans=[[0, 3], [3, 4]])) == 2
    merged = line("a", **given, step_spans=[[0, 1], [1, 3], [3, 4]])
    with pytest.raises(ImplicitPRMError, match="'a' has 3 step_spans and 2 step rewards, so that its"):
        first_wrong_step(merged)
    cut = line("a", **given, step_spans=[[0, 3], [3, 9], [9, 12]], truncated=True)
    assert first_wrong_step(cut) == 2
    with pytest.raises(ImplicitPRMError, match="'a' has 3 step_spans"):
        first_wrong_step(merged | {"truncated": True})


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImplicitPRMError, match="there is no file"):
        list(read_scored([tmp_path / "none.jsonl"]))
