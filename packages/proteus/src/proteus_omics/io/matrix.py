"""A plain matrix, proteins x samples or samples x proteins, as CPTAC and many papers give one."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from proteus_omics.errors import FormatError
from proteus_omics.io.programs import plain
from proteus_omics.io.proteins import ACCESSION, Proteins
from proteus_omics.io.tables import numbers

IDS = (
    "protein",
    "uniprot",
    "accession",
    "protein id",
    "protein ids",
    "proteins",
    "index",
    "id",
    "idx",
    "database id",
)
GENES = ("gene", "gene symbol", "gene name", "genes", "symbol", "geneid", "hugo symbol", "name")
ORGANISMS = ("species", "organism")
PEPTIDES = ("num peptides", "n peptides", "peptides", "number of peptides")


def read_matrix(table: pd.DataFrame, samples: Collection[str]) -> Proteins:
    """Values of the columns that are samples, or of all columns of numbers where no sample is known.

    A table with the samples in its first column is turned. Raises `FormatError` where no column or row is a
    sample, or nothing is a number.
    """
    known = set(map(str, samples))
    first = table.columns[0]
    if known and not known & set(map(str, table.columns)) and known & set(table[first].astype(str)):
        table = table.set_index(first).T.rename_axis("protein").reset_index()
        table.columns = table.columns.map(str)
    names = {plain(name): name for name in reversed(table.columns)}
    beside = {*IDS, *GENES, *ORGANISMS, *PEPTIDES, "description"}
    columns = [name for name in table.columns if str(name) in known]
    measured = [name for name in table.columns if plain(name) not in beside and _is_number(table[name])]
    if len(columns) < max(1, len(known)):
        columns = measured
    if not columns:
        raise FormatError(
            "the table has no column of numbers: proteins x samples, or samples x proteins, is needed"
        )

    def named(wanted: tuple[str, ...]) -> pd.Series | None:
        found = next((names[one] for one in wanted if one in names and names[one] not in columns), None)
        return None if found is None else table[found]

    rest = [name for name in table.columns if name not in columns]
    ids, genes = named(IDS), named(GENES)
    if ids is None:
        ids = genes if genes is not None else table[rest[0]] if rest else pd.Series(table.index.astype(str))
    if genes is None and not ids.astype(str).str.fullmatch(ACCESSION.pattern).mean() > 0.5:
        looks_like_entries = ids.astype(str).str.contains("_").mean() > 0.5
        genes = None if looks_like_entries else ids
    values, unread = numbers(table[columns])
    return Proteins(
        values=values.rename(columns=str),
        ids=ids,
        genes=genes,
        n_peptides=named(PEPTIDES),
        organism=named(ORGANISMS),
        unread=unread,
        unnamed=[str(name) for name in measured if name not in columns],
    )


def _is_number(values: pd.Series) -> bool:
    """A column of numbers, or of nothing: a sample without a value is told, not left out."""
    return bool(values.isna().all() or pd.to_numeric(values, errors="coerce").notna().any())
