"""Responses in a file, judged anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.verifiers.base import Verifier, VerifierResult, verify
from implicit_prime.verifiers.named import AbilityVerifier


def rescore(rows: Iterable[Mapping[str, Any]], verifier: Verifier) -> list[dict[str, Any]]:
    """The rows with the verifier's "score", "status" and "detail" of their "completion" by their "answer".

    A completion is text or messages, of which the last is judged; an `AbilityVerifier` goes by the row's
    "ability". A response that could not be judged, "error", has the score None. A score that was there is
    kept as "score_before". Raises `PrimeError`, naming the row from 1, for one that lacks what is needed.
    """
    given = [dict(row) for row in rows]
    of_several = isinstance(verifier, AbilityVerifier)
    needed = ("completion", "answer", "ability") if of_several else ("completion", "answer")
    for number, row in enumerate(given, 1):
        if any(row.get(name) is None for name in needed):
            raise PrimeError(
                f"row {number} has the columns {sorted(row)}; it needs {', '.join(map(repr, needed))}"
            )
    completions = [_text(row["completion"], number) for number, row in enumerate(given, 1)]
    references = [(row["ability"], row["answer"]) if of_several else row["answer"] for row in given]
    results = verify(verifier, completions, references)
    return [
        row | ({"score_before": row["score"]} if "score" in row else {}) | _verdict(result)
        for row, result in zip(given, results, strict=True)
    ]


def mean_score(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean of the `rescore`d rows that could be judged; None where none could."""
    scores = [row["score"] for row in rows if row["score"] is not None]
    return sum(scores) / len(scores) if scores else None


def disagreements(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many of the `rescore`d rows had another score before."""
    return sum("score_before" in row and row["score_before"] != row["score"] for row in rows)


def _verdict(result: VerifierResult) -> dict[str, Any]:
    return asdict(result) | ({"score": None} if result.status == "error" else {})


def _text(completion: Any, number: int) -> str:
    if isinstance(completion, list) and completion and isinstance(completion[-1], Mapping):
        completion = completion[-1].get("content")
    if not isinstance(completion, str):
        raise PrimeError(f"row {number}: a completion is text or messages, not {completion!r:.60}")
    return completion
