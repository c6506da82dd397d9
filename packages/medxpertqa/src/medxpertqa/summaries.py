"""What a run shows, and what two runs show together: accuracies with intervals, by cell, and tests."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from medxpertqa.errors import MedXpertQAError, MedXpertQAWarning
from medxpertqa.parsing import ParsedAnswer
from medxpertqa.results import Record, Results
from medxpertqa.scores import SMALL, Cell, Errors, Scores, counted_scores, places_that_count
from medxpertqa.stats import (
    Difference,
    Interval,
    Position,
    holm,
    interaction,
    mcnemar,
    paired_difference,
    position_bias,
)


@dataclass(frozen=True)
class ParserShare:
    """One parser's accuracy, interval as in `Cell`, and how many replies gave a letter, by which rule."""

    n_correct: int
    accuracy: float
    ci: Interval
    n_answered: int
    n_ambiguous: int
    rules: Mapping[str, int]


@dataclass(frozen=True)
class Summary(Cell):
    """A whole run: its accuracy as a cell, cells by field and value, and everything that went wrong.

    `position` is None where the questions differ in their number of options. `consistency` is the share of
    questions that were answered with the same option text in every order of the options (None: one order).
    `errors` says whether replies that could not be had count as wrong, or not at all.
    `n_missing` counts replies that the run was to have, one an epoch and order, and has not. `cost` is None
    where the price of any reply is unknown.
    """

    name: str
    protocol: str
    parser: str
    errors: Errors
    by: Mapping[str, Mapping[str, Cell]]
    parsers: Mapping[str, ParserShare]
    disagreement: Sequence[str]
    position: Position | None
    consistency: float | None
    n_records: int
    n_no_answer: int
    n_errors: int
    n_truncated: int
    n_filtered: int
    n_empty: int
    n_missing: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    @property
    def complete(self) -> bool:
        """Whether no reply is missing and at most 5 % of the replies are errors."""
        n = self.n_records + (self.n_errors if self.errors == "exclude" else 0)
        return not self.n_missing and self.n_errors <= 0.05 * n


@dataclass(frozen=True)
class PairedCell(Difference):
    """The difference of two runs over `n` of the questions they share."""

    n: int = 0

    @property
    def small(self) -> bool:
        """Whether there are fewer than `SMALL` questions."""
        return self.n < SMALL


@dataclass(frozen=True)
class Comparison(PairedCell):
    """Two runs on the questions they share, first minus second; `only_a` and `only_b` count questions.

    `p_value` is McNemar's exact one (of the sign test with epochs), `mid_p` its mid-p. `interaction` is the
    difference on Reasoning less that on Understanding, None where one of the two has no question.
    """

    only_a: int = 0
    only_b: int = 0
    mid_p: float = 1.0
    names: tuple[str, str] = ("", "")
    by: Mapping[str, Mapping[str, PairedCell]] = field(default_factory=dict)
    interaction: Difference | None = None


def summarize(
    results: Results, parser: str | None = None, *, errors: Errors = "wrong", seed: int = 0
) -> Summary:
    """Sum a run up by the parser that counts, or another of `results.answers`.

    `errors` "wrong" counts replies that could not be had as wrong, as the official code does, "exclude"
    leaves them out. `seed` is the bootstrap's. Raises `MedXpertQAError` for a parser that was not run, and if
    nothing is left.
    """
    parser = parser or results.parser
    if parser not in results.answers:
        raise MedXpertQAError(
            f"these results have no parser {parser!r}; they have: {', '.join(results.answers)}"
        )
    kept = places_that_count(results, errors)
    records = [results.records[place] for place in kept]
    rights = {name: [results.correct(name)[place] for place in kept] for name in results.answers}
    scores = Scores(records, rights[parser], seed)
    answers = [results.answers[parser][place] for place in kept]
    whole = scores.whole()
    costs = [record.cost for record in records]
    return Summary(
        **vars(whole),
        name=results.name,
        protocol=results.protocol,
        parser=parser,
        errors=errors,
        by=scores.by_field(),
        parsers={
            name: _share(
                whole if name == parser else Scores(records, rights[name], seed).whole(),
                [results.answers[name][place] for place in kept],
            )
            for name in results.answers
        },
        disagreement=results.disagreement(),
        position=_position([answer.letter for answer in answers], records),
        consistency=_consistency([answer.letter for answer in answers], records),
        n_records=len(records),
        n_no_answer=sum(a.letter is None and r.status == "ok" for a, r in zip(answers, records, strict=True)),
        n_errors=sum(record.status == "error" for record in results.records),
        n_truncated=sum(record.stop_reason == "max_tokens" for record in records),
        n_filtered=sum(record.stop_reason == "content_filter" for record in records),
        n_empty=sum(record.status == "ok" and not record.response.strip() for record in records),
        n_missing=max((results.n_expected or 0) - results.n, 0),
        input_tokens=sum(record.input_tokens for record in records),
        output_tokens=sum(record.output_tokens for record in records),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def compare(a: Results, b: Results, *, errors: Errors = "wrong", seed: int = 0) -> Comparison:
    """Compare two runs on the questions that both have, by the parser that counts in each.

    `errors` as for `summarize`: with "exclude" a question that has no reply in one run is not compared.
    Warns if the runs were asked by different protocols, parsed differently, share only some questions, or had
    different texts under the same name.
    Raises `MedXpertQAError` if they share none, or one question has different labels in them.
    """
    _warn_unlike(a, b)
    first, second = (counted_scores(results, errors, seed) for results in (a, b))
    shared = [name for name in first.values if name in second.values]
    if not shared:
        raise MedXpertQAError("the two runs share no question")
    if len(shared) < max(len(first.values), len(second.values)):
        message = f"{len(shared)} of {len(first.values)} and {len(second.values)} questions are in both runs"
        warnings.warn(f"{message}; only those are compared", MedXpertQAWarning, stacklevel=2)
    # Only where both were asked in the published order can labels be compared.
    labels = {record.id: record.label for record in a.records if not record.order}
    moved = [r.id for r in b.records if not r.order and labels.get(r.id, r.label) != r.label]
    if moved:
        raise MedXpertQAError(
            f"{moved[0]} has different labels in the two runs; they are of other question sets"
        )

    def clusters(ids: Sequence[str]) -> list[Hashable]:
        # Another harness's results do not tell which questions share an image; one run that does suffices.
        return min(first.clusters(ids), second.clusters(ids), key=lambda found: len(set(found)))

    def difference(ids: Sequence[str]) -> PairedCell:
        one, two = ([scores.values[name] for name in ids] for scores in (first, second))
        return PairedCell(**vars(paired_difference(one, two, clusters(ids), seed=seed)), n=len(ids))

    def reasoning_less_understanding(types: Mapping[str, Sequence[str]]) -> Difference | None:
        reasoning, understanding = types.get("Reasoning"), types.get("Understanding")
        if not reasoning or not understanding:
            return None
        change = {name: first.values[name] - second.values[name] for name in (*reasoning, *understanding)}
        ours, others = ([change[name] for name in ids] for ids in (reasoning, understanding))
        return interaction(ours, others, clusters([*reasoning, *understanding]))

    whole = difference(shared)
    only_a = sum(first.values[name] > second.values[name] for name in shared)
    only_b = sum(first.values[name] < second.values[name] for name in shared)
    ids_by_field = first.ids_by_field(shared)
    cells = {
        key: {value: difference(ids) for value, ids in values.items()} for key, values in ids_by_field.items()
    }
    mid_p = mcnemar(only_a, only_b, mid_p=True)
    return Comparison(
        **vars(whole),
        only_a=only_a,
        only_b=only_b,
        mid_p=mid_p,
        names=(a.name, b.name),
        by=cells,
        interaction=reasoning_less_understanding(ids_by_field.get("question_type", {})),
    )


def compare_all(
    runs: Sequence[Results], *, errors: Errors = "wrong", seed: int = 0
) -> list[tuple[Comparison, float]]:
    """Compare every pair of runs that share a question; each with its p-value adjusted by Holm over all."""
    asked = [
        {record.id for record in run.records if errors == "wrong" or record.status == "ok"} for run in runs
    ]
    pairs = [
        compare(runs[i], runs[j], errors=errors, seed=seed)
        for i, j in combinations(range(len(runs)), 2)
        if asked[i] & asked[j]
    ]
    return list(zip(pairs, holm([pair.p_value for pair in pairs]), strict=True))


def _share(cell: Cell, answers: Sequence[ParsedAnswer]) -> ParserShare:
    rules: dict[str, int] = {}
    for answer in answers:
        rules[answer.rule] = rules.get(answer.rule, 0) + 1
    n_answered = sum(answer.letter is not None for answer in answers)
    n_ambiguous = sum(answer.ambiguous for answer in answers)
    return ParserShare(cell.n_correct, cell.accuracy, cell.ci, n_answered, n_ambiguous, rules)


def _position(letters: Sequence[str | None], records: Sequence[Record]) -> Position | None:
    n_options = {record.n_options for record in records}
    if len(n_options) > 1:
        return None
    return position_bias(letters, [record.label for record in records], n_options.pop())


def _consistency(letters: Sequence[str | None], records: Sequence[Record]) -> float | None:
    """The share of the questions asked in several orders whose answers all name one published option."""
    named: dict[str, list[int | None]] = {}
    for letter, record in zip(letters, records, strict=True):
        order = record.order or tuple(range(record.n_options))
        named.setdefault(record.id, []).append(None if letter is None else order[ord(letter) - ord("A")])
    orders: dict[str, set[tuple[int, ...]]] = {}
    for record in records:
        orders.setdefault(record.id, set()).add(record.order)
    several = [found for name, found in named.items() if len(orders[name]) > 1]
    if not several:
        return None
    return sum(None not in found and len(set(found)) == 1 for found in several) / len(several)


def _warn_unlike(a: Results, b: Results) -> None:
    for what in ("protocol", "parser"):
        one, two = getattr(a, what), getattr(b, what)
        if one != two:
            message = f"the runs differ in their {what} ({one or 'unknown'} and {two or 'unknown'})"
            warnings.warn(
                f"{message}: the difference is not the models' alone", MedXpertQAWarning, stacklevel=3
            )
    if a.dataset and a.dataset == b.dataset and a.digest and b.digest and a.digest != b.digest:
        message = f"the runs were made with different questions under the name {a.dataset}"
        warnings.warn(f"{message}: only their ids and labels agree", MedXpertQAWarning, stacklevel=3)
