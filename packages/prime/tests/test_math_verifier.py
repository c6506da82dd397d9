from __future__ import annotations

import json
import os
import random
import signal
import string
import threading
import time
from pathlib import Path

import pytest

from implicit_prime import PrimeError, PrimeWarning
from implicit_prime.verifiers import MathVerifier, workers
from implicit_prime.verifiers.base import VerifierResult
from implicit_prime.verifiers.judging import judge
from tenfold import data

pytest.importorskip("math_verify")

PATIENT = 120  # the machine may be busy; what hangs is tested with less


@pytest.fixture(scope="module")
def verifier():
    verifier = MathVerifier(timeout_s=PATIENT)
    yield verifier
    verifier.close()


def _scores(results: list[VerifierResult]) -> list[tuple[float, str]]:
    return [(result.score, result.status) for result in results]


JUDGED = [
    (r"so \boxed{\frac{1}{2}}", "0.5", 1.0, "ok"),
    (r"\boxed{2\frac{1}{2}}", r"\frac{5}{2}", 1.0, "ok"),
    (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0, "ok"),
    (r"\boxed{\frac{1}{\sqrt 2}}", r"\boxed{\frac{\sqrt{2}}{2}}", 1.0, "ok"),
    (r"\boxed{[0, 1)}", "[0,1)", 1.0, "ok"),
    (r"\boxed{[0, 1)}", "[0,1]", 0.0, "ok"),
    (r"\boxed{\{2, 1\}}", r"\{1,2\}", 1.0, "ok"),
    (r"\boxed{\{1\}}", r"\{1,2\}", 0.0, "ok"),  # no partial credit
    (r"\boxed{90}", r"90^\circ", 1.0, "ok"),
    (r"\boxed{50\%}", "0.5", 1.0, "ok"),
    (r"\boxed{0.333}", r"\frac{1}{3}", 0.0, "ok"),
    (r"\boxed{(1,2)}", "(2,1)", 0.0, "ok"),
    (r"\boxed{monday}", r"\text{Monday}", 1.0, "ok"),
    (r"\boxed{5} at first, no: \boxed{6}", "6", 1.0, "ok"),  # the last box, and it alone
    (r"\boxed{6} or \boxed{5}", "6", 0.0, "ok"),
    (r"\boxed{5}, \boxed{6}", "5", 0.0, "ok"),
    ("the answer is 6", "6", 0.0, "unparsed"),
    (r"cut off \boxed{6", "6", 0.0, "unparsed"),
    (r"\boxed{}", "6", 0.0, "unparsed"),
    ("", "6", 0.0, "unparsed"),
    (r"\boxed{no}", "on", 0.0, "ok"),
    (r"\boxed{6}", r"t(0,4]", 0.0, "error"),
]


@pytest.mark.parametrize(("completion", "reference", "score", "status"), JUDGED)
def test_the_last_box_is_judged_as_mathematics(completion, reference, score, status):
    result = judge(completion, reference, "boxed")
    assert (result.score, result.status) == (score, status)


def test_any_answer_is_what_math_verify_finds():
    assert judge("Thus $x = 6$.", "6", "any").score == 1
    assert judge("Thus $x = 7$.", "6", "any").score == 0
    assert judge("no idea", "6", "any").status == "unparsed"


def test_workers_judge_as_the_function_does_and_keep_the_order(verifier):
    results = verifier([row[0] for row in JUDGED], [row[1] for row in JUDGED])
    assert _scores(results) == [row[2:] for row in JUDGED]


def test_references_may_be_numbers_and_nothing_is_an_error(verifier):
    with pytest.warns(PrimeWarning, match="2 of 4 .* the first is row 2: the reference None is no answer"):
        results = verifier([r"\boxed{6}"] * 4, [6, 6.0, None, " "])
    assert _scores(results) == [(1.0, "ok"), (1.0, "ok"), (0.0, "error"), (0.0, "error")]
    assert verifier([], []) == []


def test_threads_may_share_a_verifier(verifier):
    found = {}

    def ask(number: int) -> None:
        found[number] = verifier([rf"\boxed{{{number}+x}}"], [f"x+{number}"])[0].score

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(6), 1.0)


@pytest.mark.slow
def test_a_hung_judgement_is_killed_and_the_others_are_judged():
    tower = r"\boxed{\sum_{k=1}^{10^{9}} \sin(k^{k})^{k!}}"  # sympy evaluates it term by term
    verifier = MathVerifier(timeout_s=4, workers=1)
    try:
        results = verifier([r"\boxed{1}", tower, r"\boxed{2}"], ["1", "0.123", "2"])
        assert _scores(results) == [(1.0, "ok"), (0.0, "timeout"), (1.0, "ok")]
    finally:
        verifier.close()


def test_a_worker_that_dies_is_an_error_of_its_row_only(verifier):
    verifier([r"\boxed{1}"], ["1"])
    for worker in verifier._pool._workers:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    results = verifier([r"\boxed{1}"] * 4, ["1"] * 4)
    broken = [result for result in results if result.status == "error"]
    assert 1 <= len(broken) <= 2
    assert "-9" in broken[0].detail
    assert _scores(verifier([r"\boxed{1}"] * 2, ["1"] * 2)) == [(1.0, "ok")] * 2


def test_workers_end_with_close_and_come_back(verifier):
    verifier([r"\boxed{1}"], ["1"])
    processes = [worker.process for worker in verifier._pool._workers]
    verifier.close()
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * len(processes)
    assert verifier([r"\boxed{1}"], ["1"])[0].score == 1


def test_workers_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(PrimeError, match="ended with 1 as it started"):
        MathVerifier()([r"\boxed{1}"], ["1"])


@pytest.mark.parametrize("settings", [{"extract": "box"}, {"timeout_s": 0}, {"workers": 0}])
def test_impossible_settings_are_named(settings):
    with pytest.raises(PrimeError, match=next(iter(settings))):
        MathVerifier(**settings)


def _noise(count: int) -> list[str]:
    alphabet = "0123456789xyz+-*/^_{}()[],.=<> $\\!%"
    commands = [r"\frac", r"\sqrt", r"\left(", r"\right)", r"\int", r"\begin{pmatrix}", r"\text{", r"\boxed{"]
    source = random.Random(0)
    pieces = [*alphabet, *commands, *string.ascii_letters, "é", "\n", "\0", "\ud800"]
    return ["".join(source.choices(pieces, k=source.randrange(40))) for _ in range(count)]


def test_noise_is_judged_without_a_fault(verifier):
    noise = _noise(100)
    results = verifier([rf"\boxed{{{text}}}" for text in noise], ["x+5"] * len(noise))
    assert {result.status for result in results} <= {"ok", "unparsed"}
    assert sum(result.score for result in results) == 0


@pytest.mark.long
def test_ten_thousand_random_strings_do_not_block():
    verifier = MathVerifier(timeout_s=20)
    noise = _noise(10_000)
    results = verifier([rf"\boxed{{{text}}}" for text in noise], ["x+5"] * len(noise))
    verifier.close()
    assert len(results) == 10_000
    assert sum(result.status == "error" for result in results) == 0
    assert sum(result.status == "timeout" for result in results) < 10


def _rows(name: str, file: str) -> list[dict]:
    folder: Path | None = data.datasets()[name].path()
    if folder is None:
        pytest.skip(f"data {name} is not available")
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


def _self_agreement(verifier: MathVerifier, golds: list[str]) -> float:
    results = verifier([rf"Therefore \boxed{{{gold.strip('$')}}}." for gold in golds], golds)
    return sum(result.score for result in results) / len(golds)


@pytest.mark.slow
def test_math500_agrees_with_itself_and_not_with_its_neighbour(verifier):
    golds = [row["answer"] for row in _rows("math500", "math500.jsonl")]
    assert len(golds) == 500
    assert _self_agreement(verifier, golds) >= 0.99
    others = verifier([rf"\boxed{{{gold}}}" for gold in golds], golds[1:] + golds[:1])
    same = sum(gold == other for gold, other in zip(golds, golds[1:] + golds[:1], strict=True))
    assert same <= sum(result.score for result in others) <= same + 5


@pytest.mark.slow
def test_olympiadbench_agrees_with_itself(verifier):
    rows = _rows("olympiadbench-answers", "olympiadbench_answers.jsonl")
    golds = [answer for row in rows for answer in row["final_answer"]]
    assert len(golds) == 675
    assert _self_agreement(verifier, golds) >= 0.97


def test_two_hundred_grade_school_answers_a_second_and_core(verifier):
    completions = [rf"\boxed{{{number:,}}}" for number in range(1500)]
    references = [str(number + number % 2) for number in range(1500)]
    judge(r"\boxed{x+1}", "1+x", "boxed")  # loads math-verify
    began = time.process_time()
    expected = [judge(*row, "boxed") for row in zip(completions, references, strict=True)]
    assert verifier(completions, references) == expected
    assert sum(result.score for result in expected) == 750
    assert 1500 / (time.process_time() - began) > 200  # judging, and handing out and back
