from __future__ import annotations

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medxpertqa import MedXpertQAError, ParsedAnswer, parse_answer
from medxpertqa.parsing import PARSERS

GOLDEN = json.loads((files("medxpertqa.reproduce") / "official_golden.json").read_text(encoding="utf-8"))
"""Made once by running the official functions on invented replies; none of their code is here."""
WORDS = ["answer is", "final answer", "\\boxed{B}", "<think>", "</think>", "not A but", "(", "**", "option"]


@pytest.mark.parametrize(("column", "name"), enumerate(GOLDEN["columns"]))
def test_every_letter_is_the_official_functions_letter(column: int, name: str) -> None:
    n_options, parser, trigger = name.split()
    found = "".join(
        parse_answer(reply, int(n_options), parser, trigger=trigger).letter or "-"
        for reply, _ in GOLDEN["replies"]
    )
    assert found == "".join(letters[column] for _, letters in GOLDEN["replies"])


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("I think it is D", "I"),  # the pronoun counts
        ("A 57-year-old man most likely has option (D)", "A"),  # so does the article
        ("The answer is not A but C", "A"),
        ("Hepatitis C is likely; answer is J", "J"),
        ("A through E: I", "I"),
        ("b", None),
        ("AB", None),
        ("Option_B", None),
        ("K", None),
        ("", None),
        ("The answer is C and the answer is D", "C"),
        ("Among A through J, the answer is E. I understand.", "E"),
    ],
)
def test_the_official_parser_keeps_its_traps(reply: str, letter: str | None) -> None:
    assert parse_answer(reply, 10, "official").letter == letter


@pytest.mark.parametrize(
    ("reply", "letter", "rule"),
    [
        ("I think it is D", "D", "last-letter"),
        ("A 57-year-old man most likely has option (D)", "D", "last-letter"),
        ("not A but C", "C", "last-letter"),
        ("The answer is not A but C", "C", "statement"),
        ("The answer is not A.", None, "none"),
        (r"\boxed{\text{C}}", "C", "boxed"),
        (r"Final Answer: The final answer is $\boxed{B}$. I hope it is correct.", "B", "boxed"),
        ("<think>A? B?</think> The answer is (E).", "E", "statement"),
        ("<think>It must be B, so the answer is B", None, "none"),
        ("so it is B </think> C", "C", "leading"),
        ("Final answer: J", "J", "statement"),
        ("**Answer:** G", "G", "statement"),
        ("The correct answer is **(I) a made-up disease**", "I", "statement"),
        ("Answer: A", "A", "statement"),
        ("Answer: I cannot say", None, "none"),
        ("answer is (b).", "B", "statement"),
        ("The answer is a combination", None, "none"),
        ("Therefore, among A through J, the answer is E", "E", "statement"),
        ("Among A through J I would not choose", None, "none"),
        ("I cannot determine the answer.", None, "none"),
        ("**(B)** Vitamin K deficiency", "B", "leading"),
        ("E) the fifth", "E", "leading"),
        ("A", "A", "leading"),
        ("It is hepatitis C", None, "none"),
        ("I'd go with G", "G", "last-letter"),
        ("K", None, "none"),
    ],
)
def test_the_robust_parser_reads_the_stated_letter(reply: str, letter: str | None, rule: str) -> None:
    found = parse_answer(reply, 10)
    assert (found.letter, found.rule) == (letter, rule)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer is B or C.", "B"),
        ("Answer: C. No, the answer is D.", "D"),
        (r"\boxed{A} or \boxed{F}", "F"),
    ],
)
def test_two_stated_letters_are_marked_as_ambiguous(reply: str, letter: str) -> None:
    found = parse_answer(reply, 10)
    assert (found.letter, found.ambiguous) == (letter, True)


def test_a_quoted_option_counts_if_it_is_the_only_one_that_lies_in_no_longer_one() -> None:
    options = {"A": "Rest", "B": "Rest and  water", "C": "Moon dust"}
    assert parse_answer("give rest and water", 3, options=options) == ParsedAnswer("B", "option-text")
    assert parse_answer("moon dust, or else rest", 3, options=options).letter is None
    assert parse_answer("restless", 3, options=options).letter is None


@given(
    text=st.text() | st.lists(st.sampled_from([*"ABIJKabj", *WORDS]), max_size=12).map(" ".join),
    n_options=st.integers(2, 26),
    parser=st.sampled_from(PARSERS),
)
def test_no_text_makes_a_parser_raise_or_leave_the_range(text: str, n_options: int, parser: str) -> None:
    letter = parse_answer(text, n_options, parser).letter
    assert letter is None or "A" <= letter <= chr(64 + n_options)


@pytest.mark.parametrize("unit", ["A ", "(", "\\boxed{", "answer is ", "<think>", "**", "\n", "not A but "])
def test_time_grows_linearly_with_hostile_text(unit: str) -> None:
    # 50,000 characters; a pattern that backtracks over all pairs would take minutes.
    assert parse_answer(unit * (50_000 // len(unit)), 10).letter in (None, "A")


def test_impossible_arguments_are_named() -> None:
    with pytest.raises(MedXpertQAError, match="n_options is 27"):
        parse_answer("A", 27)
    with pytest.raises(MedXpertQAError, match="no parser 'best'; there are: official, "):
        parse_answer("A", 5, "best")  # type: ignore[arg-type]
    with pytest.raises(MedXpertQAError, match="no trigger 'few'"):
        parse_answer("A", 5, trigger="few")  # type: ignore[arg-type]
