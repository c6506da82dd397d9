"""Programs: the share of a problem's tests that a response's program passes, in a sandbox."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.sandbox import BubblewrapSandbox, Sandbox, SandboxResult
from implicit_prime.verifiers.base import VerifierResult, check_lengths, warn_of_faults
from implicit_prime.verifiers.harness import TESTS_AT_FULL_TIME, UNPARSED, WALL_PER_CPU
from implicit_prime.verifiers.problem_tests import ProblemTests, read_tests

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TOLERANCE = 1e-6


class CodeVerifier:
    """The share of the tests that pass; the program of a response is its last fenced block of Python.

    A response without a fence is taken for a program as it stands, or for the rest of one that "prelude"
    begins; if it is none, it is "unparsed". Tests, as a mapping or the JSON of one, are either

        {"inputs": [...], "outputs": [...]}    what the program reads and should print. Outputs are compared
                                               outside the sandbox, token by token, decimals to 1e-6
        the same and "fn_name": str            the function, or method of a class Solution, to call. An input
                                               is the list of its arguments, or the JSON of each on a line; an
                                               output what it returns, or its JSON; a list of one value
                                               stands for that value, too. Compared outside, too
        {"prelude": str, "assert_code": str}   prelude and program run, then the code with its asserts: 1
                                               or 0. Ending early is no way to pass

    All may have a "prelude", code before the program. Asserts share a process with it, as everywhere: one
    that hunts for its tests in memory, or returns objects that equal everything, is not found out.

    sandbox  where programs run; by default a `BubblewrapSandbox`
    cpu_s    CPU seconds of one test. All tests of a problem may take four times as much, those that it does
             not get to count as failed; of wall time it is four times as much again
    workers  programs at a time; by default one a core

    Raises `PrimeError`, with what to do, if there is no sandbox or it does not run programs.
    """

    def __init__(
        self, sandbox: Sandbox | None = None, cpu_s: float = 5, *, workers: int | None = None
    ) -> None:
        if not cpu_s > 0 or (workers is not None and workers < 1):
            raise PrimeError(f"cpu_s={cpu_s} must be positive and workers={workers} at least 1")
        self.sandbox = BubblewrapSandbox() if sandbox is None else sandbox
        self.cpu_s = math.ceil(cpu_s)
        self.workers = workers or os.cpu_count() or 1
        trial = self._judge("print(input())", ProblemTests(inputs=("x",), outputs=(("x",),)))
        if trial != VerifierResult(1.0):
            raise PrimeError(f"{type(self.sandbox).__name__} does not run programs: {trial.detail}")

    def __call__(self, completions: Sequence[str], tests: Sequence[Any]) -> list[VerifierResult]:
        """A result for each, in order. Tests that are none and a failing sandbox are an "error", warned of.

        Raises `PrimeError` if the lengths differ.
        """
        check_lengths(completions, tests)
        with ThreadPoolExecutor(self.workers) as pool:
            results = list(pool.map(self._judge_or_fault, completions, tests))
        warn_of_faults([(n, r) for n, r in enumerate(results) if r.status == "error"], len(results))
        return results

    def _judge_or_fault(self, completion: str, tests: Any) -> VerifierResult:
        try:
            return self._judge(completion, read_tests(tests))
        except PrimeError as error:
            return VerifierResult(0.0, "error", str(error))

    def _judge(self, completion: str, tests: ProblemTests) -> VerifierResult:
        program = _program(completion, tests.prelude)
        if program is None:
            return VerifierResult(0.0, "unparsed", "no program")
        token = secrets.token_hex(16)
        expected = tests.outputs if tests.asserts is None else ((token,),)
        job: dict[str, Any] = {"program": program, "cpu_s": self.cpu_s}
        job["output_bytes"] = 1000 + 4 * max(len(one) for readings in expected for one in readings)
        if tests.asserts is None:
            job |= {"inputs": tests.inputs, "call": tests.call}
        else:
            job |= {"asserts": tests.asserts, "token": token}
        run = self.sandbox.run(
            _harness(),
            json.dumps(job),
            cpu_s=self.cpu_s,
            wall_s=10 + (TESTS_AT_FULL_TIME + 1) * WALL_PER_CPU * self.cpu_s,
        )
        return _score(run, expected, same_output if tests.call is None else same_value)


def _program(completion: str, prelude: str) -> str | None:
    blocks = _FENCE.findall(completion)
    python = [code for language, code in blocks if language.lower() in ("python", "python3", "py")]
    unnamed = [code for language, code in blocks if not language]
    if prelude and not prelude.endswith("\n"):
        prelude += "\n"
    if python or unnamed:
        return prelude + (python or unnamed)[-1]
    if "```" in completion or not completion.strip():  # cut off, or in another language
        return None
    return prelude + completion


def _score(
    run: SandboxResult, expected: Sequence[Sequence[str]], same: Callable[[str, str], bool]
) -> VerifierResult:
    if run.stdout == UNPARSED:
        return VerifierResult(0.0, "unparsed", f"no program: {run.stderr[-200:]}")
    try:
        reports = [(str(status), str(output)) for status, output in json.loads(run.stdout)]
    except (ValueError, TypeError, RecursionError):  # it was ended by what it ran
        why = f"the tests were ended ({run.status}): {run.stderr[-200:]}"
        return VerifierResult(0.0, "timeout" if run.status == "timeout" else "ok", why)
    passed = sum(
        status == "ok" and any(same(output, wanted) for wanted in readings)
        for (status, output), readings in zip(reports, expected, strict=False)  # time may have run out
    )
    late = len(reports) < len(expected) or any(status == "timeout" for status, _ in reports)
    failed = f"{passed} of {len(expected)} tests passed; {run.stderr[-200:]}"
    return VerifierResult(
        passed / len(expected), "timeout" if late else "ok", failed if passed < len(expected) else ""
    )


def same_output(output: str, expected: str) -> bool:
    """The same tokens; of numbers with a point or exponent, such within 1e-6, absolute or relative."""
    got, wanted = output.split(), expected.split()
    return len(got) == len(wanted) and all(map(_same_token, got, wanted))


def same_value(output: str, expected: str) -> bool:
    """The same value, both as JSON; numbers that are not whole within 1e-6, absolute or relative."""
    try:
        return _equal(json.loads(output), json.loads(expected))
    except (ValueError, RecursionError):
        return False


def _equal(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(_equal, got, wanted))
    if isinstance(wanted, dict):
        return (
            isinstance(got, dict)
            and got.keys() == wanted.keys()
            and all(_equal(got[key], value) for key, value in wanted.items())
        )
    if isinstance(wanted, float) and isinstance(got, float | int):
        return got == wanted or math.isclose(got, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(got == wanted)


def _same_token(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    if wanted.lstrip("+-").isdigit() or not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    return math.isclose(float(got), float(wanted), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


@cache
def _harness() -> str:
    return Path(__file__).with_name("harness.py").read_text(encoding="utf-8")
