"""Best-of-N: the response that a score selects, how often it is right, and how sure that is (section 2.4).

A prompt has N scored responses, of which n are looked at. Sort its scores in descending order; over all
n-subsets, drawn without replacement, the k-th is the best one with probability

    P(k) = C(N - k, n - 1) / C(N, n),     k = 1 .. N - n + 1

so the accuracy over all subsets is an exact sum (subset="all"), where the official script looks at the first
n responses alone (subset="first").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import ceil, comb
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from implicit_prm.aggregation import aggregate_all
from implicit_prm.answers import group_answers
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.voting import Weight, vote_places, vote_weights

Floats = npt.NDArray[np.float64]
Subset = Literal["first", "blocks", "all"]
Table = Sequence[Any] | npt.NDArray[Any]
"""A row a prompt, a column a response; rows may differ in length."""

SUBSETS = 128
"""Random subsets of a prompt's responses, at least, over which the accuracy of a vote is averaged; all of
them where there are no more than so many."""


def best_of_n(list_of_step_rewards: Sequence[npt.ArrayLike], aggregate: str = "min") -> int:
    """The index of the best of N responses, given the step rewards of each; of equals the first.

    Raises `ImplicitPRMError` for no responses and as `aggregate` does.
    """
    if not len(list_of_step_rewards):
        raise ImplicitPRMError("there are no responses to choose from")
    return int(aggregate_all(list_of_step_rewards, aggregate).argmax())


def expected_best_of_n(scores: Table, correct: Table, n: int) -> float:
    """The accuracy of the best-scored of n responses: exact over all n-subsets, ties to the lower index.

    `scores` and `correct` (in [0, 1]) are [N], for one prompt, or [P, N], whose mean over prompts is given.
    Raises as `best_of_n_accuracy`.
    """
    if np.ndim(scores[0]) == 0:
        scores, correct = [scores], [correct]
    return float(best_of_n_accuracy(scores, correct, n).mean())


def best_of_n_accuracy(scores: Table, correct: Table, n: int, subset: Subset = "all") -> Floats:
    """The accuracy of the best-scored of n responses of each prompt, [P], from tables [P, N].

    subset: "all" n-subsets, exactly; the "first" n responses; consecutive disjoint "blocks" of n, averaged.
    Raises `ImplicitPRMError` for tables that differ in shape, fewer than n responses of a prompt, a score
    that is NaN, a correctness outside [0, 1].
    """
    accuracy = np.empty(len(scores))
    for rows, (score, right) in _by_size(n, scores, correct):
        _check_values(score, right, rows)
        N = score.shape[1]
        if subset == "all":
            order = np.argsort(-score, axis=-1, kind="stable")
            accuracy[rows] = np.take_along_axis(right, order, axis=-1) @ _rank_probabilities(N, n)
        else:
            places = np.tile(_places(N, n, subset), (len(rows), 1, 1))
            accuracy[rows] = _accuracy(right, places, _take(score, places).argmax(axis=-1))
    return accuracy


def vote_accuracy(
    groups: Table,
    correct: Table,
    n: int,
    *,
    scores: Table | None = None,
    weight: Weight = "sigmoid",
    scale: float = 1.0,
    subset: Subset = "all",
    seed: int = 0,
) -> Floats:
    """The accuracy of the vote of n responses of each prompt, [P]; weighted by `scores` if they are given.

    `groups` [P, N] numbers the answers (`group_answers`). Over all subsets a vote has no closed form: for
    subset="all" they are counted out where there are at most `SUBSETS`; else the responses are shuffled and
    cut into blocks of n until there are so many, the same ones whatever the weights. Raises as
    `best_of_n_accuracy`.
    """
    rng = np.random.default_rng(seed)
    accuracy = np.zeros(len(groups))
    for rows, (group, right, score) in _by_size(n, groups, correct, groups if scores is None else scores):
        _check_values(score, right, rows)
        numbers = group.astype(np.int64)
        votes = []
        for places in _drawn_places(group.shape, n, subset, rng):
            ballots = _take(numbers, places)
            weights = np.ones(ballots.shape)
            if scores is not None:
                weights = vote_weights(_take(score, places), ballots >= 0, weight, scale)
            votes.append(_accuracy(right, places, vote_places(ballots, weights)))
        accuracy[rows] = np.mean(votes, axis=0)
    return accuracy


@dataclass(frozen=True)
class BonRow:
    """The accuracy of a way to choose among n responses, with its bootstrap interval over prompts."""

    method: str
    n: int
    accuracy: float
    low: float
    high: float


def bon_table(
    scores: Mapping[str, Table],
    correct: Table,
    n: Sequence[int] = (4, 16, 64),
    *,
    answers: Table | None = None,
    weight: Weight = "sigmoid",
    scale: float = 1.0,
    subset: Subset = "all",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[BonRow]:
    """Best-of-n by every score, n by n, beside what needs none: a random response, the best one there is.

    scores: name -> table [P, N] of the responses' scores; correct: [P, N], in [0, 1]. With `answers` [P, N]
    (None for no answer) there are also the majority vote and, by each score, the weighted one (`weight`,
    `scale`). The interval is of the mean over prompts, which are resampled, the same ones for every row.
    Raises as `best_of_n_accuracy`.
    """
    methods: dict[tuple[str, int], Floats] = {}
    groups = None if answers is None else [group_answers(row) for row in answers]
    for size in n:
        methods["random", size] = best_of_n_accuracy(correct, correct, 1)
        if groups is not None:
            methods["majority", size] = vote_accuracy(groups, correct, size, subset=subset, seed=seed)
        for name, table in scores.items():
            methods[name, size] = best_of_n_accuracy(table, correct, size, subset)
            if groups is not None:
                methods[f"vote by {name}", size] = vote_accuracy(
                    groups, correct, size, scores=table, weight=weight, scale=scale, subset=subset, seed=seed
                )
        methods["oracle", size] = best_of_n_accuracy(correct, correct, size, subset)
    means = bootstrap_means(np.stack(list(methods.values()), axis=1), resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [
        BonRow(method, size, float(values.mean()), float(low[column]), float(high[column]))
        for column, ((method, size), values) in enumerate(methods.items())
    ]


def bootstrap_means(values: Floats, resamples: int = 2000, seed: int = 0) -> Floats:
    """Means over resampled prompts, [resamples, M], of values [P, M]; the columns share the prompts drawn."""
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    return counts @ values / n


@cache
def _rank_probabilities(N: int, n: int) -> Floats:
    """P(k) above for k = 1 .. N, 0 for those that n - 1 better ones cannot follow."""
    return np.array([comb(N - k, n - 1) / comb(N, n) for k in range(1, N + 1)])


def _places(N: int, n: int, subset: Subset) -> npt.NDArray[np.intp]:
    """The places [blocks, n] of N responses that are looked at together."""
    if subset not in ("first", "blocks"):
        raise ImplicitPRMError(f"no subset is called {subset!r}; there are {', '.join(get_args(Subset))}")
    blocks = 1 if subset == "first" else N // n
    return np.arange(blocks * n).reshape(blocks, n)


def _drawn_places(
    shape: tuple[int, ...], n: int, subset: Subset, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.intp]]:
    """Places [P, blocks, n] to look at, for P prompts of N responses, in the responses' own order."""
    P, N = shape
    if subset == "all" and comb(N, n) <= SUBSETS:
        yield np.tile(np.array(list(combinations(range(N), n))), (P, 1, 1))
        return
    places = np.tile(_places(N, n, "blocks" if subset == "all" else subset), (P, 1, 1))
    if subset != "all" or n == 1:
        yield places
        return
    in_order = np.tile(np.arange(N), (P, 1))
    for _ in range(ceil(SUBSETS / (N // n))):
        yield np.sort(_take(rng.permuted(in_order, axis=1), places), axis=2)


def _take(table: npt.NDArray[Any], places: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Of each row of a table [P, N] the values at its places [P, blocks, n]."""
    return np.take_along_axis(table[:, None], places, axis=2)


def _accuracy(right: Floats, places: npt.NDArray[np.intp], chosen: npt.NDArray[np.intp]) -> Floats:
    """The mean correctness, [P], of the one that is chosen [P, blocks] among the n of each block."""
    winners = np.take_along_axis(places, chosen[..., None], axis=2)
    means: Floats = _take(right, winners).mean(axis=(1, 2))
    return means


def _by_size(n: int, *tables: Table) -> Iterator[tuple[npt.NDArray[np.intp], list[Floats]]]:
    """The prompts that have equally many responses, and their part of each table as an array."""
    if not len(tables[0]):
        raise ImplicitPRMError("there are no prompts")
    sizes = [len(row) for row in tables[0]]
    for table in tables[1:]:
        _check_alike(sizes, [len(row) for row in table])
    if n < 1 or n > min(sizes):
        fewest = int(np.argmin(sizes))
        raise ImplicitPRMError(
            f"n is {n}, and prompt {fewest} has {sizes[fewest]} responses; choose n from 1 to that"
        )
    for size in sorted(set(sizes)):
        rows = np.flatnonzero(np.equal(sizes, size))
        parts = [table if len(rows) == len(table) else [table[row] for row in rows] for table in tables]
        yield rows, [np.asarray(part, dtype=np.float64) for part in parts]


def _check_alike(sizes: list[int], others: list[int]) -> None:
    if len(sizes) != len(others):
        raise ImplicitPRMError(
            f"one table has {len(sizes)} prompts, another {len(others)}; give all the same"
        )
    for prompt, (size, other) in enumerate(zip(sizes, others, strict=True)):
        if size != other:
            raise ImplicitPRMError(
                f"prompt {prompt} has {size} responses in one table, {other} in another; give all the same"
            )


def _check_values(score: Floats, right: Floats, rows: npt.NDArray[np.intp]) -> None:
    unfit = (
        ("score", score, np.isnan(score), "a number"),
        ("correctness", right, ~((right >= 0) & (right <= 1)), "in [0, 1]"),
    )
    for name, values, wrong, needed in unfit:
        if wrong.any():
            row, response = np.argwhere(wrong)[0]
            raise ImplicitPRMError(
                f"prompt {rows[row]}, response {response}: its {name} is {values[row, response]}; "
                f"it must be {needed}"
            )
