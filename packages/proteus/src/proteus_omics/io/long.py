"""Long tables, a row a precursor or protein and run: DIA-NN's report and Spectronaut's."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from proteus_omics.errors import DataError
from proteus_omics.io.programs import plain
from proteus_omics.io.proteins import Proteins

LARGEST_Q = 0.01
# Program to its columns: run, protein group, genes, names and columns of quantities (best first), q-value.
LONG: Mapping[str, tuple[str, str, str, Mapping[str, str], str]] = {
    "diann": (
        "run", "protein group", "genes",
        {"MaxLFQ": "pg maxlfq", "Quantity": "pg quantity", "Normalised": "pg normalised"}, "pg q value",
    ),
    "spectronaut": (
        "r filename", "pg proteingroups", "pg genes", {"Quantity": "pg quantity", "iBAQ": "pg ibaq"},
        "pg qvalue",
    ),
}  # fmt: skip


def long_program(columns: pd.Index) -> str | None:
    """Whether it is a long table, and whose."""
    names = {plain(name) for name in columns}
    for program, (run, group, _, quantities, _) in LONG.items():
        if run in names and group in names and names & set(quantities.values()):
            return program
    return None


def read_long(table: pd.DataFrame, program: str, quantity: str = "auto") -> Proteins:
    """Proteins x runs of the rows whose protein q-value is at most 1 %.

    A protein's quantity is the same in all rows of a run; where a program writes several, the largest counts.
    `auto` is the best of the quantities that are there. Raises `DataError` for one that the program does not
    write or the report does not have, and if no row passes.
    """
    named = {plain(name): name for name in table.columns}
    run, group, genes, quantities, q = LONG[program]
    used = _quantity(quantities, named, program, quantity)
    removed = {}
    if q in named:
        passes = pd.to_numeric(table[named[q]], errors="coerce") <= LARGEST_Q
        removed[f"rows with protein q > {LARGEST_Q}"] = int((~passes).sum())
        table = table[passes]
    if not len(table):
        raise DataError(f"no row of the {program} report has a protein q-value of at most {LARGEST_Q}")
    values = pd.to_numeric(table[named[quantities[used]]], errors="coerce")
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
        quantity=used,
        removed=removed,
    )


def _quantity(quantities: Mapping[str, str], named: Mapping[str, str], program: str, wanted: str) -> str:
    there = [name for name, column in quantities.items() if column in named]
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        what = "report" if wanted in quantities else "program"
        raise DataError(
            f"this {program} {what} has no quantity {wanted!r}; the report has {', '.join(there)}"
        )
    return wanted
