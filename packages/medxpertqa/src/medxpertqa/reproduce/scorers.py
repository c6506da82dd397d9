"""E3 and E6: the recorded replies, read by the official function and by every scorer of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medxpertqa.adapters.lm_eval import process_results
from medxpertqa.datasets import OFFICIAL_PARSERS
from medxpertqa.protocols import Protocol
from medxpertqa.questions import Question
from medxpertqa.results import Record, Results, score_records

TRIGGERS = {
    "cot": "Therefore, among {start} through {end}, the answer is",
    "ao": "Among {start} through {end}, the answer is",
}
"""What the official client gives its parser for the two kinds of prompt."""


def compared(
    folder: Path, results: Results, questions: Sequence[Question], protocol: Protocol
) -> dict[str, Any]:
    """How many of the run's replies two readers read differently, and how many samples its log has twice.

    `scorer_differences` are those where our scorer, the inspect scorer (as logged while the run went on) and
    the lm-eval task differ in a letter, `parity_differences` those where the official function differs from
    our official parser; None where that function is not to be had.
    """
    again = score_records(results.records, protocol.parser, questions=questions, trigger=protocol.trigger)
    logged, twice = inspect_letters(folder)
    differences = 0
    for place, record in enumerate(again.records):
        ours = {name: answers[place].letter for name, answers in again.answers.items()}
        harness = lm_eval_letters(record)
        differences += not ours == logged[record.id, record.order] == harness
    return {
        "scored": len(results.records),
        "scorer_differences": differences,
        "twice": twice,
        "parity_differences": official_differences(results, protocol),
    }


def inspect_letters(
    folder: Path,
) -> tuple[dict[tuple[str, tuple[int, ...]], dict[str, str | None]], int]:
    """What the inspect scorer read, by id and option order, and how many samples the last log has twice."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    last = list_eval_logs(str(folder), recursive=False, descending=False)[-1]
    samples = read_eval_log(last).samples or []
    letters = {}
    for sample in samples:
        (score,) = (sample.scores or {}).values()
        found = {name: answer["letter"] for name, answer in (score.metadata or {})["answers"].items()}
        letters[sample.metadata["id"], tuple(sample.metadata["order"])] = found
    return letters, len(samples) - len(letters)


def lm_eval_letters(record: Record) -> dict[str, str | None]:
    """The letters that `process_results` of the lm-eval tasks goes by: it is asked whether each is right."""
    document = {
        "id": record.id,
        "stem": "",
        "options": list((record.options or {}).values()),
        "images": [],
    }
    found: dict[str, str | None] = {"official": None, "robust": None}
    for letter in record.options or {}:
        scores = process_results({**document, "label": letter}, [record.response])
        for parser, metric in (("official", "acc_official"), ("robust", "acc")):
            if scores[metric] == 1:
                found[parser] = letter
    return found


def official_differences(results: Results, protocol: Protocol) -> int | None:
    """In how many replies the official function finds another letter; None if it is not on this machine."""
    folder = OFFICIAL_PARSERS.path()
    if folder is None:
        return None
    cleanse = official_function(folder / "utils.py")
    differences = 0
    for record, answer in zip(results.records, results.answers["official"], strict=True):
        sample = {"options": list(range(record.n_options)), "label": [record.label]}
        found = cleanse(
            "zero_shot", TRIGGERS[protocol.trigger], record.response.strip(), "medxpertqa", "text", sample
        )
        differences += found != ([answer.letter] if answer.letter else [])
    return differences


def official_function(file: Path) -> Callable[..., list[str]]:
    """`answer_cleansing` out of the official `eval/utils.py`, without the libraries that its file imports.

    The file is a named data set, so its SHA-256 has been compared; it is no part of this package.
    """
    tree = ast.parse(file.read_text("utf-8"))
    chosen = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    module = ast.Module([node for node in chosen if node.name == "answer_cleansing"], [])
    scope: dict[str, Any] = {"re": re}
    exec(compile(module, str(file), "exec"), scope)  # noqa: S102  # its checksum was compared
    function: Callable[..., list[str]] = scope["answer_cleansing"]
    return function
