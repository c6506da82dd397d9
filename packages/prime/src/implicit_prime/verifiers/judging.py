"""One mathematical answer against its reference. It may take for ever: see `mathematics` for the limits."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

from implicit_prime.verifiers.base import VerifierResult
from implicit_prm.answers import boxed_answer, same_answer

_PLAIN = re.compile(r"[-+\d.,/ ]+|[A-Za-z ]+")


def judge(completion: str, reference: str, extract: Literal["boxed", "any"]) -> VerifierResult:
    r"""Judge the last box, or what math-verify finds, against a reference: an answer, bare or boxed.

    There is no partial credit: an answer of several values must have all of them and no other.
    """
    gold = boxed_answer(reference) or reference.strip()
    if not _readable(gold):
        return VerifierResult(0.0, "error", f"the reference {reference[:80]!r} cannot be read as mathematics")
    if extract == "any":
        return _judge_any(completion, gold)
    answer = boxed_answer(completion)
    if not answer:
        return VerifierResult(0.0, "unparsed", "no closed \\boxed{} with an answer")
    return VerifierResult(float(same_answer(answer, gold, seconds=None)))


def _judge_any(completion: str, gold: str) -> VerifierResult:
    from math_verify import parse, verify

    found = parse(completion, parsing_timeout=None)
    if not found:
        return VerifierResult(0.0, "unparsed", "math-verify finds no answer")
    return VerifierResult(float(verify(_parsed(gold), found, timeout_seconds=None)))


def _readable(gold: str) -> bool:
    """Does math-verify get more out of it than the text itself? Numbers and words need no asking."""
    if _PLAIN.fullmatch(gold):
        return bool(gold.strip())
    return any(not isinstance(value, str) for value in _parsed(gold))


@lru_cache(maxsize=1 << 14)
def _parsed(gold: str) -> list[Any]:
    from math_verify import parse

    return parse(f"${gold.strip('$')}$", parsing_timeout=None)
