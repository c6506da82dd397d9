"""Rows of public data sets as rows of ours (`implicit_prm.records`), told by their columns.

Their prompts and responses become messages, since the paper's code puts them through the chat template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.steps import join_steps

Row: TypeAlias = dict[str, Any]

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
"""The columns of GSM8K's example solutions: size of the model, and how its solution was chosen."""


_LEFT_OUT = ("prompt_ids", "completion", "completion_ids", "completions", "chosen", "rejected")
"""Columns that a row does not have where they are None, as in tables whose rows are of several kinds."""


def own_row(row: Mapping[str, Any]) -> Row:
    """A row of one of the formats below as ours, or a row of ours checked and with float labels.

    rollouts         dataset, prompt, completions, correctness, reference
                     (Windy0822/ultrainteract_math_rollout; its column steps is the completions, split)
    pairs            trajectory, chosen, rejected (openbmb/UltraInteract_pair)
    test responses   prompt, response, correctness, reference (the official best-of-N evaluation)
    MATH-500         problem, solution, answer
    ProcessBench     problem, steps, label: the index of the first wrong step or -1, here `first_error`
    GSM8K            question, answer
    model solutions  question, ground_truth, and four models' solutions (GSM8K's example solutions)

    Raises `ImplicitPRMError` for other columns, or content of another kind than the format's.
    """
    row = {key: value for key, value in row.items() if value is not None or key not in _LEFT_OUT}
    ours = "prompt" in row or "prompt_ids" in row
    for columns, convert in _FORMATS.items():
        if columns <= row.keys() and ("prompt" in columns or not ours):
            try:
                return _checked(convert(row))
            except (KeyError, TypeError, AttributeError) as error:
                named = ", ".join(sorted(columns))
                raise ImplicitPRMError(
                    f"the row has the columns of a public format ({named}), but not its content: {error!r}"
                ) from error
    if not ours:
        if not {"chosen", "rejected"} <= row.keys():
            raise ImplicitPRMError(f"no prompt; the columns {sorted(row)} are of no format that is known")
        return _checked(with_prompt(row))
    return _checked(dict(row))


def messages(role: str, content: str) -> list[dict[str, str]]:
    """One message as a conversation. Raises `TypeError` for a content that is no text."""
    if not isinstance(content, str):
        raise TypeError(f"{role}: {content!r} is no text")
    return [{"role": role, "content": content}]


def _rollouts(row: Mapping[str, Any]) -> Row:
    return {
        **_kept(row, "id", "dataset"),
        "prompt": messages("user", row["prompt"]),
        "completions": [messages("assistant", text) for text in row["completions"]],
        "labels": list(row["correctness"]),
        **_reference(row),
    }


def _pairs(row: Mapping[str, Any]) -> Row:
    turns = [messages(turn["from"], turn["value"]) for turn in row["trajectory"]]
    return {
        **_kept(row, "id", "parent_id", "task", "dataset"),
        "prompt": [message for turn in turns for message in turn],
        "chosen": messages("assistant", row["chosen"]),
        "rejected": messages("assistant", row["rejected"]),
    }


def _test_response(row: Mapping[str, Any]) -> Row:
    return {
        **_kept(row, "id", "idx"),
        "prompt": messages("user", row["prompt"]),
        "completion": messages("assistant", row["response"]),
        "label": row["correctness"],
        **_reference(row),
    }


def _math(row: Mapping[str, Any]) -> Row:
    name = {"id": row["unique_id"]} if "unique_id" in row else {}
    return {
        **name,
        **_kept(row, "id", "answer", "solution", "subject", "level"),
        "prompt": messages("user", row["problem"]),
    }


def _processbench(row: Mapping[str, Any]) -> Row:
    if isinstance(row["steps"], str):
        raise TypeError("steps: a text is no list of steps")
    steps, first_error = [step.strip() for step in row["steps"]], row["label"]
    if "" in steps:
        raise ImplicitPRMError(
            f"step {steps.index('')} of {len(steps)}, counted from 0, is empty: without it the label would "
            "mean another step; leave the row out"
        )
    if type(first_error) is not int or not -1 <= first_error < len(steps):
        raise ImplicitPRMError(f"the label {first_error!r} is no index of its {len(steps)} steps, and not -1")
    text, spans = join_steps(steps)
    return {
        **_kept(row, "id", "generator", "final_answer_correct"),
        "prompt": messages("user", row["problem"]),
        "completion": messages("assistant", text),
        "step_spans": [list(span) for span in spans],
        "first_error": first_error,
    }


def _gsm8k(row: Mapping[str, Any]) -> Row:
    solution, _, answer = row["answer"].rpartition("####")
    return {
        **_kept(row, "id"),
        "prompt": messages("user", row["question"]),
        "solution": solution.strip(),
        "answer": answer.strip(),
    }


def _model_solutions(row: Mapping[str, Any]) -> Row:
    return {
        **_kept(row, "id"),
        "prompt": messages("user", row["question"]),
        "completions": [messages("assistant", row[model]["solution"]) for model in MODELS],
        "labels": [row[model]["is_correct"] for model in MODELS],
        "models": list(MODELS),
    }


# Told by their columns: the first one of which a row has all.
_FORMATS: dict[frozenset[str], Callable[[Mapping[str, Any]], Row]] = {
    frozenset({"prompt", "completions", "correctness"}): _rollouts,
    frozenset({"trajectory", "chosen", "rejected"}): _pairs,
    frozenset({"prompt", "response", "correctness"}): _test_response,
    frozenset({"problem", "steps", "label"}): _processbench,
    frozenset({"problem", "solution", "answer"}): _math,
    frozenset({"question", "ground_truth", *MODELS}): _model_solutions,
    frozenset({"question", "answer"}): _gsm8k,
}


def _kept(row: Mapping[str, Any], *columns: str) -> Row:
    return {column: row[column] for column in columns if column in row}


def _reference(row: Mapping[str, Any]) -> Row:
    """The right answer, if there is one."""
    return {} if row.get("reference") is None else {"answer": str(row["reference"])}


def with_prompt(row: Mapping[str, Any]) -> Row:
    """A pair without a prompt, two conversations that differ in their last message: what they share is it.

    Raises `ImplicitPRMError` for sides that are no conversations, or differ before.
    """
    chosen, rejected = row["chosen"], row["rejected"]
    if any(not isinstance(side, Sequence) or isinstance(side, str) for side in (chosen, rejected)):
        raise ImplicitPRMError("a pair without a prompt must be two conversations, lists of messages")
    if len(chosen) < 2 or list(chosen[:-1]) != list(rejected[:-1]):
        raise ImplicitPRMError("the conversations of a pair must be equal up to their last message")
    return {**row, "prompt": list(chosen[:-1]), "chosen": [chosen[-1]], "rejected": [rejected[-1]]}


def _checked(row: Row) -> Row:
    for column in ("prompt", "completion", "chosen", "rejected"):
        if column in row and not _is_text(row[column], empty=column == "prompt"):
            raise ImplicitPRMError(f"{column} is {_short(row[column])}: {_no_text(row[column])}")
    if "completions" in row:
        completions = row["completions"]
        if not isinstance(completions, Sequence) or isinstance(completions, str) or not completions:
            raise ImplicitPRMError(f"completions is {_short(completions)}: no list of responses")
        for number, completion in enumerate(completions):
            if not _is_text(completion):
                raise ImplicitPRMError(f"completion {number} is {_short(completion)}: {_no_text(completion)}")
        if "labels" in row and not isinstance(row["labels"], Sequence):
            raise ImplicitPRMError(f"labels is {_short(row['labels'])}: no list with one a completion")
        if "labels" in row and len(row["labels"]) != len(completions):
            raise ImplicitPRMError(
                f"there are {len(completions)} completions and {len(row['labels'])} labels"
            )
    if "label" in row:
        row = {**row, "label": _label(row["label"])}
    if "labels" in row:
        row = {**row, "labels": [_label(label) for label in row["labels"]]}
    return row


def _is_text(value: Any, *, empty: bool = False) -> bool:
    if isinstance(value, str):
        return empty or bool(value.strip())
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value)
    )


def _no_text(value: Any) -> str:
    if isinstance(value, str):
        return "it is empty, and there is nothing to reward; leave the row out"
    return "neither text nor a list of messages"


def _label(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ImplicitPRMError(f"the label {value!r} is outside [0, 1]")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
