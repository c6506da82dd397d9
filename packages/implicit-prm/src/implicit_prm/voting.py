"""Votes among the final answers of one prompt, plain or weighted by the responses' scores (section 2.4)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from implicit_prm.answers import group_answers
from implicit_prm.errors import ImplicitPRMError

Answer = TypeVar("Answer", bound=Hashable)
Weight = Literal["sigmoid", "exp", "raw"]


def majority_vote(answers: Sequence[Answer | None]) -> Answer | None:
    """The answer that most of the responses give; of equally frequent ones the first seen.

    Same answers (`group_answers`) count together, and the first of them is returned. None, no answer, is not
    counted: it is returned if there is nothing else. Raises `ImplicitPRMError` for no responses.
    """
    return _winner(answers, group_answers(answers), np.ones(len(answers)))


def weighted_vote(
    answers: Sequence[Answer | None],
    scores: npt.ArrayLike,
    weight: Weight = "sigmoid",
    scale: float = 1.0,
) -> Answer | None:
    """The answer with the largest sum of weights over the responses that give it; else as `majority_vote`.

    `scores` [N] are the responses' scores. A response weighs sigmoid(scale * score), exp(scale * score) or,
    for "raw", its score, which should not be negative: each more response would speak against its answer.
    The official script's sigmoid(0.001 * score) is nearly the plain majority.

    Raises `ImplicitPRMError` for no responses, another number of scores, a score that is NaN or infinite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(answers),):
        raise ImplicitPRMError(
            f"there are {len(answers)} answers and scores of shape {values.shape}; give one score an answer"
        )
    groups = group_answers(answers)
    return _winner(answers, groups, vote_weights(values, groups >= 0, weight, scale))


def vote_weights(
    scores: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_], weight: Weight, scale: float
) -> npt.NDArray[np.float64]:
    """The weights [..., N] of responses with `scores` [..., N], up to a factor that the N share.

    The heaviest of those `counted` [..., N] weighs 1 (unless "raw"): nothing overflows or vanishes together.
    Raises `ImplicitPRMError` for an unknown weight, a scale that is not above 0, a score that is not finite.
    """
    if not 0 < scale < np.inf:
        raise ImplicitPRMError(f"the scale of the votes is {scale}; it must be above 0")
    if not np.isfinite(scores).all():
        place = ", ".join(str(index) for index in np.argwhere(~np.isfinite(scores))[0])
        raise ImplicitPRMError(f"the score of response {place} is not a finite number; score it again")
    scaled = scale * scores
    if weight == "raw":
        return scaled
    if weight == "sigmoid":
        scaled = -np.logaddexp(0, -scaled)
    elif weight != "exp":
        raise ImplicitPRMError(f"no weight is called {weight!r}; there are {', '.join(get_args(Weight))}")
    heaviest = np.max(scaled, axis=-1, keepdims=True, where=counted, initial=-np.inf)
    return np.exp(np.minimum(scaled - heaviest, 0.0))


def vote_places(groups: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Many votes at once: the place in 0..n-1 of the first response with the winning answer, [...].

    `groups` [..., n] numbers the answers, below 0 for none; `weights` [..., n]. Where nobody has an answer
    the place is 0.
    """
    votes, n = groups.reshape(-1, groups.shape[-1]), groups.shape[-1]
    n_groups = int(votes.max(initial=0)) + 1
    cells = np.arange(len(votes))[:, None] * n_groups + np.maximum(votes, 0)
    counted = np.where(votes < 0, 0.0, weights.reshape(-1, n))
    totals = np.bincount(cells.ravel(), counted.ravel(), minlength=len(votes) * n_groups)
    # Each response with its answer's total: argmax takes the first of equals, which is the first seen.
    supported = np.where(votes < 0, -np.inf, totals[cells])
    return supported.argmax(axis=-1).reshape(groups.shape[:-1])


def _winner(
    answers: Sequence[Answer | None], groups: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> Answer | None:
    if not len(answers):
        raise ImplicitPRMError("there are no answers to vote among")
    return answers[int(vote_places(groups, weights))]
