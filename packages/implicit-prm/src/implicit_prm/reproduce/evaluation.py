"""How good rewards are: do they find the first error, and which response do they choose?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from implicit_prm.aggregation import aggregate_all
from implicit_prm.answers import group_answers
from implicit_prm.reproduce.generation import Responses
from implicit_prm.reward_metrics import auc
from implicit_prm.selection import best_of_n_accuracy, vote_accuracy
from implicit_prm.tasks.base import ChainTask

Floats = npt.NDArray[np.float64]
Rewards = Sequence[Sequence[npt.ArrayLike]]
"""Step rewards, of every response to every prompt."""

HOWS = ("min", "sum", "mean", "last", "min_q", "softmin(0.1)")
SIZES = (1, 2, 4, 8, 16, 32, 64)
ROC_POINTS = 60


def sizes(rows: Sequence[Responses]) -> list[int]:
    """The n of best-of-n: as far as there are responses to every prompt."""
    return [n for n in SIZES if n <= len(rows[0].completions)]


def selection_curves(rows: Sequence[Responses], rewards: Rewards) -> dict[str, list[float]]:
    """Accuracy in % of best-of-n for each of `sizes`, by each aggregation of the step rewards."""
    right = rightness(rows)
    tables = {how: np.stack([aggregate_all(of_prompt, how) for of_prompt in rewards]) for how in HOWS}
    return {
        how: [_percent(best_of_n_accuracy(table, right, n)) for n in sizes(rows)]
        for how, table in tables.items()
    }


def vote_curve(task: ChainTask, rows: Sequence[Responses], outcomes: Floats | None = None) -> list[float]:
    """Accuracy in % of votes of n, the mean over disjoint blocks; weighted by sigmoid(outcome) if given.

    `outcomes` [prompts, responses] are the rewards of whole responses.
    """
    right = rightness(rows)
    groups = np.stack([group_answers([task.answer(text) for text in row.completions]) for row in rows])
    return [_percent(vote_accuracy(groups, right, n, scores=outcomes, subset="blocks")) for n in sizes(rows)]


def oracle_curve(rows: Sequence[Responses]) -> list[float]:
    """Accuracy in % of best-of-n by the truth: whether there is a right response at all."""
    right = rightness(rows)
    return [_percent(best_of_n_accuracy(right.astype(float), right, n)) for n in sizes(rows)]


def first_error_scores(rows: Sequence[Responses], rewards: Rewards) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(-R_s, whether step s is wrong) of every step up to the first error, which is the only wrong one."""
    scores: list[Floats] = []
    wrong: list[bool] = []
    for row, of_prompt in zip(rows, rewards, strict=True):
        for grade, steps in zip(row.grades, of_prompt, strict=True):
            found = np.asarray(steps, float)
            last = len(found) if grade.first_error < 0 else min(grade.first_error + 1, len(found))
            scores.append(-found[:last])
            wrong += [step == grade.first_error for step in range(last)]
    return np.concatenate(scores), np.array(wrong)


def step_auc(rows: Sequence[Responses], rewards: Rewards) -> float:
    """The probability that the first wrong step has a lower reward than a right one."""
    return auc(*first_error_scores(rows, rewards))


def roc(scores: Floats, wrong: npt.NDArray[np.bool_]) -> dict[str, list[float]]:
    """Some points of the curve, the highest scores first: shares of right steps and of wrong ones above.

    No points where all steps are right or all wrong, as `auc` is then no number.
    """
    if wrong.all() or not wrong.any():  # a generator of few steps may never get one right
        return {"false": [], "true": []}
    order = np.argsort(-scores, kind="stable")
    hits, misses = np.cumsum(wrong[order]), np.cumsum(~wrong[order])
    # Evenly spaced along the curve, which is steep at first.
    ends = np.searchsorted(hits / hits[-1] + misses / misses[-1], np.linspace(0, 2, ROC_POINTS))
    kept = np.unique(np.minimum(ends, len(order) - 1))
    return {"false": (misses[kept] / misses[-1]).tolist(), "true": (hits[kept] / hits[-1]).tolist()}


def rightness(rows: Sequence[Responses]) -> npt.NDArray[np.bool_]:
    """bool [prompts, responses]: whether the final answers are right."""
    return np.array([[grade.correct for grade in row.grades] for row in rows])


def judged(task: ChainTask, rows: Sequence[Responses], rewards: Rewards) -> dict[str, Any]:
    """All of it, as plain JSON: `best` and `weighted` curves, `step_auc`, `roc`."""
    scores, wrong = first_error_scores(rows, rewards)
    outcomes = np.stack([aggregate_all(of_prompt, "sum") for of_prompt in rewards])
    return {
        "best": selection_curves(rows, rewards),
        "weighted": vote_curve(task, rows, outcomes),
        "step_auc": auc(scores, wrong),
        "roc": roc(scores, wrong),
    }


def _percent(shares: Floats) -> float:
    return 100 * float(shares.mean())
