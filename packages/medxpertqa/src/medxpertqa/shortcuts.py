"""What a model gets right without the images or the stem: from guesses, habits or memory."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from medxpertqa.errors import MedXpertQAWarning
from medxpertqa.results import Results
from medxpertqa.scores import Cell, Errors, counted_scores
from medxpertqa.stats import binomial_tail
from medxpertqa.summaries import PairedCell, compare


@dataclass(frozen=True)
class Shortcut:
    """A run that was not shown all of each question.

    `without` says what it was not shown. `p_value` is that of as many right answers or more by guessing among
    the options; `majority` what always giving the commonest right letter would reach. `loss` is the same
    model's run with everything, less this one, on the questions of both, None where no such run was given.
    """

    name: str
    without: tuple[str, ...]
    cell: Cell
    chance: float
    majority: float
    p_value: float
    loss: PairedCell | None


def find_shortcuts(runs: Sequence[Results], *, errors: Errors = "wrong", seed: int = 0) -> list[Shortcut]:
    """Judge every run without images or stem among `runs`, in their order.

    One whose questions differ in their number of options, or were asked several times, is left out: there is
    no one chance of guessing. `errors` as for `summarize`.
    """
    return [
        _judge(run, _whole_run(run, runs), errors, seed)
        for run in runs
        if run.without
        and len({record.n_options for record in run.records}) == 1
        and len({record.id for record in run.records}) == run.n
    ]


def _judge(run: Results, whole: Results | None, errors: Errors, seed: int) -> Shortcut:
    scores = counted_scores(run, errors, seed)
    cell = scores.whole()
    chance = 1 / run.records[0].n_options
    loss = None
    if whole is not None:
        with warnings.catch_warnings():  # of course the two were not asked alike
            warnings.simplefilter("ignore", MedXpertQAWarning)
            loss = compare(whole, run, errors=errors, seed=seed)
    commonest = Counter(record.label for record in scores.records.values()).most_common(1)[0][1]
    return Shortcut(
        run.name,
        run.without,
        cell,
        chance,
        commonest / cell.n,
        binomial_tail(cell.n_correct, cell.n, chance),
        loss,
    )


def _whole_run(run: Results, runs: Sequence[Results]) -> Results | None:
    """The same model's run that was shown everything, on some of the same questions."""
    ids = {record.id for record in run.records}
    for other in runs:
        same = other.name == run.name and not other.without and other.parser == run.parser
        if same and not ids.isdisjoint(record.id for record in other.records):
            return other
    return None
