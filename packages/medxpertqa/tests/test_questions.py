from __future__ import annotations

import json
from string import ascii_uppercase
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medxpertqa import DataError, Question
from medxpertqa.questions import BODY_SYSTEMS, MEDICAL_TASKS, QUESTION_TYPES

texts = st.text(min_size=1).filter(str.strip)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    options = draw(st.lists(texts, min_size=2, max_size=10))
    letters = ascii_uppercase[: len(options)]
    return Question(
        id=draw(st.sampled_from(["Text-1", "MM-7", "own-3"])),
        stem=draw(texts),
        options=dict(zip(letters, options, strict=True)),
        label=draw(st.sampled_from(letters)),
        images=tuple(draw(st.lists(texts, max_size=3))),
        medical_task=draw(st.sampled_from(["", *MEDICAL_TASKS])),
        body_system=draw(st.sampled_from(["", *BODY_SYSTEMS])),
        question_type=draw(st.sampled_from(["", *QUESTION_TYPES])),
        explanation=draw(st.text()),
    )


def _record(**changes: Any) -> dict[str, Any]:
    made = {
        "id": "Text-0",
        "question": "Which?\nAnswer Choices: (A) one (B) two",
        "options": {"A": "one", "B": "two"},
        "label": "B",
        "medical_task": "Diagnosis",
        "body_system": "Nervous",
        "question_type": "Reasoning",
    }
    return made | changes


@settings(deadline=None)
@given(questions(), st.sampled_from(["hub", "official"]))
def test_a_record_of_either_form_gives_the_same_question_again(
    question: Question, form: Literal["hub", "official"]
) -> None:
    record = json.loads(json.dumps(question.to_record(form)))
    assert Question.from_record(record) == question


def test_both_forms_by_hand() -> None:
    question = Question.from_record(_record())
    official = _record(
        options=[{"letter": "A", "content": "one"}, {"letter": "B", "content": "two"}], label=["B"]
    )
    assert Question.from_record(official) == question
    assert (question.stem, question.answer, question.letters) == ("Which?", "two", "AB")
    assert question.to_record("official") == official


def test_options_are_read_from_the_question_where_there_is_no_field() -> None:
    record = _record(question="Which?\nAnswer Choices: (A) one (1) (B) two (A) or so (C) ", label="C")
    del record["options"]
    assert Question.from_record(record).options == {"A": "one (1)", "B": "two (A) or so", "C": ""}


@settings(deadline=None)
@given(questions(), st.randoms(use_true_random=False))
def test_an_order_of_the_options_permutes_the_label_and_keeps_its_text(
    question: Question, chance: Any
) -> None:
    order = list(range(question.n_options))
    chance.shuffle(order)
    turned = question.permuted(order)
    assert turned.answer == question.answer
    assert [turned.options[letter] for letter in turned.letters] == [
        question.options[question.letters[place]] for place in order
    ]


def test_the_papers_name_of_a_task_is_the_data_sets() -> None:
    assert Question.from_record(_record(medical_task="Basic Medicine")).medical_task == "Basic Science"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "C"}, "Text-0: label is 'C', which is none of the options A, B"),
        ({"label": ["A", "B"]}, r"Text-0: label is \['A', 'B'\]; needed: one letter"),
        ({"question": ""}, "Text-0: question is missing or empty"),
        ({"options": {"A": "one", "B": "three"}}, "Text-0: the options in the question string differ"),
        (
            {"options": {"A": "one", "C": "two"}, "question": "Which?"},
            "Text-0: options letters are A, C; needed: A, B",
        ),
        ({"options": ["one", "two"]}, "Text-0: options are neither"),
        ({"options": {"A": 1, "B": 2}}, "Text-0: option A is no text"),
        ({"options": None, "question": "Which?"}, "Text-0: there is no field options, nor 'Answer Choices"),
        ({"images": [3]}, "Text-0: images has 3, which names no file"),
        ({"images": "a.png"}, "Text-0: images is a str, which it cannot be"),
        ({"medical_task": ["Diagnosis"]}, "Text-0: medical_task is a list, which it cannot be"),
        ({"label_rationale": {"text": "x"}}, "Text-0: label_rationale is a dict, which it cannot be"),
        ({"id": ["Text-0"]}, "id is a list, which it cannot be"),
        ({"id": None}, "a question without id: id is missing or empty"),
        (
            {"options": [{"letter": 1, "content": "one"}, {"letter": 2, "content": "two"}], "question": "W?"},
            "Text-0: options letters are 1, 2; needed: A, B",
        ),
    ],
)
def test_a_wrong_record_is_named_with_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Question.from_record(_record(**changes))


def test_ids_may_be_numbers_from_0_and_a_subtask_is_kept() -> None:
    question = Question.from_record(_record(id=0, subtask="cause"))
    assert (question.id, question.subtask) == ("0", "cause")
    assert Question.from_record(question.to_record("official")) == question
    assert "subtask" not in Question.from_record(_record()).to_record()


def test_an_order_that_is_no_permutation_is_named() -> None:
    with pytest.raises(DataError, match=r"Text-0: options cannot be ordered by \[0, 0\]"):
        Question.from_record(_record()).permuted([0, 0])
