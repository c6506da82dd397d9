from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from medxpertqa import MedXpertQAError, Question, get_protocol

GOLDEN = json.loads((files("medxpertqa.reproduce") / "official_golden.json").read_text(encoding="utf-8"))
QUESTIONS = {record["id"]: Question.from_record(record) for record in GOLDEN["records"]}


@pytest.mark.parametrize("case", GOLDEN["messages"], ids=lambda case: f"{case['protocol']} {case['record']}")
def test_every_message_is_the_official_codes_message(case: dict[str, Any]) -> None:
    protocol, question = get_protocol(case["protocol"]), QUESTIONS[case["record"]]
    assert protocol.n_turns == len(case["requests"])
    first = protocol.first_turn(question)
    requests = [first]
    if protocol.n_turns == 2:
        requests.append(protocol.second_turn(question, first, "  Reply number 1 is B. \n"))
    assert requests == case["requests"]


def test_the_request_parameters_are_the_official_clients() -> None:
    assert get_protocol("official-cot").generate_config == {"temperature": 0, "max_tokens": 2048, "seed": 0}
    assert get_protocol("official-r1").generate_config == {"max_completion_tokens": 8192, "seed": 0}
    assert get_protocol("official-qvq").generate_config["max_tokens"] == 8192


def test_few_shot_shows_the_demonstrations_with_their_answers_first() -> None:
    shown, asked = QUESTIONS["MM-0"], QUESTIONS["Text-0"]
    messages = get_protocol("few-shot", [shown]).first_turn(asked)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == "The answer is C."
    assert [part["type"] for part in messages[1]["content"]] == ["text", "image", "image"]
    assert messages[3]["content"][0]["text"] == f"Q: {asked.to_prompt_string().strip()}\nA:"


def test_what_a_protocol_cannot_do_is_said() -> None:
    with pytest.raises(MedXpertQAError, match="no protocol 'official'; there are: official-cot, "):
        get_protocol("official")
    with pytest.raises(MedXpertQAError, match="few-shot needs demonstrations"):
        get_protocol("few-shot")
    with pytest.raises(MedXpertQAError, match="official-ao has one turn"):
        get_protocol("official-ao").second_turn(QUESTIONS["MM-0"], [], "A")
