from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm import answers
from implicit_prm.answers import extract_answer, grade, group_answers, same_answer

DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "implicit-prm"


@pytest.fixture
def without_math_verify(monkeypatch):
    monkeypatch.setattr(answers, "_math_verify", lambda: None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $x = \boxed{\frac{3}{4}}$.", r"\frac{3}{4}"),
        (r"\boxed{1} at first, but then \boxed{ 2 }", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"the set \boxed{\left\{x \mid x > 0\right\}} it is", r"\left\{x \mid x > 0\right\}"),
        (r"cut off \boxed{\frac{1}{", None),
        ("She has 9 * 2 = $<<9*2=18>>18\n#### 18", "18"),
        (r"#### 3 and then \boxed{4}", "4"),
        ("The answer is 3.5 dollars. I hope so.", "3.5 dollars"),
        ("**Answer:** 12", "12"),
        ("Final answer: B.", "B"),
        ("The answer is: 1.\nNo: the answer is 2.", "2"),
        ("She eats 7 meals\nA: 224", "224"),
        ("A: 3 is wrong\nso 4", None),
        ("There are 7 of them", None),
        ("", None),
    ],
)
def test_the_final_answer_is_what_a_solution_marks_last(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", "18.00"),
        ("1/2", "0.5"),
        (r"\frac12", "0.5"),
        (r"-\dfrac{3}{4}", "-.75"),
        ("70,000", "$70000"),
        (r"1{,}234", "1234"),
        ("1,100", "1100"),
        ("-1,234,567.5", "-1234567.5"),
        (r"x = 12,345 \text{ miles}", "12345"),
        (r"\frac{1,000}{3}", "1000/3"),
        (r"50\%", "50"),
        (r"90^\circ", "90"),
        ("5 dollars", "5"),
        (r"12\text{ cm}^2", "12"),
        (r"\text{Monday}", "monday"),
        (r"\text{(C)}", "C"),
        ("x = 5", "5"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})"),
        (r"3\sqrt{2}.", r"$3 \sqrt{2}$"),
    ],
)
def test_the_same_answer_in_another_notation_needs_no_math_verify(one, other, without_math_verify):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", "81"),
        ("10000000", "10000001"),
        ("0.33", "1/3"),
        ("1/2", "1/3"),
        ("1/0", "0"),
        ("no", "on"),
        ("Monday", "Sunday"),
        ("A", "B"),
        ("x", "y"),
        (r"\{1,2\}", "[1,3]"),
        ("(1,234)", "(1234)"),
        (r"\left(1,234\right)", "1234"),
        ("[1,100]", "[1100]"),
        (r"\{1,100\}", r"\{1100\}"),
        ("1, 100", "1100"),
        ("1,234,5", "12345"),
        ("1234,567", "1234567"),
        ("", ""),
        ("$", ""),
        ("", "5"),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_different_answers_stay_different(one, other, installed, request):
    if not installed:
        request.getfixturevalue("without_math_verify")
    assert not same_answer(one, other)
    assert not same_answer(other, one)


def test_math_verify_sees_what_notation_hides():
    pytest.importorskip("math_verify")
    assert same_answer("x^2+2x+1", "(x+1)^2")
    assert same_answer(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")
    assert same_answer("2^{-1}", "0.5")


def test_without_math_verify_only_what_is_plain_is_the_same(without_math_verify):
    assert not same_answer("x^2+2x+1", "(x+1)^2")


def test_no_answer_is_the_same_as_nothing():
    assert not same_answer(None, "1")
    assert not same_answer("1", None)
    assert not same_answer(None, None)


def test_answers_are_compared_in_a_thread_too():
    pytest.importorskip("math_verify")
    found = []
    thread = threading.Thread(target=lambda: found.append(same_answer("3+x", "x+3")))
    thread.start()
    thread.join()
    assert found == [True]


@given(st.integers(-(10**7), 10**7), st.integers(1, 99))
@settings(deadline=None)
def test_a_number_is_the_same_in_every_way_to_write_it(above, below):
    ways = [f"{above}/{below}", rf"\frac{{{above}}}{{{below}}}", rf" $\tfrac{{{above}}}{{{below}}}$."]
    assert group_answers(ways).tolist() == [0, 0, 0]
    whole = [str(above), f"{above:,}", f"{above}.0", f"{above} apples"]
    assert group_answers(whole).tolist() == [0] * 4


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=40)
def test_any_text_is_compared_without_an_error(text):
    extract_answer(text)
    same_answer(text, "5 apples and")


def test_groups_are_numbered_by_first_appearance_and_what_has_no_answer_has_no_group():
    assert group_answers(["7", None, "3", "7.0", "03", None]).tolist() == [0, -1, 1, 0, 1, -1]
    assert group_answers([5, 3, 5, None, (1, 2), (1, 2), "5"]).tolist() == [0, 1, 0, -1, 2, 2, 3]
    assert group_answers([]).tolist() == []


def test_a_solution_is_graded_against_an_answer_or_a_solution():
    assert grade("so it is \\boxed{18}", "9 * 2 = 18\n#### 18")
    assert grade("#### 18", "18")
    assert not grade("#### 19", "18")
    assert not grade("it must be 18", "18")


@pytest.mark.skipif(not DATA.is_dir(), reason="$TENFOLD_DATA has no implicit-prm")
def test_the_answers_of_math500_are_what_its_own_solutions_mark(without_math_verify):
    rows = [json.loads(line) for line in (DATA / "math500.jsonl").read_text().splitlines()]
    assert len(rows) == 500
    assert [row["unique_id"] for row in rows if not grade(row["solution"], row["answer"])] == []


@pytest.mark.skipif(not DATA.is_dir(), reason="$TENFOLD_DATA has no implicit-prm")
def test_openais_labels_of_5276_real_solutions_agree_with_ours(without_math_verify):
    rows = [
        json.loads(line) for line in (DATA / "gsm8k_example_model_solutions.jsonl").read_text().splitlines()
    ]
    solutions = [
        (solution["solution"], row["ground_truth"], solution["is_correct"])
        for row in rows
        for key, solution in row.items()
        if key not in ("question", "ground_truth")
    ]
    assert len(solutions) == 5276
    wrong = [case for case in solutions if grade(case[0], case[1]) != case[2]]
    assert wrong == []
