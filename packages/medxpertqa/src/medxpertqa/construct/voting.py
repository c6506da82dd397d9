"""The AI filter: questions that a basic model always answers right are too easy for the benchmark.

The paper: three basic models with four samples each, two advanced ones with one sample, 14 votes a question.
Rule 1: a basic model right in all samples removes the question. Rule 2: all votes wrong keeps it. What is
between, the paper does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medxpertqa.errors import DataError

Mixed = Literal["advanced_wrong", "keep", "drop"]


@dataclass(frozen=True)
class Votes:
    """For one question: by model, whether each of its samples was right."""

    basic: Mapping[str, Sequence[bool]]
    advanced: Mapping[str, Sequence[bool]]


@dataclass(frozen=True)
class AIFilter:
    """Which questions stay, and the rule that decided; one entry a question."""

    keep: list[bool]
    reasons: list[str]


def ai_expert_filter(votes: Sequence[Votes], mixed: Mixed = "advanced_wrong") -> AIFilter:
    """Apply rule 1, then rule 2, then `mixed` to what neither decides.

    "advanced_wrong" keeps a question if no advanced model was right in any sample.

    Raises:
        DataError: no votes for a question, a model without samples, or an unknown `mixed`.
    """
    if mixed not in ("advanced_wrong", "keep", "drop"):
        raise DataError(f"mixed {mixed!r}: must be advanced_wrong, keep or drop")
    judged = [_judge(question, position, mixed) for position, question in enumerate(votes)]
    return AIFilter([keep for keep, _ in judged], [reason for _, reason in judged])


def _judge(votes: Votes, position: int, mixed: Mixed) -> tuple[bool, str]:
    models = {**votes.basic, **votes.advanced}
    if not models:
        raise DataError(f"question {position} has no votes")
    silent = [name for name, samples in models.items() if not len(samples)]
    if silent:
        raise DataError(f"question {position}: the model {silent[0]} has no samples")
    if any(all(samples) for samples in votes.basic.values()):
        return False, "a basic model is always right"
    if not any(any(samples) for samples in models.values()):
        return True, "all models are wrong"
    if mixed == "advanced_wrong":
        right = any(any(samples) for samples in votes.advanced.values())
        return (False, "an advanced model is right") if right else (True, "no advanced model is right")
    return mixed == "keep", f"mixed votes: {mixed}"
