"""Replies to questions, and the letters read out of them: what every harness's output becomes (schema 1).

A file of results is JSON lines: a head {"schema": 1, "kind": "medxpertqa-results", ...}, then a reply a line.
It holds replies and may hold option texts, so it belongs outside version control; `share` makes a copy that
has neither.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from medxpertqa.errors import DataError
from medxpertqa.field_types import check_types
from medxpertqa.parsing import NO_ANSWER, ParsedAnswer, ParserName, TriggerName, parse_answer
from medxpertqa.questions import Question

SCHEMA = 1
KIND = "medxpertqa-results"
ABOUT = ("parser", "name", "protocol", "dataset", "digest", "n_expected")
"""The fields of `Results` that the first line of a file has."""

FAILED = "No answer provided"
"""How the official client begins a reply that it could not get."""


@dataclass(frozen=True)
class Record:
    """The reply to one question, in one epoch, with the options in one order.

    `response` is the last reply, of which the letter is read; `status` "error" means that there is none, and
    `error` why. `stop_reason` is the provider's, in inspect's words ("stop", "max_tokens", "content_filter").
    `label` is the right letter as asked, that is after `order` (empty: as published) was applied.
    `attributes` are those of `Question.attributes`, and "cluster" where questions share an image. `cost` is
    in US dollars, None if no price is known.
    """

    id: str
    label: str
    n_options: int
    response: str = field(default="", repr=False)
    status: Literal["ok", "error"] = "ok"
    error: str = ""
    stop_reason: str = ""
    epoch: int = 1
    order: tuple[int, ...] = ()
    attributes: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    options: Mapping[str, str] | None = field(default=None, hash=False, repr=False)
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Record:
        """Read a record; needed: id, response, label and n_options. Raises `DataError`, naming the field."""
        name = str(record.get("id") or "a record without id")
        lacking = [key for key in ("id", "response", "label", "n_options") if key not in record]
        if lacking:
            raise DataError(
                f"{name}: {', '.join(lacking)} missing; a record has id, response, label, n_options"
            )
        unknown = set(record) - {entry.name for entry in fields(cls)}
        if unknown:
            raise DataError(f"{name}: a record has no field {', '.join(sorted(unknown))}")
        values = dict(record)
        if isinstance(record["id"], int):
            values["id"] = str(record["id"])
        if isinstance(record["label"], list) and len(record["label"]) == 1:
            values["label"] = record["label"][0]
        if record["response"] is None:
            values["response"] = ""
        if isinstance(record.get("order"), list):
            values["order"] = tuple(record["order"])
        check_types(cls, values, name)
        made = cls(**values)
        n = made.n_options
        if not made.id:
            raise DataError("a record has an empty id")
        if not 2 <= n <= 26:
            raise DataError(f"{name}: n_options is {n!r}; it must be 2 to 26")
        if len(made.label) != 1 or not "A" <= made.label <= chr(64 + n):
            raise DataError(f"{name}: label is {made.label!r}, which is none of the {n} options")
        if made.order and sorted(made.order) != list(range(n)):
            raise DataError(f"{name}: order is {list(made.order)}; needed: 0 to {n - 1}, each once")
        return made

    @classmethod
    def of(cls, question: Question, response: str, *, order: Sequence[int] = (), **rest: Any) -> Record:
        """The record of a reply to a question, which is given as published, with its options in `order`."""
        asked = question.permuted(order) if order else question
        rest["attributes"] = question.attributes | dict(rest.get("attributes", {}))
        return cls(
            question.id,
            asked.label,
            asked.n_options,
            response,
            order=tuple(order),
            options=asked.options,
            **rest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as `from_dict` reads it, without the fields that say nothing."""
        made = {key: value for key, value in asdict(self).items() if value not in ("", (), None, {})}
        return {**made, "response": self.response}


@dataclass(frozen=True)
class Results:
    """The records of one run and, by parser, the answer read out of each; `parser` is the one that counts.

    `name` is the model's, `protocol` how it was asked ("" if another harness does not say), `dataset` what
    (with the digest of the questions if known), `source` the file or folder it came from, `n_expected` how
    many replies the run was to have, one a question, epoch and order (None: not known).
    """

    records: tuple[Record, ...]
    answers: Mapping[str, tuple[ParsedAnswer, ...]] = field(hash=False, repr=False)
    parser: ParserName
    name: str = ""
    protocol: str = ""
    dataset: str = ""
    digest: str = ""
    source: str = ""
    n_expected: int | None = None

    def correct(self, parser: str | None = None) -> list[bool]:
        """For each record, whether its answer by `parser` (default: the one that counts) is the label."""
        found = self.answers[parser or self.parser]
        return [answer.letter == record.label for record, answer in zip(self.records, found, strict=True)]

    @property
    def n(self) -> int:
        """How many records there are; epochs and option orders of one question count each."""
        return len(self.records)

    @property
    def without(self) -> tuple[str, ...]:
        """What of each question the model was not shown, as `protocol` says: "images", "stem"."""
        return tuple(re.findall(r"\bwithout (images|stem)\b", self.protocol))

    @property
    def n_correct(self) -> int:
        """How many records are right by the parser that counts; an error is wrong, as officially."""
        return sum(self.correct())

    @property
    def accuracy(self) -> float:
        """The mean over questions of each one's mean over its records."""
        by_id: dict[str, list[bool]] = {}
        for record, right in zip(self.records, self.correct(), strict=True):
            by_id.setdefault(record.id, []).append(right)
        return sum(sum(rights) / len(rights) for rights in by_id.values()) / len(by_id)

    def disagreement(self) -> list[str]:
        """The ids for which the parsers read different letters, each once."""
        found = list(self.answers.values())
        pairs = zip(self.records, found[0], found[-1], strict=True)
        return list(dict.fromkeys(record.id for record, one, two in pairs if one.letter != two.letter))

    def head(self) -> dict[str, Any]:
        """The first line of a file of these results."""
        return {"schema": SCHEMA, "kind": KIND} | {key: getattr(self, key) for key in ABOUT}


def read_head(head: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields in `ABOUT` of a file's first line. Raises `DataError` for another schema or wrong fields."""
    if head.get("schema") != SCHEMA:
        raise DataError(f"{source} has schema {head.get('schema')}; this version reads schema {SCHEMA}")
    lacking = [key for key in ABOUT if key not in head]
    if lacking:
        raise DataError(f"{source}: the first line has no {', '.join(lacking)}")
    about = {key: head[key] for key in ABOUT}
    check_types(Results, about, f"{source}, line 1")
    return about


def check_once(records: Iterable[Record]) -> None:
    """Raise `DataError` for two records of one question, epoch and order of the options."""
    counts = Counter((record.id, record.epoch, record.order) for record in records)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{twice[0][0]} (epoch {twice[0][1]}) comes twice; no question may be scored twice")


def score_records(
    records: Iterable[Record | Mapping[str, Any]],
    parser: ParserName = "official",
    *,
    questions: Iterable[Question] | None = None,
    trigger: TriggerName = "cot",
    **about: Any,
) -> Results:
    """Read the answer of every record by `parser` and, beside it, by `robust` (`official` if that is it).

    Records are `Record`s or dicts with id, response, label, n_options and, if known, its other fields. With
    `questions`, those supply attributes and option texts and must be the ones that were asked. `about` sets
    the remaining fields of `Results`. The order of the records changes nothing but the order.

    Raises `DataError` for no records, a record with a missing or wrong field, two records of one question,
    epoch and option order, and a record that is of no question or has another label or number of options.
    """
    found = [record if isinstance(record, Record) else Record.from_dict(record) for record in records]
    if not found:
        raise DataError("there are no records to score")
    check_once(found)
    if questions is not None:
        known = {question.id: question for question in questions}
        found = [_joined(record, known) for record in found]
    other: ParserName = "official" if parser == "robust" else "robust"
    answers: dict[str, tuple[ParsedAnswer, ...]] = {
        name: tuple(_answer(record, name, trigger) for record in found) for name in (parser, other)
    }
    return Results(tuple(found), answers, parser, **about)


def write_results(results: Results, path: str | os.PathLike[str]) -> None:
    """Write them as JSON lines (schema 1), all or nothing; `load_results` reads them."""
    rows = [results.head(), *(record.to_dict() for record in results.records)]
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, target)


def _answer(record: Record, parser: ParserName, trigger: TriggerName) -> ParsedAnswer:
    if record.status == "error":
        return NO_ANSWER
    return parse_answer(record.response, record.n_options, parser, options=record.options, trigger=trigger)


def _joined(record: Record, known: Mapping[str, Question]) -> Record:
    """The record with what its question tells, or `DataError` if it is of another set of questions."""
    question = known.get(record.id)
    if question is None:
        raise DataError(f"{record.id} is not among the questions; the run was made with another question set")
    if question.n_options != record.n_options:
        problem = f"{record.n_options} options in the run, {question.n_options} in the question"
        raise DataError(f"{record.id}: {problem}; the run was made with another question set")
    asked = question.permuted(record.order) if record.order else question
    if asked.label != record.label:
        problem = f"label {record.label} in the run, {asked.label} in the question"
        raise DataError(f"{record.id}: {problem}; the run was made with another question set")
    attributes = {**question.attributes, **record.attributes}
    return replace(record, attributes=attributes, options=asked.options)
