"""One row of a table against what a clause says of it (section 2.8, rules 3 to 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from proteus_omics.hypotheses.guard.numbers import COUNT_COLUMNS, ESTIMATES, Number, states
from proteus_omics.hypotheses.guard.vocabulary import Vocabulary
from proteus_omics.hypotheses.guard.wording import Assertion
from proteus_omics.hypotheses.rendering import fold, percent_change
from proteus_omics.models import Ref

Claim: TypeAlias = "Number | Assertion"
RATIOS = ("log2fc", "logFC")
"""Log2 ratios: they have a fold and a percentage."""
TIMES = ("fold", "hr", "odds_ratio")
"""What is a ratio as it stands."""


@dataclass(frozen=True)
class Row:
    """A row of a table, and how the clause's comparison lies to its contrast (1, -1 turned, 0 not said)."""

    table: str
    at: int
    contrast: str
    sign: int


@dataclass(frozen=True)
class Judged:
    """True, False, or None where the row has nothing to compare with."""

    holds: bool | None
    message: str
    ref: Ref | None = None


class Evaluator:
    """Judges claims by rows."""

    def __init__(self, vocabulary: Vocabulary, alpha: float) -> None:
        self.vocabulary = vocabulary
        self.alpha = alpha

    # ---- cells

    def has(self, row: Row, column: str) -> bool:
        """Whether the row's table has the column."""
        return column in self.vocabulary.tables[row.table].data.columns

    def value(self, row: Row, column: str) -> float:
        """A cell as a number, NaN where it is none."""
        return float(self.vocabulary.column(row.table, column)[row.at])

    def ref(self, row: Row, column: str) -> Ref:
        """The cell's name."""
        return Ref(table=row.table, row=self.vocabulary.tables[row.table].names[row.at], column=column)

    def estimate(self, table: str) -> str | None:
        """The column whose sign is a direction."""
        columns = self.vocabulary.tables[table].data.columns
        return next((name for name in ESTIMATES if name in columns), None)

    def column_of(self, table: str, role: Literal["p", "q"]) -> str | None:
        """The column of that role."""
        return next((name for name, one in self.vocabulary.tables[table].roles.items() if one == role), None)

    # ---- words

    def judge(self, claim: Claim, row: Row, sides: Sequence[str]) -> Judged:
        """What the row says of the claim; `sides` is the level that a number is of, or empty."""
        if isinstance(claim, Number):
            return self._number(claim, row, sides)
        if claim.kind == "direction":
            return self._direction(claim, row)
        if claim.kind == "superlative":
            return self._superlative(claim, row)
        return self._significance(claim, row)

    def _direction(self, claim: Assertion, row: Row) -> Judged:
        column = self.estimate(row.table)
        if column is None or not math.isfinite(self.value(row, column)):
            return Judged(None, "there is no estimate of which this could be the direction")
        if row.sign == 0:
            return Judged(None, "the text does not say which level is compared with which")
        estimate = self.value(row, column)
        agrees = estimate * row.sign * claim.sign > 0
        ref = self.ref(row, column)
        if claim.negated:
            q = self.q(row)
            holds = not agrees or (q is not None and q >= self.alpha)
            return Judged(holds, f"{ref} is {estimate:.4g}", ref)
        return Judged(agrees, f"{ref} is {estimate:.4g}", ref)

    def _significance(self, claim: Assertion, row: Row) -> Judged:
        q = self.q(row)
        if q is None:
            return Judged(None, "there is no q to judge significance by")
        column = self.column_of(row.table, "q") or self.column_of(row.table, "p") or ""
        holds = q >= self.alpha if claim.negated else q < self.alpha
        return Judged(holds, f"{self.ref(row, column)} is {q:.3g}", self.ref(row, column))

    def q(self, row: Row) -> float | None:
        """The row's q, its p where the table has no family to adjust for."""
        column = self.column_of(row.table, "q") or self.column_of(row.table, "p")
        if column is None or not math.isfinite(self.value(row, column)):
            return None
        return self.value(row, column)

    def _superlative(self, claim: Assertion, row: Row) -> Judged:
        """Most increased: the largest estimate among q < alpha; most significant: the smallest p."""
        estimate, p, q = (
            self.estimate(row.table), self.column_of(row.table, "p"), self.column_of(row.table, "q"),
        )  # fmt: skip
        if estimate is None or q is None or (claim.by_p and p is None) or (row.sign == 0 and claim.sign):
            return Judged(None, "there is nothing to rank by")
        values = self.vocabulary.column(row.table, estimate)
        among = self.vocabulary.column(row.table, q) < self.alpha
        if row.contrast:
            among = among & (self.vocabulary.column(row.table, "contrast") == row.contrast)
        sign = claim.sign * row.sign
        if sign:
            among = among & (values * sign > 0)
        column = p if claim.by_p and p is not None else estimate
        ranked = -self.vocabulary.column(row.table, column) if claim.by_p else (
            values * sign if sign else np.abs(values)
        )  # fmt: skip
        ref = self.ref(row, column)
        if not among.any():
            return Judged(False, "no row has q below alpha", ref)
        best = np.nanmax(np.where(among, ranked, np.nan))
        holds = bool(among[row.at]) and math.isclose(float(ranked[row.at]), float(best), rel_tol=1e-12)
        first = int(np.nanargmax(np.where(among, ranked, np.nan)))
        return Judged(
            holds, f"the extreme row of {row.table} is {self.vocabulary.tables[row.table].names[first]}", ref
        )

    # ---- numbers

    def _number(self, number: Number, row: Row, sides: Sequence[str]) -> Judged:
        seen: Judged | None = None
        for column, value in self._candidates(number, row, sides):
            ref = self.ref(row, column)
            if states(number, value):
                return Judged(True, f"{ref}", ref)
            if math.isfinite(value) and seen is None:
                seen = Judged(False if number.quantity != "any" else None, f"{ref} makes it {value:.4g}", ref)
        return seen or Judged(None, f"there is no {number.quantity} to compare this number with")

    def _candidates(self, number: Number, row: Row, sides: Sequence[str]) -> Iterator[tuple[str, float]]:
        """The cells that the number could be, as the values in which the text would give them."""
        quantity = number.quantity
        if quantity in ("q", "p"):
            column = self.column_of(row.table, "q" if quantity == "q" else "p")
            if column is not None:
                yield column, self.value(row, column)
        elif quantity == "fold":
            yield from self._folds(row)
        elif quantity == "percent":
            yield from self._percents(number, row, sides)
        elif quantity == "count":
            for column in self._count_columns(number, row, sides):
                yield column, self.value(row, column)
        elif quantity == "any":
            estimate = self.estimate(row.table)
            if estimate is not None:
                yield estimate, self._turned(number, row, estimate)
        else:
            for column in self._sided(number.columns, row, sides):
                yield column, self._turned(number, row, column)

    def _turned(self, number: Number, row: Row, column: str) -> float:
        value = self.value(row, column)
        if column in ESTIMATES or column in ("ci_low", "ci_high", "t", "z"):
            if number.by:
                return abs(value)
            return -value if row.sign < 0 else value
        return value

    def _folds(self, row: Row) -> Iterator[tuple[str, float]]:
        for column in RATIOS:
            if self.has(row, column):
                yield column, fold(self.value(row, column))
        for column in TIMES:
            if self.has(row, column):
                yield column, self.value(row, column)

    def _percents(self, number: Number, row: Row, sides: Sequence[str]) -> Iterator[tuple[str, float]]:
        for column in self._sided(number.columns, row, sides):
            yield column, 100 * self.value(row, column)
        for column in RATIOS:
            if not number.columns and self.has(row, column):
                ratio = self.value(row, column) * (row.sign or 1)
                size = percent_change(ratio)
                yield column, math.copysign(size, ratio) if number.signed else size

    def _count_columns(self, number: Number, row: Row, sides: Sequence[str]) -> list[str]:
        known = COUNT_COLUMNS.get(number.noun, ())
        if number.part == "of":
            known = tuple(one for one in known if one.startswith("detected")) or known
        elif number.part == "whole":
            known = tuple(one for one in known if not one.startswith("detected")) or known
        return self._sided(known, row, sides)

    def _sided(self, columns: Sequence[str], row: Row, sides: Sequence[str]) -> list[str]:
        """Columns that the table has; of those of one level only those of the level that is spoken of."""
        alt, ref = self.vocabulary.contrasts.get(row.contrast, ("", ""))
        side = sides[0] if sides else ""
        other = {alt: "_ref", ref: "_alt"}.get(side, "")
        found = [name for name in columns if self.has(row, name)]
        return [name for name in found if not other or not name.endswith(other)]
