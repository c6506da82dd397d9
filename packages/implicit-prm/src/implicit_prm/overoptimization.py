"""Over-optimisation: does accuracy fall as a score chooses among more responses?

A score that is right on the whole still overrates some responses, and the more there are to choose from the
surer one of those is found. An under-trained implicit PRM overrates rare tokens with its reference, and may
not without it: give the scores of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from implicit_prm.answers import group_answers
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.selection import Table, best_of_n_accuracy, bootstrap_means, vote_accuracy

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fall:
    """Best-of-`n_from` is more accurate than best-of-`n_to` by `points`, a share; `low` of it is sure."""

    n_from: int
    n_to: int
    points: float
    low: float


@dataclass(frozen=True)
class Curve:
    """The accuracy of best-of-n by one score for each of `n`, its interval, and what is alarming about it.

    fall: the largest sure fall from a smaller n to the largest; below: which of "random" and "majority" are
    surely better than this score at the largest n.
    """

    method: str
    n: tuple[int, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fall: Fall | None
    below: tuple[str, ...]

    @property
    def alarm(self) -> str | None:
        """What is wrong and what to do, as a sentence; None if nothing is."""
        found = []
        if self.fall is not None:
            found.append(
                f"its accuracy falls from {self.accuracy[self.n.index(self.fall.n_from)]:.1%} at "
                f"n = {self.fall.n_from} to {self.accuracy[-1]:.1%} at n = {self.fall.n_to}"
            )
        if self.below:
            found.append(f"at n = {self.n[-1]} it is worse than {' and '.join(self.below)}")
        if not found:
            return None
        return (
            f"{self.method} is over-optimised: {'; '.join(found)}. "
            "Choose among fewer responses, score without the reference, or train on more prompts"
        )


def overoptimization_curves(
    scores: Mapping[str, Table],
    correct: Table,
    n: Sequence[int] | None = None,
    *,
    answers: Table | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Curve]:
    """The curve of every score over `n`, with alarms; by default 1, 2, 4 ... up to what every prompt has.

    scores: name -> table [P, N], for instance with and without the reference; correct: [P, N], in [0, 1];
    answers [P, N] add the majority vote to what a score is compared with. All comparisons are of the same
    resampled prompts, and sure means at `confidence` for all smaller n together (Bonferroni).

    Raises `ImplicitPRMError` as `best_of_n_accuracy` does, and for fewer than two n.
    """
    sizes = _doublings(correct) if n is None else tuple(sorted(set(n)))
    if len(sizes) < 2:
        raise ImplicitPRMError(f"a curve needs at least two different n, and there is {sizes}")
    rivals = {"random": best_of_n_accuracy(correct, correct, 1)}
    if answers is not None:
        groups = [group_answers(row) for row in answers]
        rivals["majority"] = vote_accuracy(groups, correct, sizes[-1], seed=seed)
    curves = []
    for method, table in scores.items():
        values = [best_of_n_accuracy(table, correct, size) for size in sizes]
        means = bootstrap_means(np.stack([*values, *rivals.values()], axis=1), resamples, seed)
        curves.append(_curve(method, sizes, np.mean(values, axis=1), means, tuple(rivals), 1 - confidence))
    return curves


def _doublings(correct: Table) -> tuple[int, ...]:
    most = min((len(row) for row in correct), default=0)
    return tuple(2**k for k in range(most.bit_length()))


def _curve(
    method: str, n: tuple[int, ...], accuracy: Floats, means: Floats, rivals: tuple[str, ...], doubt: float
) -> Curve:
    """`means` [resamples, len(n) + len(rivals)] are of the prompts drawn again."""
    at_n, of_rivals = means[:, : len(n)], means[:, len(n) :]
    low, high = np.quantile(at_n, [doubt / 2, 1 - doubt / 2], axis=0)
    surely_lost = np.quantile(at_n[:, :-1] - at_n[:, -1:], doubt / 2 / (len(n) - 1), axis=0)
    surely_worse = np.quantile(of_rivals - at_n[:, -1:], doubt / 2, axis=0) > 0
    worst = int(np.argmax(np.where(surely_lost > 0, accuracy[:-1], -np.inf)))
    fall = None
    if surely_lost[worst] > 0:
        points = float(accuracy[worst] - accuracy[-1])
        fall = Fall(n[worst], n[-1], points, float(surely_lost[worst]))
    return Curve(
        method=method,
        n=n,
        accuracy=tuple(accuracy.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        fall=fall,
        below=tuple(name for name, worse in zip(rivals, surely_worse, strict=True) if worse),
    )
