"""The check of a text, whole, hence over 400 lines: names, clauses, each claim against rows (section 2.8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import pandas as pd

from proteus_omics.hypotheses.guard.clauses import Span, clauses, sentences
from proteus_omics.hypotheses.guard.comparisons import Comparison, Oriented, compare
from proteus_omics.hypotheses.guard.counting import recount
from proteus_omics.hypotheses.guard.evaluation import Claim, Evaluator, Judged, Row
from proteus_omics.hypotheses.guard.numbers import Number, numbers
from proteus_omics.hypotheses.guard.vocabulary import Mention, Vocabulary
from proteus_omics.hypotheses.guard.wording import Assertion, assertions, unknown_names
from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.hypotheses.rendering import PLACE
from proteus_omics.models import Finding, Ref, Verdict

DOMAINS: Mapping[str, re.Pattern[str]] = {
    "detected_alt": re.compile(r"\bdetect", re.I),
    "share_alt": re.compile(r"\b(?:frequent|abundan|share|proportion|composition|fraction)", re.I),
    "hr": re.compile(r"\b(?:surviv|hazard|prognos|outcome)", re.I),
}
"""Tables, by a column that only they have, that answer only where the text speaks of their subject."""
SECONDARY = ("leave_one_out", "bootstrap_sign", "treat", "knowledge")
"""Tables that look at an effect again: they answer for numbers that no other table has."""


@dataclass(frozen=True)
class GuardReport:
    """The verdict on a text: contradicted before unsupported before verified before no_claims."""

    status: Verdict
    findings: tuple[Finding, ...]

    @property
    def n_claims(self) -> int:
        """Claims that were judged."""
        return len(self.findings)

    @property
    def n_verified(self) -> int:
        """Claims that a cell bears out."""
        return sum(one.verdict == "verified" for one in self.findings)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The cells that verified claims rest on."""
        cells = (one.ref for one in self.findings if one.verdict == "verified")
        return tuple(dict.fromkeys(ref for ref in cells if ref is not None))


def check(
    text: str,
    tables: Mapping[str, Table | pd.DataFrame] | Tables,
    alpha: float = 0.05,
    *,
    unresolved: Sequence[str] = (),
) -> GuardReport:
    """Whether a text says of the tables what is in them.

    `tables` are result tables by id, plain DataFrames or `Table`s whose keys and roles are declared; a
    contrast is named `<level>_vs_<reference>`. Significance is q < `alpha`. `unresolved`: why references of
    the draft named no cell, each an unsupported claim. Deterministic.
    """
    return Guard(tables, alpha).check(text, unresolved)


@dataclass
class _Context:
    """What a clause takes over from those before it, where it names nothing itself."""

    subjects: list[tuple[str, ...]] = field(default_factory=list)
    comparison: Comparison | None = None


class Guard:
    """Checks texts against the same tables; the names are indexed once."""

    def __init__(self, tables: Mapping[str, Table | pd.DataFrame] | Tables, alpha: float = 0.05) -> None:
        self.tables = tables if isinstance(tables, Tables) else Tables(tables)
        self.vocabulary = Vocabulary(self.tables)
        self.alpha = alpha
        self._evaluator = Evaluator(self.vocabulary, alpha)

    def check(self, text: str, unresolved: Sequence[str] = ()) -> GuardReport:
        """The verdict on one text; `unresolved` says why references that are still in it name no cell."""
        mentions = list(self.vocabulary.mentions(text))
        findings = sorted(self._findings(text, mentions, unresolved), key=lambda one: (one.start, one.end))
        verdicts = {one.verdict for one in findings}
        status: Verdict = "no_claims"
        if "contradicted" in verdicts:
            status = "contradicted"
        elif verdicts & {"unsupported", "flagged"}:
            status = "unsupported"
        elif "verified" in verdicts:
            status = "verified"
        return GuardReport(status, tuple(findings))

    # ---- the text in parts

    def _findings(self, text: str, mentions: list[Mention], unresolved: Sequence[str]) -> Iterator[Finding]:
        places = [match.span() for match in PLACE.finditer(text)]
        for number, span in enumerate(places):
            why = unresolved[number] if number < len(unresolved) else "this reference names no cell"
            yield _finding("unsupported", text, span, why)
        for why in unresolved[len(places) :]:
            yield _finding("unsupported", text, (0, 0), why)
        mentions = [one for one in mentions if not any(a <= one.start < b for a, b in places)]
        covered = [*((one.start, one.end) for one in mentions), *places]
        plain = _blanked(text, covered)
        for match in unknown_names(plain):
            yield _finding("unsupported", text, match.span(), f"no table knows {match[0]!r}")
            covered.append(match.span())
        found = list(numbers(text, covered))
        said = list(assertions(text, plain))
        context = _Context()
        for sentence in sentences(text, covered):
            within = [one for one in mentions if _in(one.start, sentence)]
            whole = compare(text[slice(*sentence)], _shifted(within, sentence[0]), self.vocabulary.contrasts)

            def asserts(span: Span) -> bool:
                named = any(_in(one.start, span) and _is_entity(one) for one in mentions) or any(
                    _in(one.start, span) and one.quantity == "count" for one in found
                )
                return named and any(
                    _in(one.start, span) and one.kind in ("direction", "significant", "differs")
                    for one in said
                )

            for span in clauses(text, sentence, asserts):
                yield from self._clause(text, span, mentions, found, said, whole, context)

    def _clause(
        self, text: str, span: Span, mentions: Sequence[Mention], found: Sequence[Number],
        said: Sequence[Assertion], whole: Comparison | None, context: _Context,
    ) -> Iterator[Finding]:  # fmt: skip
        part = text[slice(*span)]
        here = [one for one in mentions if _in(one.start, span)]
        own = compare(part, _shifted(here, span[0]), self.vocabulary.contrasts)
        comparison = own or whole or context.comparison
        context.comparison = comparison
        claims: list[Claim] = [
            *(one for one in found if _in(one.start, span)),
            *(one for one in said if _in(one.start, span)),
        ]
        entities = [one for one in here if _is_entity(one)]
        if entities:
            context.subjects = self._subjects(entities)
        subjects = context.subjects if entities or not _counts(claims) else []
        yield from self._flags(
            text, [one for one in claims if isinstance(one, Assertion)], subjects, entities
        )
        claims = [one for one in claims if isinstance(one, Number) or one.kind not in ("cause", "background")]
        if not claims:
            return
        if comparison is not None and comparison.problem:
            for claim in claims:
                yield _finding("unsupported", text, (claim.start, claim.end), comparison.problem)
            return
        claims, counted = self._split_counts(part, claims, subjects)
        for number in counted:
            yield self._count(text, part, number, claims, subjects, comparison)
        if counted:  # a direction beside a count is what is counted
            claims = [one for one in claims if isinstance(one, Number) and one.relation == "="]
        if claims:
            yield from self._rows_of(text, span, claims, entities, subjects, comparison)

    # ---- what a clause is about

    def _subjects(self, entities: Sequence[Mention]) -> list[tuple[str, ...]]:
        """Sets of names that one row each has to have; several where several names of a kind are listed."""
        names = list(dict.fromkeys(one.name for one in entities))
        if len(names) == 1 or any(self.vocabulary.rows(id, names) for id in self.vocabulary.tables):
            return [tuple(names)]
        kinds: dict[str, list[str]] = {}
        for one in entities:
            listed = kinds.setdefault(one.kind, [])
            if one.name not in listed:
                listed.append(one.name)
        return [tuple(chosen) for chosen in product(*kinds.values())]

    def _split_counts(
        self, part: str, claims: Sequence[Claim], subjects: Sequence[tuple[str, ...]]
    ) -> tuple[list[Claim], list[Number]]:
        """Counts of rows apart from numbers that a row holds itself."""
        kinds = {self.vocabulary.names.get(name) for subject in subjects for name in subject}
        counted = [
            one
            for one in claims
            if isinstance(one, Number) and one.quantity == "count" and not one.part
            and one.noun in ("protein", "gene", "term", "module", "population")
            and not kinds & {"protein", "term", "module"}
        ]  # fmt: skip
        return [one for one in claims if one not in counted], counted

    def _count(
        self, text: str, part: str, number: Number, claims: Sequence[Claim],
        subjects: Sequence[tuple[str, ...]], comparison: Comparison | None,
    ) -> Finding:  # fmt: skip
        words = [one for one in claims if isinstance(one, Assertion)]
        within = subjects[0] if subjects else ()
        groups = comparison.groups if comparison is not None else (self._every(),)
        counts = [recount(number, part, group, within, words, self._evaluator) for group in groups]
        return _judged(text, number, min(counts, key=_rank))

    def _every(self) -> tuple[Oriented, ...]:
        return tuple(Oriented(name, 1) for name in self.vocabulary.contrasts)

    # ---- claims of rows

    def _rows_of(
        self, text: str, span: Span, claims: Sequence[Claim], entities: Sequence[Mention],
        subjects: Sequence[tuple[str, ...]], comparison: Comparison | None,
    ) -> Iterator[Finding]:  # fmt: skip
        part = text[slice(*span)]
        explicit = comparison is not None and bool(comparison.levels or comparison.targets)
        groups = comparison.groups if comparison is not None else (self._every(),)
        targets = comparison.targets if comparison is not None else (None,)
        results: dict[Claim, list[Judged]] = {claim: [] for claim in claims}
        for subject in subjects or [()]:
            for group, target in zip(groups, targets, strict=True):
                mine = [
                    claim
                    for claim in claims
                    if not isinstance(claim, Number)
                    or (
                        self._belongs(claim, subject, subjects, entities, text, span)
                        and _of_target(claim, target, targets, claims, span)
                    )
                ]
                rows = list(self._rows(subject, group, part, explicit))
                levels = comparison.levels if comparison is not None else ()
                for claim, one in self._best(mine, rows, levels, claims, span, subject):
                    results[claim].append(one)
        for claim, judged in results.items():
            worst = (
                min(judged, key=_rank) if judged else Judged(None, "it is not clear what this number is of")
            )
            yield _judged(text, claim, self._others(claim, worst, subjects, groups))

    def _rows(
        self, subject: Sequence[str], group: Sequence[Oriented], part: str, explicit: bool
    ) -> Iterator[Row]:
        """Rows that have the subject's names and one of the contrasts."""
        signs = {one.contrast: one.sign for one in group}
        speaks = {column for column, pattern in DOMAINS.items() if pattern.search(part)}
        for id, table in self.vocabulary.tables.items():
            own = {column for column in DOMAINS if column in table.data.columns}
            if own - speaks or (speaks and not own and self._has_domain(speaks)):
                continue
            if subject:
                at = self.vocabulary.rows(id, subject)
            else:
                at = list(range(len(table.data))) if table.keys in (("contrast",), ()) else []
            if "contrast" not in table.data.columns:
                if not explicit or not self.vocabulary.contrasts:
                    yield from (Row(id, one, "", 1) for one in at)
                continue
            contrast = self.vocabulary.column(id, "contrast")
            for one in at:
                name = contrast[one]
                if name in signs:
                    yield Row(id, one, name, signs[name])
                elif name not in self.vocabulary.contrasts and (not explicit or not signs):
                    yield Row(id, one, "", 1)  # gene sets of a module or of survival

    def _has_domain(self, speaks: Iterable[str]) -> bool:
        return any(
            column in table.data.columns for table in self.vocabulary.tables.values() for column in speaks
        )

    def _best(
        self, claims: Sequence[Claim], rows: Sequence[Row], levels: Sequence[Mention],
        all_claims: Sequence[Claim], span: Span, subject: Sequence[str],
    ) -> Iterator[tuple[Claim, Judged]]:  # fmt: skip
        """Each claim by the row that fits most of them; what that row has no value for by another table's."""
        if not rows:
            what = " and ".join(subject) or "this"
            for claim in claims:
                yield claim, Judged(None, f"the tables have no row of {what} in this comparison")
            return
        sides = {claim: _sides(claim, levels, all_claims, span) for claim in claims}
        judged = {row: [self._evaluator.judge(claim, row, sides[claim]) for claim in claims] for row in rows}

        def fitness(row: Row) -> tuple[int, int, bool]:
            holds = [one.holds for one in judged[row]]
            return (holds.count(True), -holds.count(False), not row.table.startswith(SECONDARY))

        best = max(rows, key=fitness)
        for number, claim in enumerate(claims):
            found = judged[best][number]
            if found.holds is None:
                others = (
                    judged[row][number] for row in rows if row.contrast == best.contrast and row != best
                )
                found = max((found, *others), key=lambda one: (one.holds is not None, one.holds is True))
            yield claim, found
        yield from self._quiet(claims, best)

    def _quiet(self, claims: Sequence[Claim], best: Row) -> Iterator[tuple[Claim, Judged]]:
        """A direction of a row whose q is not below alpha, in a clause that keeps silent about that."""
        said = any(
            (isinstance(one, Number) and one.quantity in ("q", "p", "lower bound"))
            or (isinstance(one, Assertion) and one.kind in ("significant", "differs"))
            for one in claims
        )
        q = self._evaluator.q(best)
        if said or q is None or q < self.alpha:
            return
        for claim in claims:
            if isinstance(claim, Assertion) and claim.kind == "direction" and not claim.negated:
                yield (
                    claim,
                    Judged(None, f"q = {q:.2g} is not below {self.alpha:g}, which the text does not say"),
                )

    # ---- numbers and their owners

    def _belongs(
        self, number: Number, subject: Sequence[str], subjects: Sequence[tuple[str, ...]],
        entities: Sequence[Mention], text: str, span: Span,
    ) -> bool:  # fmt: skip
        """Whether a number is said of this subject: of several the nearest before it, else the first."""
        if len(subjects) < 2:
            return True
        listed = [one for one in entities if sum(one.name in s for s in subjects) < len(subjects)]
        if "respectively" in text[slice(*span)]:
            same = [
                one
                for one in numbers(text, [(one.start, one.end) for one in entities])
                if _in(one.start, span)
            ]
            same = [one for one in same if one.quantity == number.quantity or number.quantity == "any"]
            at = next((i for i, one in enumerate(same) if one.start == number.start), -1)
            return len(same) == len(listed) and at >= 0 and listed[at].name in subject
        before = [one for one in listed if one.end <= number.start]
        nearest = before[-1] if before else listed[0]
        return nearest.name in subject

    def _others(
        self, claim: Claim, judged: Judged, subjects: Sequence[tuple[str, ...]],
        groups: Sequence[Sequence[Oriented]],
    ) -> Judged:  # fmt: skip
        """A number that is another entity's is contradicted, also where its quantity is not stated."""
        if (
            not isinstance(claim, Number)
            or judged.holds is not None
            or judged.ref is None
            or claim.digits == 0
        ):
            return judged
        table, column = judged.ref.table, judged.ref.column
        values = self.vocabulary.column(table, column)
        near = abs(values - claim.value) <= 0.5 * 10.0 ** (claim.exponent - claim.digits)
        if not near.any():
            return judged
        name = self.vocabulary.tables[table].names[int(near.argmax())]
        return Judged(False, f"{judged.message}; {table}:{name}:{column} is {claim.value:g}", judged.ref)

    # ---- what no table can say

    def _flags(
        self, text: str, words: Sequence[Assertion], subjects: Sequence[tuple[str, ...]],
        entities: Sequence[Mention],
    ) -> Iterator[Finding]:  # fmt: skip
        for word in words:
            span = (word.start, word.end)
            if word.kind == "cause":
                message = (
                    "B is the log-odds of a difference and t its size in standard errors, nothing else"
                    if word.negated
                    else "observational data show association, not a cause"
                )
                yield _finding("flagged", text, span, message)
            elif word.kind == "background" and entities:
                ref = self._known(text, subjects)
                if ref is None:
                    yield _finding("flagged", text, span, "background, not from this data")
                else:
                    yield _finding("verified", text, span, f"{ref}", ref)

    def _known(self, text: str, subjects: Sequence[tuple[str, ...]]) -> Ref | None:
        """A row of looked-up knowledge whose term the text names."""
        table = self.vocabulary.tables.get("knowledge")
        if table is None:
            return None
        low = text.lower()
        for subject in subjects:
            for at in self.vocabulary.rows("knowledge", subject[:1]):
                row = table.data.iloc[at]
                if str(row["name"]).lower() in low or str(row["term"]).lower() in low:
                    return Ref(table="knowledge", row=table.names[at], column="name")
        return None


def _is_entity(mention: Mention) -> bool:
    return mention.kind not in ("level", "contrast")


def _counts(claims: Iterable[Claim]) -> bool:
    return any(isinstance(one, Number) and one.quantity == "count" and not one.part for one in claims)


def _in(at: int, span: Span) -> bool:
    return span[0] <= at < span[1]


def _shifted(mentions: Iterable[Mention], offset: int) -> list[Mention]:
    return [Mention(one.start - offset, one.end - offset, one.name, one.kind) for one in mentions]


def _blanked(text: str, covered: Iterable[Span]) -> str:
    plain = list(text)
    for start, end in covered:
        plain[start:end] = "\u00b7" * (end - start)
    return "".join(plain)


def _of_target(
    number: Number,
    target: Mention | None,
    targets: Sequence[Mention | None],
    claims: Sequence[Claim],
    span: Span,
) -> bool:
    """Whether a number is of this level, of several that a clause compares: the nearest before it."""
    known = [one for one in targets if one is not None]
    if target is None or len(known) < 2:
        return True
    before = [one for one in known if one.end + span[0] <= number.start]
    return (before[-1] if before else known[0]) is target


def _sides(claim: Claim, levels: Sequence[Mention], claims: Sequence[Claim], span: Span) -> tuple[str, ...]:
    """The level that a number is of: of "x and y" the first and the second, else the nearest before it."""
    if not isinstance(claim, Number) or not levels:
        return ()
    same = [
        one for one in claims
        if isinstance(one, Number)
        and (one.quantity, one.part, one.columns) == (claim.quantity, claim.part, claim.columns)
    ]  # fmt: skip
    names = list(dict.fromkeys(one.name for one in levels))
    last = max(one.end for one in levels) + span[0]
    if len(same) == len(names) == 2 and all(one.start > last for one in same):
        return (names[same.index(claim)],)
    before = [one for one in levels if one.end + span[0] <= claim.start]
    return (before[-1].name,) if before else ()


def _rank(judged: Judged) -> int:
    return {False: 0, None: 1, True: 2}[judged.holds]


def _judged(text: str, claim: Claim, judged: Judged) -> Finding:
    verdict = {True: "verified", False: "contradicted", None: "unsupported"}[judged.holds]
    return _finding(verdict, text, (claim.start, claim.end), judged.message, judged.ref)


def _finding(verdict: str, text: str, span: Span, message: str, ref: Ref | None = None) -> Finding:
    start, end = span
    return Finding.model_validate(
        {
            "verdict": verdict,
            "start": start,
            "end": end,
            "claim": text[start:end],
            "message": message,
            "ref": ref,
        }
    )
