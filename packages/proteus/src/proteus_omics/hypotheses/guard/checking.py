"""`check`: from a text and tables to a verdict and its findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from proteus_omics.hypotheses.guard.binding import ESTIMATES, Candidate, candidates, topic
from proteus_omics.hypotheses.guard.clauses import (
    BACKGROUND,
    CAUSAL,
    EXTREME,
    MISREAD,
    SIGNIFICANT,
    Clause,
    Comparison,
    Direction,
    clauses,
    comparison,
    directions,
)
from proteus_omics.hypotheses.guard.numbers import Number, numbers, states
from proteus_omics.hypotheses.guard.vocabulary import Mention, Vocabulary
from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.models import Finding, Model, Ref, Verdict

ENTITIES = ("protein", "population", "term", "module", "trait", "column")
GENE_LIKE = re.compile(
    r"(?<![\w-])(?:[A-Z]{2,}[0-9]*[A-Z0-9]*|[A-Z][A-Z0-9]{2,}|[OPQ][0-9][A-Z0-9]{3}[0-9])(?![\w-])"
)
COMMON = frozenset(
    {
        "AND", "BH", "BMI", "CI", "DDA", "DIA", "DNA", "ELISA", "EU", "FDR", "GO", "GSEA", "HDL", "HR", "ICU",
        "ID", "II", "III", "IQR", "IV", "KO", "LC", "LDL", "LFQ", "MS", "NES", "NOT", "OR", "ORA", "PCA",
        "PRM", "QC", "RNA", "SD", "SE", "TMT", "UMAP", "USA", "VLDL", "WT",
    }
)  # fmt: skip
"""Capitals that are no genes."""


class GuardReport(Model):
    """What the guard found. `contradicted` is worse than `unsupported`, that than `verified`."""

    status: Verdict
    findings: tuple[Finding, ...]

    @property
    def n_claims(self) -> int:
        """Claims that were judged."""
        return sum(one.verdict != "flagged" for one in self.findings)

    @property
    def n_verified(self) -> int:
        """Claims that a cell bears out."""
        return sum(one.verdict == "verified" for one in self.findings)


def check(
    text: str,
    tables: Tables | Mapping[str, Table | pd.DataFrame],
    alpha: float = 0.05,
    *,
    unresolved: Sequence[str] = (),
) -> GuardReport:
    """Check a text against result tables, sentence by sentence.

    `unresolved`: references of the draft that named no cell; each is an unsupported claim. A text without any
    claim has the status `no_claims`; what is only flagged (a cause, a function) keeps it from being verified.
    """
    tables = tables if isinstance(tables, Tables) else Tables(tables)
    return Guard(tables, alpha).check(text, unresolved)


@dataclass
class Guard:
    """The tables' names, indexed once for many texts."""

    tables: Tables
    alpha: float = 0.05

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary(self.tables)

    def check(self, text: str, unresolved: Sequence[str] = ()) -> GuardReport:
        """The verdict on one text."""
        findings = [
            Finding(verdict="unsupported", start=0, end=0, claim="", message=message)
            for message in unresolved
        ]
        mentions = list(self.vocabulary.mentions(text))
        findings += self._unknown_names(text, mentions)
        for clause in clauses(text, mentions):
            findings += self._clause(clause)
        return GuardReport(status=_status(findings), findings=tuple(findings))

    # ---- a clause

    def _clause(self, clause: Clause) -> Iterator[Finding]:
        yield from _flags(clause)
        compared = comparison(clause, self.vocabulary)
        words = directions(clause)
        counted = self._counts(clause, compared, words)
        if counted is not None:
            yield from counted
            return
        covered = [(one.start - clause.start, one.end - clause.start) for one in clause.mentions]
        stated = list(numbers(clause.text, covered, self.alpha))
        extreme = EXTREME.search(clause.text)
        levels = clause.of("level")
        if len(dict.fromkeys(one.name for one in levels)) >= 2 and compared is None:
            yield _finding("unsupported", clause, 0, len(clause.text), "these levels were not compared")
            return
        rows = candidates(clause, compared, self.tables)
        significance = [
            match
            for match in SIGNIFICANT.finditer(clause.text)
            if extreme is None or not extreme.start() <= match.start() < extreme.end()
        ]
        if not stated and not words and not significance and extreme is None:
            return
        if not rows:
            yield from self._without_rows(clause, stated, words, bool(significance or extreme))
            return
        flip = -1 if compared is not None and compared.flipped else 1
        wanted = words[0].sign * flip if words and not words[0].negated else 0
        best = _best(rows, stated, wanted, len(clause.of("protein")))
        if extreme is not None:
            yield self._extreme(clause, extreme, best[0], words)
        else:
            yield from self._directions(clause, words, best, flip)
        yield from self._significance(clause, significance, best)
        yield from self._numbers(clause, stated, best, wanted)

    def _numbers(
        self, clause: Clause, stated: Sequence[Number], rows: Sequence[Candidate], direction: int
    ) -> Iterator[Finding]:
        for number in stated:
            claim = (number.start, number.end)
            found = next(
                ((row, column) for row in rows if (column := row.match(number, direction)) is not None), None
            )
            if found is not None:
                yield _finding("verified", clause, *claim, "equals the cell", found[0].ref(found[1]))
            elif any(row.has(number) for row in rows):
                yield _finding("contradicted", clause, *claim, f"{_names(rows)} has another value")
            else:
                yield _finding("unsupported", clause, *claim, "no result has such a value")

    def _directions(
        self, clause: Clause, words: Sequence[Direction], rows: Sequence[Candidate], flip: int
    ) -> Iterator[Finding]:
        for word in words:
            for row in rows:
                effect = row.estimate
                if effect is None:
                    continue
                claim = (word.start - clause.start, word.end - clause.start)
                neutral = 1.0 if effect[0] in ("hr", "fold", "odds_ratio") else 0.0
                sign = np.sign(effect[1] - neutral) * flip
                holds = sign == word.sign
                if word.negated:
                    holds = not holds or not row.q < self.alpha
                verdict = "verified" if holds else "contradicted"
                yield _finding(verdict, clause, *claim, f"{effect[0]} is {effect[1]:.3g}", row.ref(effect[0]))

    def _significance(
        self, clause: Clause, found: Iterable[re.Match[str]], rows: Sequence[Candidate]
    ) -> Iterator[Finding]:
        for match in found:
            for row in rows:
                column = row.column_of("q")
                if column is None or np.isnan(row.q):
                    yield _finding("unsupported", clause, match.start(), match.end(), "there is no q")
                    continue
                holds = (row.q < self.alpha) != bool(match["not"])
                verdict = "verified" if holds else "contradicted"
                yield _finding(
                    verdict, clause, match.start(), match.end(), f"q is {row.q:.3g}", row.ref(column)
                )

    def _extreme(
        self, clause: Clause, match: re.Match[str], row: Candidate, words: Sequence[Direction]
    ) -> Finding:
        """Most increased or decreased: the extreme effect among hits; most significant: the smallest p."""
        data = row.table.data
        if "contrast" in data.columns:
            data = data[data["contrast"] == row.row["contrast"]]
        what = match["what"].lower()
        column: str | None
        if what.startswith("significan"):
            column = row.column_of("p")
            best = None if column is None else data[column].min()
        else:
            column = next((name for name in ESTIMATES if name in data.columns), None)
            q = row.column_of("q")
            hits = data if q is None else data[data[q] < self.alpha]
            lowest = what.startswith(("decreas", "down", "reduc"))
            best = (
                None
                if column is None or not len(hits)
                else hits[column].min()
                if lowest
                else hits[column].max()
            )
        if column is None or best is None:
            return _finding("unsupported", clause, match.start(), match.end(), "there is nothing to rank by")
        verdict = "verified" if row.row[column] == best else "contradicted"
        return _finding(
            verdict, clause, match.start(), match.end(), f"the extreme is {best:.3g}", row.ref(column)
        )

    def _counts(
        self, clause: Clause, compared: Comparison | None, words: Sequence[Direction]
    ) -> list[Finding] | None:
        """Counts of hits, recomputed; None for a clause that is about an entity, or counts nothing."""
        if clause.of(*ENTITIES) or topic(clause.text):
            return None
        covered = [(one.start - clause.start, one.end - clause.start) for one in clause.mentions]
        stated = [one for one in numbers(clause.text, covered, self.alpha) if one.quantity == "count"]
        if not stated:
            return None
        found = []
        flip = -1 if compared is not None and compared.flipped else 1
        for number in stated:
            word = next((one for one in words if one.start >= clause.start + number.end), None)
            sign = 0 if word is None else word.sign * flip
            found.append(self._count(clause, number, compared, sign))
        return found

    def _count(self, clause: Clause, number: Number, compared: Comparison | None, sign: int) -> Finding:
        values = []
        for table in self.tables.values():
            columns = {role: name for name, role in table.roles.items()}
            if "q" not in columns or "log2fc" not in table.data.columns or "population" in table.keys:
                continue
            data = table.data
            if compared is not None and "contrast" in data.columns:
                data = data[data["contrast"] == compared.contrast]
            hits = data[data[columns["q"]] < self.alpha]
            chosen = hits if not sign else hits[np.sign(hits["log2fc"]) == sign]
            values.append((table.id, len(chosen)))
        if not values:
            return _finding("unsupported", clause, number.start, number.end, "there is nothing to count")
        for id, count in values[:1]:
            if states(number, count):
                return _finding("verified", clause, number.start, number.end, f"{id} has {count}")
        return _finding(
            "contradicted", clause, number.start, number.end, f"{values[0][0]} has {values[0][1]}"
        )

    def _without_rows(
        self, clause: Clause, stated: Sequence[Number], words: Sequence[Direction], other: bool
    ) -> Iterator[Finding]:
        entities = [one.name for one in clause.of(*ENTITIES)]
        why = (
            f"no result is about {', '.join(entities)} here"
            if entities
            else "it names nothing that was tested"
        )
        for number in stated:
            yield _finding("unsupported", clause, number.start, number.end, why)
        if not stated and (words or other) and (entities or clause.of("level")):
            yield _finding("unsupported", clause, 0, len(clause.text), why)

    def _unknown_names(self, text: str, mentions: Sequence[Mention]) -> Iterator[Finding]:
        for match in GENE_LIKE.finditer(text):
            inside = any(one.start <= match.start() and match.end() <= one.end for one in mentions)
            part = any(one.start < match.end() and match.start() < one.end for one in mentions)
            if not inside and not part and match[0] not in COMMON:
                yield Finding(
                    verdict="unsupported",
                    start=match.start(),
                    end=match.end(),
                    claim=match[0],
                    message=f"{match[0]} is in no table",
                )


def _best(
    rows: Sequence[Candidate], stated: Sequence[Number], wanted: int, n_entities: int
) -> list[Candidate]:
    """The one row that bears out most of the clause's numbers; of several entities one row each."""

    def merit(row: Candidate) -> tuple[int, int]:
        effect = row.estimate
        agrees = effect is not None and wanted != 0 and np.sign(effect[1]) == wanted
        return sum(row.match(number, wanted) is not None for number in stated), int(agrees)

    if n_entities <= 1:
        return [max(rows, key=merit)]
    groups: dict[str, list[Candidate]] = {}
    for row in rows:
        groups.setdefault(str(row.row.get("protein", row.at)), []).append(row)
    return [max(group, key=merit) for group in groups.values()]


def _flags(clause: Clause) -> Iterator[Finding]:
    for pattern, message in (
        (CAUSAL, "a cause, which an association does not show"),
        (BACKGROUND, "background, not from this data: needs a knowledge_lookup reference"),
        (MISREAD, "B and t are statistics of a test, and nothing else"),
    ):
        for match in pattern.finditer(clause.text):
            yield _finding("flagged", clause, match.start(), match.end(), message)


def _status(findings: Sequence[Finding]) -> Verdict:
    verdicts = {one.verdict for one in findings}
    if "contradicted" in verdicts:
        return "contradicted"
    if "unsupported" in verdicts or "flagged" in verdicts:
        return "unsupported"
    return "verified" if "verified" in verdicts else "no_claims"


def _names(rows: Sequence[Candidate]) -> str:
    return ", ".join(f"{row.table.id}:{row.table.names[row.at]}" for row in rows[:3])


def _finding(
    verdict: str, clause: Clause, start: int, end: int, message: str, ref: Ref | None = None
) -> Finding:
    return Finding(
        verdict=verdict,
        start=clause.start + start,
        end=clause.start + end,
        claim=clause.text[start:end].strip(),
        message=message,
        ref=ref,
    )
