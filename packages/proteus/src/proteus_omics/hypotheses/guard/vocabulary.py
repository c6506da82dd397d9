"""Names that a text may use: they are found before any number, for many hold digits (section 2.8, rule 1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from proteus_omics.hypotheses.references import Tables

Kind = Literal["protein", "population", "term", "module", "trait", "level", "column"]
KINDS: dict[str, Kind] = {
    "protein": "protein",
    "gene": "protein",
    "marker_a": "protein",
    "marker_b": "protein",
    "population": "population",
    "term": "term",
    "name": "term",
    "module": "module",
    "trait": "trait",
    "column": "column",
}
WORD = re.compile(r"[^\W_][\w\-+./:]*|\S")
EDGE = re.compile(r"[\w+]")


@dataclass(frozen=True)
class Mention:
    """A known name in a text."""

    start: int
    end: int
    name: str
    kind: Kind


class Vocabulary:
    """All names of the tables, found by longest match."""

    def __init__(self, tables: Tables) -> None:
        self.names: dict[str, Kind] = {}
        self.contrasts: dict[str, tuple[str, str]] = {}
        """Contrast to its level and its reference."""
        for table in tables.values():
            for column, kind in KINDS.items():
                if column in table.data.columns:
                    for value in table.data[column].dropna().unique():
                        self.names.setdefault(str(value), kind)
            if "contrast" in table.data.columns:
                self._levels(table.data["contrast"])
        self.names.pop("", None)
        self._by_start: dict[str, list[str]] = {}
        for name in self.names:
            self._by_start.setdefault(_first(name), []).append(name)
        for names in self._by_start.values():
            names.sort(key=len, reverse=True)

    def _levels(self, contrasts: pd.Series) -> None:
        for contrast in contrasts.dropna().astype(str).unique():
            alt, between, ref = contrast.partition("_vs_")
            if between:
                self.contrasts[contrast] = (alt, ref)
                self.names[alt] = self.names[ref] = "level"
            else:
                self.names.setdefault(contrast, "module")

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
        if at and EDGE.match(text[at - 1]) and EDGE.match(text[at]):
            return None
        for name in self._by_start.get(_first(text[at : at + 40]), ()):
            end = at + len(name)
            if text.startswith(name, at) and not _goes_on(text, end):
                return Mention(at, end, name, self.names[name])
        return None


def _first(text: str) -> str:
    match = re.match(r"[^\W_]+|\S", text)
    return match[0] if match else ""


def _goes_on(text: str, end: int) -> bool:
    """Whether the word goes on after `end`: CD4 is not found in CD45, C6 not in C6-like."""
    if end >= len(text):
        return False
    if EDGE.match(text[end]) or text[end] == "_":
        return True
    return text[end] in "-:" and end + 1 < len(text) and bool(re.match(r"\d", text[end + 1]))
