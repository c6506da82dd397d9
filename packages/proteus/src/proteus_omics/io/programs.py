"""Protein tables of MaxQuant, DIA-NN, FragPipe, Spectronaut and Proteome Discoverer: rules of their columns.

Names are compared without case, blanks and punctuation, so that tables that went through R are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from proteus_omics.errors import DataError, FormatError
from proteus_omics.io.proteins import Proteins
from proteus_omics.io.tables import numbers


def plain(name: object) -> str:
    """A column's name as R leaves it comparable: small letters and digits."""
    return re.sub(r"[^a-z0-9]+", " ", str(name).lower()).strip()


@dataclass(frozen=True)
class Program:
    """How a program writes a wide table of proteins; patterns are of `plain` names."""

    name: str
    ids: tuple[str, ...]
    marks: tuple[str, ...]
    """Columns that only this program writes, one of which is there."""
    quantities: Mapping[str, str]
    """Name to a pattern of its columns, with the sample's name in `(?P<sample>)`, best first."""
    genes: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    peptides: tuple[str, ...] = ()
    unwanted: Mapping[str, str] = field(default_factory=dict)
    """Column whose `+` marks a row to take out, to why."""


PROGRAMS = (
    Program(
        "maxquant",
        ids=("majority protein ids", "protein ids"),
        marks=("only identified by site", "reverse", "potential contaminant", "contaminant"),
        quantities={
            "LFQ": r"lfq intensity (?P<sample>.+)",
            "iBAQ": r"ibaq (?!peptides)(?P<sample>.+)",
            "Intensity": r"(?<!lfq )intensity (?P<sample>.+)",
        },
        genes=("gene names", "gene name"),
        descriptions=("protein names", "fasta headers"),
        peptides=("razor unique peptides", "peptides"),
        unwanted={
            "reverse": "decoys",
            "potential contaminant": "contaminants",
            "contaminant": "contaminants",
            "only identified by site": "only identified by site",
        },
    ),
    Program(
        "fragpipe",
        ids=("protein id",),
        marks=("entry name", "indistinguishable proteins", "protein probability"),
        quantities={
            "MaxLFQ": r"(?P<sample>.+) maxlfq intensity",
            "Intensity": r"(?P<sample>.+?)(?<!unique)(?<!total)(?<!razor)(?<!maxlfq) intensity",
        },
        genes=("gene", "gene names"),
        descriptions=("description",),
        peptides=("combined total peptides", "total peptides"),
    ),
    Program(
        "proteome_discoverer",
        ids=("accession",),
        marks=(
            "coverage in percent",
            "master",
            "protein fdr confidence combined",
            "number of peptides",
            "coverage",
        ),
        quantities={
            "Normalized": r"abundances? normalized (?P<sample>.+)",
            "Abundance": r"abundances? (?!ratio|scaled|grouped|normalized)(?P<sample>.+)",
        },
        genes=("gene symbol",),
        descriptions=("description",),
        peptides=("number of peptides", "peptides"),
        unwanted={"contaminant": "contaminants"},
    ),
    Program(
        "spectronaut",
        ids=("pg proteingroups", "pg proteinaccessions", "pg uniprotids"),
        marks=("pg proteingroups", "pg proteinaccessions", "pg uniprotids"),
        quantities={"Quantity": r"(?:\d+ )?(?P<sample>.+) pg quantity"},
        genes=("pg genes",),
        descriptions=("pg proteindescriptions", "pg proteinnames"),
    ),
    Program(
        "diann",
        ids=("protein group",),
        marks=("first protein description", "protein names", "protein ids"),
        quantities={"MaxLFQ": r"(?P<sample>.+)"},
        genes=("genes",),
        descriptions=("first protein description", "protein names"),
        peptides=("n sequences",),
    ),
)
_BESIDE = ("n sequences", "n proteotypic sequences", "protein ids", "protein names")
PEPTIDES = (
    "precursor id",
    "modified sequence",
    "modified peptide",
    "stripped sequence",
    "ion",
    "peptide sequence",
)
INSTEAD = {
    "fragpipe": "combined_protein.tsv",
    "diann": "report.pg_matrix.tsv",
    "maxquant": "proteinGroups.txt",
    "spectronaut": "a report with PG.Quantity",
}


def recognise(columns: pd.Index) -> Program | None:
    """The program that writes such columns."""
    names = {plain(name) for name in columns}
    for program in PROGRAMS:
        if names & set(program.ids) and names & set(program.marks):
            return program
    return None


def by_name(name: str) -> Program:
    """The program of that name. Raises `DataError` with those there are."""
    for program in PROGRAMS:
        if program.name == name:
            return program
    raise DataError(f"there is no format {name!r}; there are {', '.join(one.name for one in PROGRAMS)}")


def refuse_peptides(table: pd.DataFrame, long: bool) -> None:
    """Raise `FormatError` for a table of peptides, ions or precursors, naming the file to give."""
    names = {plain(name) for name in table.columns}
    found = sorted(names & set(PEPTIDES)) if not long else []
    if found:
        files = ", ".join(f"{file} ({program})" for program, file in INSTEAD.items())
        raise FormatError(
            f"the table has the column {found[0]!r}: it is of peptides, ions or precursors. Give the table "
            f"of proteins: {files}"
        )


def read_wide(table: pd.DataFrame, program: Program, quantity: str, keep_contaminants: bool) -> Proteins:
    """Values and rows of a wide table. Raises `DataError` for a quantity that it does not have."""
    named = {plain(name): name for name in table.columns}
    columns, used = _quantity(table.columns, program, quantity)
    found, unread = numbers(pd.DataFrame({sample: table[name] for sample, name in columns.items()}))
    removed: dict[str, int] = {}
    keep = np.ones(len(table), dtype=bool)
    for column, why in program.unwanted.items():
        if column in named and not keep_contaminants:
            marked = table[named[column]].astype(str).str.strip().isin(("+", "True", "true")).to_numpy()
            removed[why] = removed.get(why, 0) + int((keep & marked).sum())
            keep &= ~marked

    def first(wanted: tuple[str, ...]) -> pd.Series | None:
        name = next((named[one] for one in wanted if one in named), None)
        return None if name is None else table.loc[keep, name].reset_index(drop=True)

    ids = first(program.ids)
    if ids is None:
        raise FormatError(f"a table of {program.name} has one of the columns {', '.join(program.ids)}")
    return Proteins(
        values=found.loc[keep].reset_index(drop=True),
        ids=ids,
        genes=first(program.genes),
        descriptions=first(program.descriptions),
        n_peptides=first(program.peptides),
        quantity=used,
        removed=removed,
        unread=unread,
    )


def _quantity(columns: pd.Index, program: Program, quantity: str) -> tuple[dict[str, str], str]:
    """Sample names to columns of the wanted quantity, of the first that is there for `auto`."""
    wanted = list(program.quantities) if quantity == "auto" else [quantity]
    taken = {*program.ids, *program.genes, *program.descriptions, *program.peptides, *_BESIDE}
    for name in wanted:
        if name not in program.quantities:
            raise DataError(
                f"{program.name} has no quantity {name!r}; there are {', '.join(program.quantities)}"
            )
        pattern = re.compile(program.quantities[name])
        found = {
            _sample(str(column), match): str(column)
            for column in columns
            if plain(column) not in taken and (match := pattern.fullmatch(plain(column)))
        }
        if found:
            return found, name
    raise DataError(f"the table has no column of {' or '.join(wanted)} by which {program.name} names samples")


def _sample(column: str, match: re.Match[str]) -> str:
    """The sample's own name: that part of the column, as it is written, that the pattern's group took."""
    if match["sample"] == match.string:
        return column
    prefix, suffix = match.start("sample"), len(match.string) - match.end("sample")
    words_before = len(match.string[:prefix].split())
    words_after = len(match.string[match.end("sample") :].split()) if suffix else 0
    parts = re.split(r"([^A-Za-z0-9]+)", column.strip())
    words = [at for at, part in enumerate(parts) if re.search(r"[A-Za-z0-9]", part)]
    chosen = parts[words[words_before] : words[len(words) - words_after - 1] + 1]
    return "".join(chosen)
