"""E3: messages and letters against those that the official code made once, on invented text."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from medxpertqa.parsing import parse_answer
from medxpertqa.protocols import get_protocol
from medxpertqa.questions import Question

REPLY = "  Reply number 1 is B. \n"
"""What the official code was given as the first reply of two turns."""


def golden() -> dict[str, Any]:
    """The recorded answers of the official functions: `columns`, `replies`, `records` and `messages`."""
    text = (files("medxpertqa.reproduce") / "official_golden.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def parity_metrics() -> dict[str, float]:
    """How many letters and conversations there are, and how many are not the official ones."""
    recorded = golden()
    wrong = sum(letter_differences(recorded, place) for place in range(len(recorded["columns"])))
    wrong += sum(not same_messages(case, recorded["records"]) for case in recorded["messages"])
    entries = len(recorded["columns"]) * len(recorded["replies"]) + len(recorded["messages"])
    return {"parity_differences": wrong, "parity_entries": entries}


def letter_differences(recorded: dict[str, Any], column: int) -> int:
    """In how many replies the parser of a column finds another letter than the official function did."""
    n_options, parser, trigger = recorded["columns"][column].split()
    return sum(
        (parse_answer(reply, int(n_options), parser, trigger=trigger).letter or "-") != letters[column]
        for reply, letters in recorded["replies"]
    )


def same_messages(case: dict[str, Any], records: list[dict[str, Any]]) -> bool:
    """Whether the protocol of a recorded conversation sends the same requests."""
    question = Question.from_record(next(record for record in records if record["id"] == case["record"]))
    protocol = get_protocol(case["protocol"])
    requests = [protocol.first_turn(question)]
    if protocol.n_turns == 2:
        requests.append(protocol.second_turn(question, requests[0], REPLY))
    return requests == case["requests"]
