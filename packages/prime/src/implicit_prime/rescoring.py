"""Responses in a file, judged anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.verifiers.base import Verifier, verify


def rescore(rows: Iterable[Mapping[str, Any]], verifier: Verifier) -> list[dict[str, Any]]:
    """The rows with the verifier's "score", "status" and "detail" of their "completion" by their "answer".

    A completion is text or messages, of which the last is judged. A score that was there is kept as
    "score_before". Raises `PrimeError`, naming the row from 1, for one without completion or answer.
    """
    given = [dict(row) for row in rows]
    for number, row in enumerate(given, 1):
        if row.get("completion") is None or row.get("answer") is None:
            raise PrimeError(
                f"row {number} has the columns {sorted(row)}; it needs a 'completion' and an 'answer'"
            )
    completions = [_text(row["completion"], number) for number, row in enumerate(given, 1)]
    results = verify(verifier, completions, [row["answer"] for row in given])
    return [
        row | ({"score_before": row["score"]} if "score" in row else {}) | asdict(result)
        for row, result in zip(given, results, strict=True)
    ]


def disagreements(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many of the `rescore`d rows had another score before."""
    return sum("score_before" in row and row["score_before"] != row["score"] for row in rows)


def _text(completion: Any, number: int) -> str:
    if isinstance(completion, list) and completion and isinstance(completion[-1], Mapping):
        completion = completion[-1].get("content")
    if not isinstance(completion, str):
        raise PrimeError(f"row {number}: a completion is text or messages, not {completion!r:.60}")
    return completion
