"""GSM8K-chain: the calculations of GSM8K's own solutions, as chains of binary operations with a known truth.

A solution whose marked calculations are all `a op b = r` with integers of 0 to 999, and whose last result is
the answer, is a program: "48/2;#1+48?" asks for 48/2, then for the result of step 1 plus 48. The response is
"48/2=24;24+48=72;", a character a token, a step a calculation. Training prompts keep a program and draw some
of its numbers anew; test prompts are the test split's programs with their own numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.records import read_rows
from implicit_prm.tasks.base import Grade, grade_steps
from implicit_prm.tasks.vocabulary import word_tokenizer

LARGEST = 999
FEWEST, MOST = 2, 6
TRIES = 20

_MARKED = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_CALCULATION = re.compile(r"(\d+)([-+*/])(\d+)")
_PART = re.compile(r"(#?\d+)([-+*/])(#?\d+)")
_RESULT = re.compile(r"=(\d{1,6})$")

Part = tuple[str, str, str]
"""Left operand, operator, right operand; "#1" is the result of the first part."""


def read_programs(path: str | Path) -> list[str]:
    """The prompts of a GSM8K file whose solutions are programs.

    Raises `ImplicitPRMError` as `read_rows` does, and for rows without a solution.
    """
    found = []
    for number, row in enumerate(read_rows(path), 1):
        if "solution" not in row or "answer" not in row:
            raise ImplicitPRMError(f"{path}, row {number} has no worked solution: is it a file of GSM8K?")
        program = program_of(row["solution"], row["answer"])
        if program is not None:
            found.append(program)
    return found


def program_of(solution: str, answer: str) -> str | None:
    """The prompt for the calculations of one solution of GSM8K, or None if it is no program.

    An operand that is the result of an earlier step refers to it, to the latest if there are several.
    """
    parts: list[Part] = []
    results: list[int] = []
    for expression, result in _MARKED.findall(solution):
        found = _CALCULATION.fullmatch(expression.replace(" ", ""))
        if found is None:
            return None
        left, operator, right = int(found[1]), found[2], int(found[3])
        value = calculate(left, operator, right)
        if value is None or str(value) != result.strip() or max(left, right) > LARGEST:
            return None
        parts.append((_operand(left, results), operator, _operand(right, results)))
        results.append(value)
    if not FEWEST <= len(parts) <= MOST or str(results[-1]) != answer.replace(",", ""):
        return None
    return _text(parts)


def calculate(left: int, operator: str, right: int) -> int | None:
    """The result, if it is an integer of 0 to 999."""
    if operator == "/":
        value = left // right if right and left % right == 0 else -1
    else:
        value = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return value if 0 <= value <= LARGEST else None


@dataclass(frozen=True)
class GSM8KChain:
    """The task: programs to train on and to judge on (`read_programs`), and the seed of what is drawn.

    Raises `ImplicitPRMError` if one of the two is empty.
    """

    train: Sequence[str]
    test: Sequence[str]
    seed: int = 0

    splitter = "regex:;"
    """How a response is split into steps."""

    def __post_init__(self) -> None:
        if not self.train or not self.test:
            raise ImplicitPRMError(
                "there are no programs to train on, or none to judge on: see read_programs"
            )

    @classmethod
    def from_files(cls, train: str | Path, test: str | Path, seed: int = 0) -> GSM8KChain:
        """The task of GSM8K's two files. Raises `ImplicitPRMError` as `read_programs`."""
        return cls(tuple(read_programs(train)), tuple(read_programs(test)), seed)

    def prompts(self, count: int, seed: int) -> list[str]:
        """Programs of the training split, about half of their numbers drawn anew; none is a test prompt."""
        random = np.random.default_rng([self.seed, 0, seed])
        found: list[str] = []
        while len(found) < count:
            prompt = self._varied(self.train[int(random.integers(len(self.train)))], random)
            if prompt not in self._held_out:
                found.append(prompt)
        return found

    def test_prompts(self, count: int, seed: int) -> list[str]:
        """Different programs of the test split, with their own numbers.

        Raises `ImplicitPRMError` for more than there are.
        """
        if count > len(self._held_out):
            raise ImplicitPRMError(f"there are {len(self._held_out)} test prompts, not {count}")
        random = np.random.default_rng([self.seed, 1, seed])
        return [str(prompt) for prompt in random.permutation(sorted(self._held_out))[:count]]

    def demonstrations(self, count: int, seed: int) -> list[tuple[str, str]]:
        """Prompts with their right responses: a generator errs while it has not learned to calculate."""
        return [(prompt, self.solve(prompt)) for prompt in self.prompts(count, seed)]

    def solve(self, prompt: str) -> str:
        """The right response. Raises `ImplicitPRMError` for what is no prompt of this task."""
        parts = _parse(prompt)
        results = _run(parts)
        if results is None:
            raise ImplicitPRMError(f"{prompt!r} leaves the integers of 0 to {LARGEST}")
        return "".join(f"{_expected(part, results)};" for part in parts)

    def grade(self, prompt: str, completion: str) -> Grade:
        """Judge each step against the operands it should have, given the response's own earlier results."""
        parts = _parse(prompt)
        steps = completion.removesuffix(";").split(";") if completion else []
        results: list[int | None] = []
        right = []
        for part, step in zip(parts, steps, strict=False):
            right.append(step == _expected(part, results))
            found = _RESULT.search(step)
            results.append(int(found[1]) if found else None)
        right += [False] * (len(steps) - len(right))
        correct = len(steps) == len(parts) and self.answer(completion) == self.answer(self.solve(prompt))
        return grade_steps(right, len(parts), correct)

    def answer(self, completion: str) -> int | None:
        """The result of the last step, if the response ends in a whole one."""
        found = _RESULT.search(completion.removesuffix(";")) if completion.endswith(";") else None
        return int(found[1]) if found else None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A character a token, `<pad>` and `<eos>`."""
        return word_tokenizer(list("0123456789+-*/=;#?"), between="")

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(self.test)

    @cached_property
    def _numbers(self) -> list[str]:
        """Every number of the training programs, as often as it stands there."""
        parts = [part for prompt in self.train for part in _parse(prompt)]
        return [operand for left, _, right in parts for operand in (left, right) if operand[0] != "#"]

    def _varied(self, prompt: str, random: np.random.Generator) -> str:
        parts = _parse(prompt)
        for _ in range(TRIES):
            changed = [
                (self._maybe_drawn(left, random), operator, self._maybe_drawn(right, random))
                for left, operator, right in parts
            ]
            if _run(changed) is not None:
                return _text(changed)
        return prompt

    def _maybe_drawn(self, operand: str, random: np.random.Generator) -> str:
        if operand[0] == "#" or random.random() < 0.5:
            return operand
        return self._numbers[int(random.integers(len(self._numbers)))]


def _operand(value: int, results: list[int]) -> str:
    places = [place for place, result in enumerate(results, 1) if result == value]
    return f"#{places[-1]}" if places else str(value)


def _text(parts: Iterable[Part]) -> str:
    return ";".join("".join(part) for part in parts) + "?"


def _parse(prompt: str) -> list[Part]:
    found = [_PART.fullmatch(part) for part in prompt.removesuffix("?").split(";")]
    parts = [(part[1], part[2], part[3]) for part in found if part is not None]
    known = all(
        operand[0] != "#" or 1 <= int(operand[1:]) <= place
        for place, (left, _, right) in enumerate(parts)
        for operand in (left, right)
    )
    if None in found or not known or not prompt.endswith("?"):
        raise ImplicitPRMError(
            f"{prompt!r} is no prompt of this task: calculations such as 48/2;#1+48? where #1 is a result"
        )
    return parts


def _run(parts: Iterable[Part]) -> list[int] | None:
    """The results, or None if one is not an integer of 0 to 999."""
    results: list[int] = []
    for left, operator, right in parts:
        a, b = (int(_resolved(operand, results)) for operand in (left, right))
        value = calculate(a, operator, b)
        if value is None:
            return None
        results.append(value)
    return results


def _resolved(operand: str, results: Sequence[int]) -> str:
    return str(results[int(operand[1:]) - 1]) if operand[0] == "#" else operand


def _expected(part: Part, results: Sequence[int | None]) -> str | None:
    """The right step, given the results so far; None if it needs one that is missing or has no result."""
    left, operator, right = part
    a, b = (results[int(operand[1:]) - 1] if operand[0] == "#" else int(operand) for operand in (left, right))
    value = calculate(a, operator, b) if a is not None and b is not None else None
    return None if value is None else f"{a}{operator}{b}={value}"
