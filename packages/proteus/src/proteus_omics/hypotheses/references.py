"""References to cells of result tables: `{{de:PIGR|cirrhosis_vs_healthy:log2fc|.2f}}` (section 2.7).

A row is named by its key values joined by `|`. A dot after the table's name fixes the contrast:
`de.cirrhosis_vs_healthy:PIGR:log2fc`. A protein may be named by its accession, or by its gene where one row
has it. Terms hold colons (GO:0006955), so table and column are cut off at the first and the last colon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from proteus_omics.errors import DataError
from proteus_omics.models import Ref, Role

KEYS = (
    "population", "protein", "gene", "marker_a", "marker_b", "entity", "collection", "term", "module",
    "trait", "column", "cluster", "component", "group", "contrast",
)  # fmt: skip
"""Columns that can be keys of a table of which no keys were declared, in their order."""
SAMPLE_LEVEL = "sample"
"""A table with this key is of single samples, and not for planners."""


@dataclass(frozen=True)
class Table:
    """A result table with the meaning of its columns."""

    id: str
    data: pd.DataFrame
    keys: tuple[str, ...]
    roles: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def inferred(cls, id: str, data: pd.DataFrame) -> Table:
        """A table whose keys and roles follow from the names of its columns."""
        from proteus_omics.tools.columns import ROLES

        names = [str(name) for name in data.columns]
        keys = [name for name in KEYS if name in names]
        if "protein" in keys and "gene" in keys:
            keys.remove("gene")  # a name of the protein, no key of its own
        roles = {name: ROLES[name] for name in names if name in ROLES}
        roles |= {name: "n" for name in names if name == "n" or name.startswith("n_")}
        return cls(id, data.reset_index(drop=True), tuple(keys), roles)

    @property
    def of_samples(self) -> bool:
        """Whether its rows are samples."""
        return SAMPLE_LEVEL in self.keys or SAMPLE_LEVEL in self.data.columns

    @cached_property
    def names(self) -> list[str]:
        """Each row's name: its key values joined by `|`."""
        if not self.keys:
            return [str(at) for at in range(len(self.data))]
        parts = [self.data[key].astype(str) for key in self.keys]
        return ["|".join(values) for values in zip(*parts, strict=True)]

    @cached_property
    def _by_name(self) -> Mapping[str, int | None]:
        """Names, also with genes in place of proteins, to rows; None for a name that several rows have."""
        found: dict[str, int | None] = {}
        if "protein" in self.keys and "gene" in self.data.columns:
            for at, (name, gene) in enumerate(zip(self.names, self.data["gene"].astype(str), strict=True)):
                parts = name.split("|")
                parts[self.keys.index("protein")] = gene
                alias = "|".join(parts)
                if gene:
                    found[alias] = None if alias in found else at
        for at, name in enumerate(self.names):
            found[name] = at
        return found

    @cached_property
    def _positions(self) -> dict[str, Mapping[str, np.ndarray]]:
        return {}

    def positions(self, column: str) -> Mapping[str, np.ndarray]:
        """Each text of a column to the rows that have it; made once."""
        if column not in self._positions:
            self._positions[column] = self.data.groupby(self.data[column].astype(str), sort=False).indices
        return self._positions[column]

    def row(self, name: str) -> int:
        """The row of that name. Raises `KeyError` that says why there is none, or none alone."""
        found = self._by_name.get(name, -1)
        if found is None:
            raise KeyError(f"several rows of {self.id} are named {name!r}")
        if found < 0:
            raise KeyError(f"{self.id} has no row {name!r}")
        return found


class Tables(Mapping[str, Table]):
    """Result tables by id; finds the cell that a reference names."""

    def __init__(self, tables: Mapping[str, Table | pd.DataFrame]) -> None:
        self._tables = {
            id: table if isinstance(table, Table) else Table.inferred(id, table)
            for id, table in tables.items()
        }

    def __getitem__(self, id: str) -> Table:
        return self._tables[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def frame(self, id: str) -> pd.DataFrame | None:
        """The table's data, None where there is no such table."""
        found = self._tables.get(id)
        return None if found is None else found.data

    def aggregate(self) -> Tables:
        """Without the tables of single samples: what a planner may see."""
        return Tables({id: table for id, table in self._tables.items() if not table.of_samples})

    def resolve(self, text: str) -> Ref:
        """The canonical reference of `table:row:column`. Raises `DataError` that says what is not there."""
        table_name, _, rest = text.strip().partition(":")
        row_name, colon, column = rest.rpartition(":")
        if not colon:
            raise DataError(f"{text!r} is no reference: needed is table:row:column")
        id, _, contrast = table_name.partition(".")
        if id not in self._tables:
            raise DataError(
                f"{text!r}: there is no table {id!r}; there are {', '.join(self._tables) or 'none'}"
            )
        table = self._tables[id]
        if column not in table.data.columns:
            raise DataError(f"{text!r}: {id} has no column {column!r}")
        try:
            at = table.row(_with_contrast(table, row_name, contrast))
        except KeyError as error:
            raise DataError(f"{text!r}: {error.args[0]}") from None
        return Ref(table=id, row=table.names[at], column=column)

    def value(self, ref: Ref) -> Any:
        """The cell; `resolve` has made sure that there is one."""
        table = self._tables[ref.table]
        return table.data[ref.column].iloc[table.row(ref.row)]


class Frames(dict[str, pd.DataFrame]):
    """The data of result tables by id."""

    def __init__(self, tables: Tables) -> None:
        super().__init__({id: table.data for id, table in tables.items()})
        self._tables = tables

    def entities(self) -> list[str]:
        """Every protein, gene, set, module or population that a table names, each once, as they come."""
        columns = [
            table.data[name]
            for table in self._tables.values()
            for name, role in table.roles.items()
            if role == "entity"
        ]
        named = (str(value) for values in columns for value in values.dropna().unique())
        return list(dict.fromkeys(name for name in named if name))


def _with_contrast(table: Table, row: str, contrast: str) -> str:
    if not contrast:
        return row
    if "contrast" not in table.keys:
        raise KeyError(f"{table.id} has no contrasts, so {table.id}.{contrast} names nothing")
    parts = row.split("|") if row else []
    parts.insert(table.keys.index("contrast"), contrast)
    return "|".join(parts)
