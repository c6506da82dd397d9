from __future__ import annotations

import math
import warnings

import pytest

from implicit_prime import PrimeError, PrimeWarning
from implicit_prime.verifiers import ExactVerifier, MathVerifier, VerifierResult, verify
from implicit_prm.tasks.modchain import ModChain


def test_scores_lie_between_0_and_1():
    for score in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            VerifierResult(score)
    with pytest.raises(ValueError, match="timeout"):
        VerifierResult(0.5, "late")


def test_any_callable_is_a_verifier():
    results = verify(
        lambda answers, references: [float(a == r) for a, r in zip(answers, references, strict=True)],
        "ab",
        "ac",
    )
    assert results == [VerifierResult(1.0), VerifierResult(0.0)]
    given = [VerifierResult(0.5, "timeout", "late")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verify(lambda answers, references: given, ["a"], [1]) == given


def test_a_row_for_which_a_verifier_raises_costs_no_other_row():
    def fragile(completions, references):
        if "bad" in completions:
            raise RuntimeError("no such answer")
        return [1.0] * len(completions)

    with pytest.warns(PrimeWarning, match=r"1 of 3 .* row 1: .*RuntimeError: no such answer"):
        results = verify(fragile, ["a", "bad", "c"], [0, 0, 0])
    assert [result.status for result in results] == ["ok", "error", "ok"]
    assert [result.score for result in results] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("value", [math.nan, 1.5, -1, None, "good"])
def test_what_is_no_score_is_an_error_of_the_verifier(value):
    with pytest.warns(PrimeWarning, match="no score"):
        results = verify(lambda completions, references: [value, 1.0], ["a", "b"], [0, 0])
    assert [result.status for result in results] == ["error", "ok"]


def test_a_verifier_that_makes_an_impossible_result_costs_no_other_row():
    def careless(completions, references):
        return [VerifierResult(float(text)) for text in completions]

    with pytest.warns(PrimeWarning, match="nan"):
        results = verify(careless, ["1", "nan"], [0, 0])
    assert [result.status for result in results] == ["ok", "error"]


def test_results_that_do_not_match_the_responses_are_refused():
    with pytest.raises(PrimeError, match="1 results for 2"):
        verify(lambda completions, references: [1.0], ["a", "b"], [0, 0])
    with pytest.raises(PrimeError, match="2 responses, but 1 references"):
        verify(ExactVerifier(), ["a", "b"], ["a"])
    with pytest.raises(PrimeError, match="2 responses, but 0 references"):
        MathVerifier("gsm8k")(["a", "b"], [])


def test_exact_answers_are_those_of_a_task():
    task = ModChain()
    prompt = task.prompts(1, seed=0)[0]
    solution = task.solve(prompt)
    verifier = ExactVerifier(task.answer)
    right = task.answer(solution)
    results = verifier([solution, solution, "", solution], [right, right + 1, right, None])
    assert [(result.score, result.status) for result in results] == [
        (1.0, "ok"),
        (0.0, "ok"),
        (0.0, "unparsed"),
        (0.0, "error"),
    ]
    assert [result.score for result in ExactVerifier()([" yes\n", "yes!"], ["yes", "yes"])] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("completion", "reference", "score", "status"),
    [
        ("9 * 2 = 18\n#### 18", "so\n#### 18", 1.0, "ok"),
        ("#### 1,234.50", "1234.5", 1.0, "ok"),
        ("#### $70000", 70000, 1.0, "ok"),
        ("#### 3\nno:\n#### 4 dollars.", 4, 1.0, "ok"),
        ("#### 3\nno:\n#### 4", 3, 0.0, "ok"),
        ("#### 1", "10", 0.0, "ok"),
        ("#### -5", 5, 0.0, "ok"),
        ("the answer is 18", "18", 0.0, "unparsed"),
        ("#### many", "18", 0.0, "unparsed"),
        ("#### " + "9" * 5000, "18", 0.0, "unparsed"),
        ("", "18", 0.0, "unparsed"),
        ("#### 18", "eighteen", 0.0, "error"),
        ("#### 18", None, 0.0, "error"),
    ],
)
def test_gsm8k_answers_are_the_last_marked_number(completion, reference, score, status):
    (result,) = MathVerifier("gsm8k")([completion], [reference])
    assert (result.score, result.status) == (score, status)
