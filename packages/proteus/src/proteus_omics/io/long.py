"""Long tables, a row a precursor or protein and run: DIA-NN's report and Spectronaut's."""

from __future__ import annotations

import pandas as pd

from proteus_omics.errors import DataError
from proteus_omics.io.programs import plain
from proteus_omics.io.proteins import Proteins

LARGEST_Q = 0.01
# Program to its columns: run, protein group, genes, quantities (best first), q-value.
LONG = {
    "diann": ("run", "protein group", "genes", ("pg maxlfq", "pg quantity", "pg normalised"), "pg q value"),
    "spectronaut": (
        "r filename", "pg proteingroups", "pg genes", ("pg quantity", "pg ibaq"), "pg qvalue",
    ),
}  # fmt: skip


def long_program(columns: pd.Index) -> str | None:
    """Whether it is a long table, and whose."""
    names = {plain(name) for name in columns}
    for program, (run, group, _, quantities, _) in LONG.items():
        if run in names and group in names and names & set(quantities):
            return program
    return None


def read_long(table: pd.DataFrame, program: str) -> Proteins:
    """Proteins x runs of the rows whose protein q-value is at most 1 %.

    A protein's quantity is the same in all rows of a run; where a program writes several, the largest counts.
    Raises `DataError` if no row passes.
    """
    named = {plain(name): name for name in table.columns}
    run, group, genes, quantities, q = LONG[program]
    quantity = next(name for name in quantities if name in named)
    removed = {}
    if q in named:
        passes = pd.to_numeric(table[named[q]], errors="coerce") <= LARGEST_Q
        removed[f"rows with protein q > {LARGEST_Q}"] = int((~passes).sum())
        table = table[passes]
    if not len(table):
        raise DataError(f"no row of the {program} report has a protein q-value of at most {LARGEST_Q}")
    values = pd.to_numeric(table[named[quantity]], errors="coerce")
    wide = (
        table.assign(_value=values)
        .pivot_table(index=named[group], columns=named[run], values="_value", aggfunc="max", sort=True)
        .sort_index(axis=0)
    )
    symbols = (
        table.drop_duplicates(named[group]).set_index(named[group])[named[genes]].reindex(wide.index)
        if genes in named
        else None
    )
    return Proteins(
        values=wide.reset_index(drop=True).rename(columns=str),
        ids=pd.Series(wide.index.astype(str)),
        genes=None if symbols is None else symbols.reset_index(drop=True),
        quantity={"pg maxlfq": "MaxLFQ"}.get(quantity, "Quantity"),
        removed=removed,
    )
