"""What a verifier is, and how any of them is asked without one bad row costing the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from implicit_prime.errors import PrimeError, PrimeWarning

Status = Literal["ok", "timeout", "unparsed", "error"]


@dataclass(frozen=True)
class VerifierResult:
    """The outcome reward of one response.

    score   in [0, 1]; 0 unless something was found right
    status  "ok": judged. "unparsed": the response has no answer that could be judged, which is its own fault.
            "timeout": judging took too long. "error": the verifier or the reference is at fault, the score
            means nothing and should not be learned from
    detail  what happened, for people; empty where there is nothing to say

    Raises `ValueError` for a score outside [0, 1], NaN, or an unknown status.
    """

    score: float
    status: Status = "ok"
    detail: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"a verifier's score must lie in [0, 1], not {self.score}")
        if self.status not in get_args(Status):
            raise ValueError(f"{self.status!r} is no status; allowed: {', '.join(get_args(Status))}")


Verifier = Callable[[Sequence[str], Sequence[Any]], Sequence["float | VerifierResult"]]
"""(completions, references) -> a score or a result for each. Any callable will do."""


def verify(verifier: Verifier, completions: Sequence[str], references: Sequence[Any]) -> list[VerifierResult]:
    """Ask a verifier, of whatever make. No row costs another one its score.

    If it raises, it is asked again row by row. Rows for which it raises, or gives NaN or a score outside
    [0, 1], are "error", and a `PrimeWarning` tells how many and why the first.
    Raises `PrimeError` if the lengths differ, or for anything but one result a row; passes on a `PrimeError`
    of the verifier's own, which is about its set-up.
    """
    check_lengths(completions, references)
    try:
        given = list(verifier(completions, references))
    except PrimeError:
        raise
    except Exception:
        given = [_ask_one(verifier, *row) for row in zip(completions, references, strict=True)]
    if len(given) != len(completions):
        raise PrimeError(f"the verifier gave {len(given)} results for {len(completions)} responses")
    results = [_result(value) for value in given]
    faults = [
        (row, result)
        for row, (result, value) in enumerate(zip(results, given, strict=True))
        if result.status == "error" and result is not value
    ]
    warn_of_faults(faults, len(results))
    return results


def check_lengths(completions: Sequence[str], references: Sequence[Any]) -> None:
    """Raise `PrimeError` unless there is a reference for each completion."""
    if len(completions) != len(references):
        raise PrimeError(f"{len(completions)} responses, but {len(references)} references")


def warn_of_faults(faults: Sequence[tuple[int, VerifierResult]], rows: int) -> None:
    """Tell of rows (number, result) that were not judged through no fault of the response."""
    if faults:
        row, first = faults[0]
        warnings.warn(
            f"{len(faults)} of {rows} responses could not be judged; the first is row {row}: {first.detail}",
            PrimeWarning,
            stacklevel=3,
        )


def _ask_one(verifier: Verifier, completion: str, reference: Any) -> Any:
    try:
        (value,) = verifier([completion], [reference])
    except PrimeError:
        raise
    except Exception as error:
        return error
    return value


def _result(value: Any) -> VerifierResult:
    if isinstance(value, VerifierResult):
        return value
    if isinstance(value, Exception):
        return VerifierResult(0.0, "error", f"the verifier raised {type(value).__name__}: {value}")
    try:
        return VerifierResult(float(value))
    except (TypeError, ValueError):
        return VerifierResult(0.0, "error", f"the verifier gave {value!r}, which is no score in [0, 1]")
