"""Every analysis of the same question, so that a second look is seen as one (section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Analysis:
    """One answer to a question: with which settings, why, and how many hits."""

    question: str
    settings: Mapping[str, Any]
    reason: str
    hits: int | None
    step: str
    table: str


class Ledger:
    """Analyses in the order in which they were made."""

    def __init__(self, analyses: Iterable[Analysis] = ()) -> None:
        self.analyses = list(analyses)

    def add(self, analysis: Analysis) -> None:
        """Write one down, once a step."""
        if all(analysis.step != other.step or analysis.table != other.table for other in self.analyses):
            self.analyses.append(analysis)

    def caveat(self, table: str) -> str | None:
        """`analysis k of m of this question` where there is more than one."""
        mine = next((one for one in self.analyses if one.table == table), None)
        if mine is None:
            return None
        same = [one.table for one in self.analyses if one.question == mine.question]
        return f"analysis {same.index(table) + 1} of {len(same)} of this question" if len(same) > 1 else None

    def to_json(self) -> list[dict[str, Any]]:
        """The entries, as `ledger.json` has them."""
        return [vars(analysis) | {"settings": dict(analysis.settings)} for analysis in self.analyses]
