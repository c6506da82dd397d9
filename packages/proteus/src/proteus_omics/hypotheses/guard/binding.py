"""Rows that a clause can be about, and their cells by what they are (section 2.8, rule 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from proteus_omics.hypotheses.guard.clauses import Clause, Comparison
from proteus_omics.hypotheses.guard.numbers import Number, states
from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.hypotheses.rendering import fold, percent_change
from proteus_omics.models import Ref

LOGARITHMIC = ("log2fc", "difference")
ESTIMATES = ("log2fc", "nes", "rho", "r", "coef", "difference", "fold", "odds_ratio", "hr", "log2_odds")
# Words that tell which column is meant, most particular first.
TOPICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"detect\w*", ("detected_alt",)),
    (r"enrichment score|\bNES\b|gene set|pathway", ("nes",)),
    (r"hazard ratio|survival", ("hr",)),
    (r"correlat\w*|\brho\b|(?<![\w.])r\s*=", ("rho", "r")),
    (r"interactions?\b", ("n_edges",)),
    (r"frequent|frequency|\bshare\b|proportion", ("share_alt",)),
    (r"over-?represent\w*", ("n_overlap",)),
)
KEY_OF = {
    "protein": ("protein", "gene", "marker_a", "marker_b"),
    "population": ("population",),
    "term": ("term", "name"),
    "module": ("module", "contrast"),
    "trait": ("trait",),
    "column": ("column",),
}


@dataclass(frozen=True)
class Candidate:
    """A row."""

    table: Table
    at: int

    @cached_property
    def row(self) -> pd.Series:
        """Its cells."""
        return self.table.data.iloc[self.at]

    def ref(self, column: str) -> Ref:
        """A reference to a cell."""
        return Ref(table=self.table.id, row=self.table.names[self.at], column=column)

    @property
    def estimate(self) -> tuple[str, float] | None:
        """The column of the effect, and the effect."""
        for name in ESTIMATES:
            if name in self.row.index and pd.notna(self.row[name]):
                return name, float(self.row[name])
        return None

    def column_of(self, role: str) -> str | None:
        """The column with a role."""
        return next((name for name, known in self.table.roles.items() if known == role), None)

    @property
    def q(self) -> float:
        """Its q, NaN where there is none."""
        name = self.column_of("q")
        return float(self.row[name]) if name is not None and pd.notna(self.row[name]) else np.nan

    def match(self, number: Number, direction: int) -> str | None:
        """The column whose value the number states, by what it is said to be; None if none does."""
        for column in self._columns(number):
            value = float(self.row[column])
            if number.quantity == "fold":
                value = fold(value)
            elif number.quantity == "percent":
                value = percent_change(value)
            if states(number, value):
                return column
            # "decreased by 0.53": the sign is in the word.
            unsigned = column in LOGARITHMIC and direction != 0 and np.sign(value) == direction
            if unsigned and number.value > 0 and states(number, abs(value)):
                return column
        return None

    def has(self, number: Number) -> bool:
        """Whether the row has a value of what the number is said to be."""
        return bool(self._columns(number))

    def _columns(self, number: Number) -> list[str]:
        numeric = [
            str(name)
            for name, value in self.row.items()
            if isinstance(value, (int, float, np.number))
            and not isinstance(value, (bool, np.bool_))
            and pd.notna(value)
        ]
        roles = self.table.roles
        if number.quantity in ("q", "p"):
            return [name for name in numeric if roles.get(name) == number.quantity]
        if number.quantity in ("fold", "percent"):
            return [name for name in numeric if name in LOGARITHMIC]
        if number.quantity == "count":
            return [
                name for name in numeric if roles.get(name) == "n" or name.startswith(("n_", "detected_"))
            ]
        if number.quantity == "estimate":
            return [name for name in numeric if name in _named(number.phrase)]
        return [name for name in numeric if roles.get(name) not in ("p", "q")]


def _named(phrase: str) -> set[str]:
    """Columns that the words before a number mean."""
    tail = phrase.lower()[-28:]
    for words, columns in (
        ("hazard ratio", {"hr"}),
        ("enrichment score", {"nes"}),
        ("nes", {"nes"}),
        ("odds ratio", {"odds_ratio"}),
        ("share", {"share_alt", "share_ref", "difference"}),
        ("coefficient", {"coef"}),
        ("rho", {"rho"}),
    ):
        if words in tail:
            return columns
    if re.search(r"\br\s*=?\s*$", tail):
        return {"r", "rho"}
    return {"log2fc", "difference"}


def candidates(clause: Clause, compared: Comparison | None, tables: Tables) -> list[Candidate]:
    """Rows of the clause's names, in the contrast that it is about, of the tables that its words mean."""
    wanted = topic(clause.text)
    found = []
    for table in tables.values():
        if wanted and not any(name in table.data.columns for name in wanted):
            continue
        if not wanted and not set(ESTIMATES) & set(table.data.columns):
            continue
        found += list(_rows(table, clause, compared))
    return found


def topic(text: str) -> tuple[str, ...]:
    """Columns of which a table that a text is about has one."""
    return next((columns for words, columns in TOPICS if re.search(words, text, re.IGNORECASE)), ())


def _rows(table: Table, clause: Clause, compared: Comparison | None) -> Iterator[Candidate]:
    keep = np.ones(len(table.data), dtype=bool)
    named = False
    for kind, columns in KEY_OF.items():
        names = {one.name for one in clause.of(kind)}
        there = [column for column in columns if column in table.data.columns]
        if not names:
            continue
        if not there:
            if kind in ("protein", "population", "module", "term"):
                return  # the table is not about what the clause is about
            continue
        keep &= _among(table, there, names)
        named = True
    if "contrast" in table.data.columns and compared is not None:
        keep &= _among(table, ["contrast"], {compared.contrast})
    if not named and "contrast" not in table.keys:
        return
    if not named and table.keys != ("contrast",):
        return
    for at in np.flatnonzero(keep):
        yield Candidate(table, int(at))


def _among(table: Table, columns: Sequence[str], names: set[str]) -> np.ndarray:
    keep = np.zeros(len(table.data), dtype=bool)
    for column in columns:
        index = table.positions(column)
        for name in names:
            keep[index.get(name, _NONE)] = True
    return keep


_NONE = np.zeros(0, dtype=np.int64)
