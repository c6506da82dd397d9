"""Whether whole counts of right answers stand behind a printed row, all its columns at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from medxpertqa.paper.tables import CELLS, COLUMNS, MODELS, Published
from medxpertqa.stats import grim

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Repair:
    """The one other percentage of one column that makes its row possible: `count` right out of `n`."""

    column: str
    percent: float
    count: int
    n: int


@dataclass(frozen=True)
class Row:
    """A model's row: `solutions` are all right-answer counts by cell that give every column.

    `counts` is the solution if there is exactly one (else None); `repairs` are sought where there is none.
    """

    model: str
    table: int
    sizes: Counts
    solutions: tuple[Counts, ...]
    repairs: tuple[Repair, ...]

    @property
    def consistent(self) -> bool:
        """Whether any whole counts give the row."""
        return bool(self.solutions)

    @property
    def counts(self) -> Counts | None:
        """Right answers by cell, if the row allows exactly one solution."""
        return self.solutions[0] if len(self.solutions) == 1 else None


def check_tables(rows: tuple[Published, ...] = MODELS) -> list[Row]:
    """Solve every model's row of Tables 4 and 5 in whole counts of right answers (GRIM, all columns)."""
    found = []
    for row in rows:
        solutions = tuple(_solve(row, row.percents))
        repairs = () if solutions else tuple(_repairs(row))
        n_cells = 2 if row.table == 5 else 4
        found.append(Row(row.model, row.table, row.sizes[:n_cells], solutions, repairs))
    return found


def _solve(row: Published, percents: Mapping[str, float]) -> list[Counts]:
    n_cells = 2 if row.table == 5 else 4
    allowed = {name: set(grim(percent, _size(row, name))) for name, percent in percents.items()}
    cells = [allowed.get(name, range(row.sizes[place] + 1)) for place, name in enumerate(CELLS[:n_cells])]
    pooled = [name for name in allowed if len(COLUMNS[name]) > 1]
    return [
        counts
        for counts in product(*(sorted(cell) for cell in cells))
        if all(sum(counts[place] for place in COLUMNS[name]) in allowed[name] for name in pooled)
    ]


def _repairs(row: Published) -> list[Repair]:
    """Leave out each column in turn; what the others force its value to be is a repair."""
    found = []
    for column in row.percents:
        others = {name: percent for name, percent in row.percents.items() if name != column}
        for counts in _solve(row, others):
            count, n = sum(counts[place] for place in COLUMNS[column]), _size(row, column)
            found.append(Repair(column, round(100 * count / n, 2), count, n))
    return found


def _size(row: Published, column: str) -> int:
    return sum(row.sizes[place] for place in COLUMNS[column])
