"""GSM8K's own form of an answer: `#### N`."""

from __future__ import annotations

import re
from fractions import Fraction

from implicit_prime.verifiers.base import VerifierResult

_NUMBER = r"[ \t]*\$?[ \t]*([-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+))"
_MARKED = re.compile("####" + _NUMBER)
_ALONE = re.compile(_NUMBER + r"\s*")
_DIGITS = 1000  # Python refuses to read thousands of digits, and no answer has them


def gsm8k_answer(text: str) -> Fraction | None:
    """The number after the last `####` that has one, commas and a dollar sign aside, or None."""
    found = _MARKED.findall(text)
    return _value(found[-1]) if found else None


def judge_gsm8k(completion: str, reference: object) -> VerifierResult:
    """Is the marked number that of the reference, a number or a solution that marks one?"""
    text = str(reference)
    alone = _ALONE.fullmatch(text)
    expected = _value(alone[1]) if alone else gsm8k_answer(text)
    if expected is None:
        return VerifierResult(0.0, "error", f"the reference {text[:80]!r} has no number")
    answer = gsm8k_answer(completion)
    if answer is None:
        return VerifierResult(0.0, "unparsed", "no number after ####")
    return VerifierResult(float(answer == expected))


def _value(number: str) -> Fraction | None:
    return Fraction(number.replace(",", "").rstrip(".")) if len(number) <= _DIGITS else None
