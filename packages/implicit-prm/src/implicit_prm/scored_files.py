"""What `implicit-prm score` wrote, read back: lines, and tables of the responses of each prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from implicit_prm.aggregation import aggregate_all
from implicit_prm.answers import extract_answer, grade, same_answer
from implicit_prm.errors import ImplicitPRMError

Line = Mapping[str, Any]


def read_scored(paths: Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """The lines of one or more files that `implicit-prm score` wrote, such as the shards of one job.

    Raises `ImplicitPRMError`, naming file and line, for what is no such line, for a last line that was cut
    off, and for an id that is there twice.
    """
    seen: dict[str, str] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise ImplicitPRMError(f"there is no file {path}")
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                where = f"{path}, line {number}"
                line = _line(content, where)
                if line["id"] in seen:
                    raise ImplicitPRMError(
                        f"{where}: the response {line['id']!r} is at {seen[line['id']]} already; give every "
                        "file once"
                    )
                seen[line["id"]] = where
                yield line
    if not seen:
        raise ImplicitPRMError("there are no scored responses in what was given")


def _line(content: bytes, where: str) -> dict[str, Any]:
    if not content.endswith(b"\n"):
        raise ImplicitPRMError(
            f"{where} was cut off; run `implicit-prm score` again, which completes the file"
        )
    try:
        line = json.loads(content)
    except ValueError:
        line = None
    if not isinstance(line, dict) or not {"id", "step_rewards", "outcome_reward"} <= line.keys():
        raise ImplicitPRMError(f"{where} is no scored response; give files that `implicit-prm score` wrote")
    rewards = line["step_rewards"]
    if not isinstance(rewards, list) or not rewards or not all(map(_is_finite, rewards)):
        raise ImplicitPRMError(f"{where}: step_rewards are no list of finite numbers; score it again")
    return {**line, "id": str(line["id"])}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass
class Candidates:
    """The responses of P prompts, a list for each prompt in the order in which they came.

    prompts       what the responses answer, as in the file
    ids           of the responses
    step_rewards  [S] of each response
    answers       its final answer, None where none is marked
    correct       its correctness in [0, 1]; empty where the file does not tell
    """

    prompts: list[Any] = field(default_factory=list)
    ids: list[list[str]] = field(default_factory=list)
    step_rewards: list[list[npt.NDArray[np.float32]]] = field(default_factory=list)
    answers: list[list[Hashable]] = field(default_factory=list)
    correct: list[list[float]] = field(default_factory=list)

    def scores(self, aggregate: str) -> list[npt.NDArray[np.float64]]:
        """The score of each response, by prompts. Raises `ImplicitPRMError` for an unknown aggregation."""
        return [aggregate_all(rewards, aggregate) for rewards in self.step_rewards]


def candidates(lines: Iterable[Line], *, judged: bool = True, answers: bool = True) -> Candidates:
    """The responses that the lines hold, put together by prompt.

    judged   correctness is wanted: a line's "label", else its final answer compared with its "answer"
    answers  final answers are wanted: a line's "final_answer", else the one that its text marks

    Raises `ImplicitPRMError`, naming the response, for a line without a prompt, and with `judged` for one
    that does not tell whether it is right.
    """
    found = Candidates()
    places: dict[str, int] = {}
    for line in lines:
        key = _prompt_key(line)
        if key not in places:
            places[key] = len(places)
            found.prompts.append(line.get("prompt", line.get("prompt_ids")))
            for table in (found.ids, found.step_rewards, found.answers, found.correct):
                table.append([])
        place = places[key]
        found.ids[place].append(line["id"])
        found.step_rewards[place].append(np.asarray(line["step_rewards"], dtype=np.float32))
        if answers:
            found.answers[place].append(final_answer(line))
        if judged:
            found.correct[place].append(correctness(line))
    return found


def _prompt_key(line: Line) -> str:
    for name in ("prompt", "prompt_ids"):
        if line.get(name) is not None:
            return json.dumps(line[name], sort_keys=True)
    raise ImplicitPRMError(
        f"the response {line['id']!r} has no prompt, so nobody knows which responses compete with it; keep "
        "that column"
    )


def prompt_text(line: Line) -> str:
    """The prompt as text, messages one after the other; nothing for one given as tokens.

    Raises `ImplicitPRMError` for one that is neither text nor messages.
    """
    prompt = line.get("prompt")
    if prompt is None or isinstance(prompt, str):
        return prompt or ""
    try:
        return "\n\n".join(str(message["content"]) for message in prompt)
    except (TypeError, KeyError) as error:
        raise ImplicitPRMError(
            f"the prompt of the response {line['id']!r} is neither text nor a list of messages"
        ) from error


def text_of(line: Line) -> str:
    """The scored text of a line: that of its steps. Raises `ImplicitPRMError` for a line without them."""
    try:
        return "".join(step["text"] for step in line["steps"])
    except (TypeError, KeyError) as error:
        raise ImplicitPRMError(
            f"the response {line['id']!r} has no steps with their text, which its answer is read from; score "
            "it again, or give it a column final_answer"
        ) from error


def final_answer(line: Line) -> Hashable:
    """The column "final_answer", or the answer that the text marks; None for none.

    Raises `ImplicitPRMError` for a final answer that is a list or an object.
    """
    if "final_answer" not in line:
        return extract_answer(text_of(line))
    answer: Any = line["final_answer"]
    if isinstance(answer, list | dict):
        raise ImplicitPRMError(
            f"the final_answer of the response {line['id']!r} is {answer!r}; it must be text or a number"
        )
    return answer


def first_wrong_step(line: Line) -> int | None:
    """The column "first_error": an index, or -1 where all steps are right; None where it is not there.

    Raises `ImplicitPRMError` for anything else, and where rewards are of fewer steps than "step_spans" has.
    """
    found = line.get("first_error")
    if found is not None and (type(found) is not int or found < -1):
        raise ImplicitPRMError(
            f"the first_error of the response {line['id']!r} is {found!r}; it must be the index of its first "
            "wrong step, counted from 0, or -1"
        )
    if found is not None:
        _check_spans(line)
    return found


def _check_spans(line: Line) -> None:
    """Steps without a token of their own are merged into others when a response is scored."""
    spans = line.get("step_spans")
    if spans is None:
        return
    end = len(text_of(line)) if line.get("truncated") else math.inf
    expected, found = sum(start < end for start, _ in spans), len(line["step_rewards"])
    if found != expected:
        raise ImplicitPRMError(
            f"the response {line['id']!r} has {expected} step_spans and {found} step rewards, so that its "
            "first_error would mean another step: a step without a token of its own was merged into its "
            "neighbour, or the spans are another response's; leave the response out"
        )


def correctness(line: Line) -> float:
    """The column "label", or whether the final answer is that of the column "answer".

    Raises `ImplicitPRMError` for a line with neither and for a label outside [0, 1].
    """
    label = line.get("label")
    answer = line.get("answer")
    if label is None and answer is not None:
        if "final_answer" in line:
            return float(same_answer(str(line["final_answer"]), str(answer)))
        return float(grade(text_of(line), str(answer)))
    if label is None:
        raise ImplicitPRMError(
            f"nothing tells whether the response {line['id']!r} is right; give the rows a column "
            "label (from 0 to 1) or answer (the right one), and score them again"
        )
    if not isinstance(label, int | float) or not 0 <= label <= 1:
        raise ImplicitPRMError(
            f"the label of the response {line['id']!r} is {label!r}; it must be from 0 to 1"
        )
    return float(label)
