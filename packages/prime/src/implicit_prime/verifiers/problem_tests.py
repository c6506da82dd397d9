"""The tests of a programming problem, in the forms that data sets have them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.sandbox.base import OUTPUT_BYTES


@dataclass(frozen=True, slots=True)
class ProblemTests:
    """What a program is run on, in one of three ways.

    prelude  code before the program
    inputs   what it reads, with `outputs`, what it should print; or, where `call` names a function, JSON
             lists of its arguments, and `outputs` is the JSON of what it should return. Any of an output's
             readings will do; mostly there is one
    asserts  code that runs after it in its namespace, with neither inputs nor outputs
    """

    prelude: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[tuple[str, ...], ...] = ()
    call: str | None = None
    asserts: str | None = None


def read_tests(tests: Any) -> ProblemTests:
    """The tests of a problem, see `CodeVerifier`; `PrimeError` says why they are none."""
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except ValueError as error:
            raise PrimeError(f"tests are no JSON: {error}") from None
    if isinstance(tests, Mapping) and set(tests) == {"prelude", "assert_code"}:
        return _asserted(tests["prelude"], tests["assert_code"])
    if isinstance(tests, Mapping) and {"inputs", "outputs"} <= set(tests) <= _PAIRED:
        return _paired(**tests)
    keys = f"an object with {', '.join(map(str, tests))}" if isinstance(tests, Mapping) else repr(tests)[:80]
    raise PrimeError(f"tests have inputs and outputs, or prelude and assert_code, not {keys}")


_PAIRED = {"inputs", "outputs", "fn_name", "prelude"}


def _asserted(prelude: Any, asserts: Any) -> ProblemTests:
    if not (isinstance(prelude, str) and isinstance(asserts, str)):
        raise PrimeError("prelude and assert_code must be text")
    try:
        compile(asserts, "tests", "exec")
    except (SyntaxError, ValueError) as error:
        raise PrimeError(f"assert_code is no Python: {error}") from None
    return ProblemTests(prelude=prelude, asserts=asserts)


def _paired(inputs: Any, outputs: Any, fn_name: Any = None, prelude: Any = "") -> ProblemTests:
    if not (isinstance(inputs, Sequence) and isinstance(outputs, Sequence)) or isinstance(inputs, str):
        raise PrimeError("inputs and outputs must be lists")
    if not inputs or len(inputs) != len(outputs):
        raise PrimeError(f"{len(inputs)} inputs and {len(outputs)} outputs are no tests")
    if not isinstance(prelude, str) or not (fn_name is None or isinstance(fn_name, str)):
        raise PrimeError("prelude and fn_name must be text")
    wanted: list[tuple[str, ...]]
    if fn_name is None:
        given, wanted = [_text(one) for one in inputs], [(_text(one),) for one in outputs]
    else:
        given, wanted = [_arguments(one) for one in inputs], [_values(one) for one in outputs]
    if sum(max(map(len, readings)) for readings in wanted) > OUTPUT_BYTES // 4:
        raise PrimeError(f"outputs have more than {OUTPUT_BYTES // 4} characters in all")
    return ProblemTests(prelude, tuple(given), tuple(wanted), fn_name or None)


def _text(lines: Any) -> str:
    """What a program reads or prints: a text, or as APPS has it a list of lines."""
    if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
        return "\n".join(lines)
    if not isinstance(lines, str):
        raise PrimeError("inputs and outputs must be texts, what a program reads and prints")
    return lines


def _arguments(given: Any) -> str:
    """The JSON list of a call's arguments: a list, or as LiveCodeBench has it the JSON of each on a line."""
    if isinstance(given, list):
        return json.dumps(given)
    try:
        return json.dumps([json.loads(line) for line in given.strip().split("\n")])
    except (AttributeError, ValueError) as error:
        raise PrimeError(
            f"the arguments {str(given)[:80]!r} of a call are neither a list nor the JSON of each on a line"
        ) from error


def _values(wanted: Any) -> tuple[str, ...]:
    """The JSON of what a call should return: a text is that already.

    A list of one is also taken for its element: APPS has a list around some values, and accepts both.
    """
    if not isinstance(wanted, str):
        around = isinstance(wanted, list) and len(wanted) == 1
        return (json.dumps(wanted), json.dumps(wanted[0])) if around else (json.dumps(wanted),)
    try:
        json.loads(wanted)
    except ValueError as error:
        raise PrimeError(f"the value {wanted[:80]!r} that a call should return is no JSON") from error
    return (wanted,)
