"""The human filter: how badly exam takers answered a question, and the threshold of its difficulty level.

B = (1/N) Σ_i (y_i - p_i)², N options, p the share of answers each got, y one-hot: higher is harder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from medxpertqa.errors import DataError

Level = Literal["easy", "medium", "hard"]
LEVELS: tuple[Level, ...] = get_args(Level)
Normalisation = Literal["paper", "multiclass", "skill"]
TOP_PERCENT: Mapping[Level, float] = {"hard": 25.0, "medium": 14.0, "easy": 3.0}
"""What share of all scores, from the hardest down, is above the threshold of each level."""


def brier(shares: Any, answer: int, normalise: Normalisation = "paper") -> float:
    """Return the Brier score of answer shares (N,) against the right option's position `answer`.

    "paper" is B as above, in [0, 2/N]; "multiclass" is N·B, in [0, 2]; "skill" is 1 - B/B_uniform with
    B_uniform = (N - 1)/N², where higher is EASIER and uniform answers have 0.

    Raises:
        DataError: fewer than 2 shares, a negative one, a sum that is not 1 (within 1e-6), no such option.
    """
    p = np.asarray(shares, dtype=float)
    if p.ndim != 1 or len(p) < 2 or not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-6:
        raise DataError(f"answer shares {np.round(p, 4).tolist()}: at least 2, none negative, with sum 1")
    if not 0 <= answer < len(p):
        raise DataError(f"answer {answer}: there are {len(p)} options, counted from 0")
    n = len(p)
    score = float(((np.eye(n)[answer] - p) ** 2).sum()) / n
    if normalise == "paper":
        return score
    if normalise == "multiclass":
        return score * n
    if normalise == "skill":
        return 1 - score * n**2 / (n - 1)
    raise DataError(f"normalise {normalise!r}: must be paper, multiclass or skill")


def hardness(shares: Any, answer: int, normalise: Normalisation = "paper") -> float:
    """Return `brier` so that higher is harder under each normalisation: "skill" with the other sign."""
    score = brier(shares, answer, normalise)
    return -score if normalise == "skill" else score


@dataclass(frozen=True)
class HumanFilter:
    """Which questions stay, why, and the scores.

    `keep` and `reasons` have one entry a question; `scores` are B, NaN without answers; `thresholds` go by
    level; `retention` is the share kept under either reading of the paper.
    """

    keep: list[bool]
    reasons: list[str]
    scores: np.ndarray
    thresholds: dict[str, float]
    retention: dict[str, float]


def human_filter(
    scores: Sequence[float | None],
    levels: Sequence[str | None],
    mode: Literal["top", "literal"] = "top",
    top_percent: Mapping[Level, float] = TOP_PERCENT,
) -> HumanFilter:
    """Keep the questions that people found hard for their level; without score or level a question passes.

    The paper's thresholds are "maximum at the 25th, minimum at the 3rd percentile". Read from the top (the
    default), a question stays if B >= the (100 - q)-th percentile of all B, q = `top_percent[level]`; with
    the 16.78 % that pass unscored this can meet the 27.0 % that table 1 keeps. Read literally, it stays if
    B >= the q-th percentile, which keeps 79 to 97 %. Percentiles by linear interpolation.

    Raises:
        DataError: lengths differ, an unknown level or mode, a percentage outside [0, 100], an infinite score.
    """
    if len(scores) != len(levels):
        raise DataError(f"{len(scores)} scores and {len(levels)} levels: needed: one each a question")
    if mode not in ("top", "literal"):
        raise DataError(f"mode {mode!r}: must be top or literal")
    for level in LEVELS:
        if not 0 <= top_percent.get(level, -1) <= 100:
            raise DataError(f"top_percent has no percentage in [0, 100] for the level {level}")
    unknown = [level for level in levels if level is not None and level not in LEVELS]
    if unknown:
        raise DataError(f"level {unknown[0]!r}: must be one of {', '.join(LEVELS)}, or None")
    values = np.array([np.nan if score is None else score for score in scores], dtype=float)
    if np.isinf(values).any():
        raise DataError(f"the score of question {int(np.flatnonzero(np.isinf(values))[0])} is infinite")
    known = values[~np.isnan(values)]
    both = {}
    for name in ("top", "literal"):
        cut = {q: 100 - top_percent[q] if name == "top" else top_percent[q] for q in LEVELS}
        limits: dict[str, float] = {
            q: float(np.percentile(known, cut[q])) if known.size else math.nan for q in LEVELS
        }
        both[name] = (limits, [_judge(v, q, limits) for v, q in zip(values, levels, strict=True)])
    thresholds, judged = both[mode]
    return HumanFilter(
        keep=[keep for keep, _ in judged],
        reasons=[reason for _, reason in judged],
        scores=values,
        thresholds=thresholds,
        retention={
            name: sum(keep for keep, _ in rows) / len(rows) if rows else 0.0
            for name, (_, rows) in both.items()
        },
    )


def _judge(score: float, level: str | None, limits: Mapping[str, float]) -> tuple[bool, str]:
    if np.isnan(score):
        return True, "no human answers"
    if level is None:
        return True, "no difficulty level"
    return (True, "hard enough") if score >= limits[level] else (False, "too easy for people")


def difficulty_levels(ratings: Sequence[float | None]) -> list[str | None]:
    """Scale experts' ratings (higher is harder) to [0, 1] and cut them at 1/3 and 2/3 into three levels.

    No rating stays None; if all ratings are equal, all are "medium".
    """
    known = [rating for rating in ratings if rating is not None]
    if not np.isfinite(known).all():
        raise DataError("a difficulty rating is not finite: leave it out where there is none")
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    if low == high:
        return [None if rating is None else "medium" for rating in ratings]
    scaled = [None if rating is None else (rating - low) / (high - low) for rating in ratings]
    return [None if s is None else LEVELS[min(int(s * 3), 2)] for s in scaled]


def answer_shares(counts: Mapping[str, float], letters: str, min_responses: int = 1) -> list[float] | None:
    """Return the shares in the order of `letters`, or None with fewer than `min_responses` answers.

    Raises:
        DataError: an answer to a letter that the question does not have, a count below 0 or not finite, or
            a sum between 0 and 1 that rounding shares to two decimals does not explain.
    """
    wrong = [x for x, count in counts.items() if x not in letters or not 0 <= count < math.inf]
    if wrong:
        raise DataError(f"answers {dict(counts)}: {wrong[0]!r} is no option, or its count is no count")
    total = sum(counts.values())
    rounding = 0.005 * len(letters)
    if 0 < total < 1 - rounding:
        raise DataError(
            f"answers {dict(counts)}: their sum is {total:g}; give counts, or shares of all answers"
        )
    if total < max(min_responses - rounding, 1e-12):
        return None
    return [counts.get(letter, 0) / total for letter in letters]
