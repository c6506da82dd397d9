"""Names that a text may use: they are found before any number, for many hold digits (section 2.8, rule 1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd

from proteus_omics.hypotheses.references import Table, Tables

Kind = Literal["protein", "population", "term", "module", "trait", "level", "contrast"]
KINDS: Mapping[str, Kind] = {
    "protein": "protein",
    "gene": "protein",
    "marker_a": "protein",
    "marker_b": "protein",
    "entity": "protein",
    "population": "population",
    "term": "term",
    "name": "term",
    "module": "module",
    "trait": "trait",
    "column": "trait",
}
TOKEN = re.compile(r"[\w+][\w+:.\-/]*|\S")
CUTS = re.compile(r"[:.\-/]")
EDGE = re.compile(r"[\w+]")
PLURAL: tuple[Kind, ...] = ("population", "module", "level")
LEADS = re.compile(
    r"\b(?:in|with|and|or|between|than|to|from|of|vs\.?|versus|over|for|group|groups|condition)\s+$", re.I
)
"""What stands before a level whose name is so short, or so common a word, that it alone says nothing."""


@dataclass(frozen=True)
class Mention:
    """A known name in a text."""

    start: int
    end: int
    name: str
    kind: Kind


class Vocabulary:
    """All names of the tables, found by longest match, and the rows that have them."""

    def __init__(self, tables: Tables) -> None:
        self.tables = {id: table for id, table in tables.items() if not table.of_samples}
        self.names: dict[str, Kind] = {}
        self.contrasts: dict[str, tuple[str, str]] = {}
        """Contrast to its level and its reference."""
        self._rows: dict[str, dict[str, list[int]]] = {}
        self._columns: dict[tuple[str, str], np.ndarray] = {}
        for id, table in self.tables.items():
            self._rows[id] = self._index(table)
        for contrast, levels in self.contrasts.items():
            self.names[contrast] = "contrast"
            self.names |= dict.fromkeys(levels, "level")
        self._by_token: dict[str, list[str]] = {}
        for name in self.names:
            self._by_token.setdefault(_token(name), []).append(name)
        for names in self._by_token.values():
            names.sort(key=len, reverse=True)

    def _index(self, table: Table) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for column, kind in KINDS.items():
            if column in table.data.columns:
                for at, value in enumerate(table.data[column].astype(object)):
                    if isinstance(value, str) and value and (column != "name" or " " in value):
                        rows = found.setdefault(value, [])
                        if not rows or rows[-1] != at:
                            rows.append(at)
                        self.names.setdefault(value, kind)
        if "contrast" in table.data.columns:
            self._add_contrasts(table.data["contrast"], found)
        return found

    def _add_contrasts(self, contrasts: pd.Series, rows: dict[str, list[int]]) -> None:
        for contrast in contrasts.dropna().astype(str).unique():
            alt, between, ref = contrast.partition("_vs_")
            if between:
                self.contrasts[contrast] = (alt, ref)
            elif contrast != "survival":  # gene sets of modules: the module stands in the contrast's place
                self.names.setdefault(contrast, "module")
                rows[contrast] = np.flatnonzero(contrasts.astype(str) == contrast).tolist()

    # ---- rows

    def rows(self, table: str, names: Sequence[str]) -> list[int]:
        """Rows of a table that have all of these names."""
        index = self._rows[table]
        found = [index.get(name, []) for name in names]
        if not found or not all(found):
            return []
        common = set(found[0]).intersection(*found[1:])
        return sorted(common)

    def column(self, table: str, name: str) -> np.ndarray:
        """A column's values, numbers as float64 (what is none as NaN)."""
        key = (table, name)
        if key not in self._columns:
            series = self.tables[table].data[name]
            if name == "contrast":
                self._columns[key] = series.astype(str).to_numpy(dtype=object)
            else:
                self._columns[key] = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64)
        return self._columns[key]

    # ---- texts

    def mentions(self, text: str) -> Iterator[Mention]:
        """Known names from left to right, the longest at each place, on word boundaries."""
        at = 0
        while at < len(text):
            found = self._at(text, at)
            if found is None:
                at += 1
            else:
                yield found
                at = found.end

    def _at(self, text: str, at: int) -> Mention | None:
        if text[at].isspace() or (at and EDGE.match(text[at - 1]) and EDGE.match(text[at])):
            return None
        match = TOKEN.match(text, at)
        token = match[0] if match else text[at]
        best: Mention | None = None
        for key in _prefixes(token):
            for name in self._by_token.get(key, ()):
                if text.startswith(name, at) and (best is None or len(name) > len(best.name)):
                    kind = self.names[name]
                    end = at + len(name)
                    if kind in PLURAL and text[end : end + 1] == "s":
                        end += 1
                    if not _goes_on(text, end) and self._stands_out(text, at, name, kind):
                        best = Mention(at, end, name, kind)
        return best

    @staticmethod
    def _stands_out(text: str, at: int, name: str, kind: Kind) -> bool:
        """Whether a short name, or one that is a common word, is meant: only where its place says so."""
        if kind != "level" or (len(name) > 2 and name not in ("high", "low", "up", "down", "more", "less")):
            return True
        return bool(LEADS.search(text[max(0, at - 14) : at])) or bool(
            re.match(r"\s+(?:than|vs|versus|compared|relative)\b", text[at + len(name) :])
        )


@cache
def _prefixes(token: str) -> tuple[str, ...]:
    """The token and its beginnings up to each inner mark: CD4-positive is also CD4."""
    return (token, *(token[: cut.start()] for cut in CUTS.finditer(token) if cut.start()))


def _token(name: str) -> str:
    match = TOKEN.match(name)
    return match[0] if match else name[:1]


def _goes_on(text: str, end: int) -> bool:
    """Whether the word goes on after `end`: CD4 is not found in CD45, IL not in IL-6."""
    if end >= len(text):
        return False
    if EDGE.match(text[end]):
        return True
    return text[end] in "-:" and bool(re.match(r"\d", text[end + 1 : end + 2]))
