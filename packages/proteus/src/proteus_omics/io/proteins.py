"""What every reader makes of its file, before it becomes AnnData."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from proteus_omics.io.tables import EXCEL_CELL

LONGEST_NAME = 60
ACCESSION = re.compile(r"[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9](?:[A-Z][A-Z0-9]{2}[0-9]){1,2}")
EXCEL_DATE = re.compile(r"\d{1,2}-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)|\d{4}-\d\d-\d\d.*")
ORGANISM = re.compile(r"OS=([A-Z][a-z]+ [a-z]+)")
ENTRY = re.compile(r"[A-Z0-9]{1,11}_([A-Z0-9]{3,5})")


@dataclass
class Proteins:
    """Values, proteins x samples, and what is known of the rows."""

    values: pd.DataFrame
    ids: pd.Series
    genes: pd.Series | None = None
    descriptions: pd.Series | None = None
    n_peptides: pd.Series | None = None
    organism: pd.Series | None = None
    quantity: str = "values"
    removed: dict[str, int] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)
    """Rows of the file, from 1, with a text in place of a number."""
    unnamed: list[str] = field(default_factory=list)
    """Columns of numbers that the sample sheet does not name, and that are left out."""


def rows_of(found: Proteins) -> tuple[pd.DataFrame, list[str]]:
    """The `var` of AnnData, and what about the names is to be warned of.

    Names are the first accession of a group, the whole group where two groups begin alike and it is no longer
    than 60 characters, else numbered.
    """
    ids = found.ids.astype(str)
    genes = _text(found.genes, len(ids))
    warnings = [*_excel_damage(ids, genes), *_repeated(ids)]
    if found.unread:
        warnings.append(
            f"{len(found.unread)} rows have a text in place of a number, which counts as missing "
            f"(rows {_first(found.unread)})"
        )
    var = pd.DataFrame(
        {
            "protein_ids": ids.to_numpy(),
            "genes": genes,
            "gene": [text.partition(";")[0].strip() for text in genes],
            "description": [text[:200] for text in _text(found.descriptions, len(ids))],
            "n_peptides": (
                np.full(len(ids), np.nan)
                if found.n_peptides is None
                else pd.to_numeric(found.n_peptides, errors="coerce").to_numpy(dtype=np.float64)
            ),
            "organism": _organisms(found, ids),
        },
        index=_names(ids),
    )
    return var, warnings


def left_out(found: Proteins, named: bool) -> list[str]:
    """What is to be told of columns that the sheet does not name; their names are for the user alone."""
    if not found.unnamed:
        return []
    text = f"{len(found.unnamed)} columns of numbers are not in the sample sheet and are left out"
    return [f"{text}: {', '.join(found.unnamed[:5])}" if named else text]


def _names(ids: pd.Series) -> list[str]:
    first = [re.split(r"[;,\s]", text.strip())[0][:LONGEST_NAME] or "unnamed" for text in ids]
    many = {name for name, count in Counter(first).items() if count > 1}
    names = [
        whole if name in many and len(whole) <= LONGEST_NAME else name
        for name, whole in zip(first, ids.str.strip(), strict=True)
    ]
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}.{seen[name] - 1}")
    return result


def _text(values: pd.Series | None, n: int) -> list[str]:
    if values is None:
        return [""] * n
    return ["" if pd.isna(value) else str(value) for value in values]


def _organisms(found: Proteins, ids: pd.Series) -> list[str]:
    if found.organism is not None:
        return _text(found.organism, len(ids))
    result = []
    for id, description in zip(ids, _text(found.descriptions, len(ids)), strict=True):
        named = ORGANISM.search(description)
        entry = ENTRY.fullmatch(id.split(";")[0])
        result.append(named[1] if named else entry[1] if entry else "")
    return result


def _excel_damage(ids: pd.Series, genes: list[str]) -> list[str]:
    dates = [number for number, gene in enumerate(genes, start=1) if EXCEL_DATE.fullmatch(gene.strip())]
    cut = [number for number, text in enumerate(ids, start=1) if len(text) >= EXCEL_CELL - 10]
    warnings = []
    if dates:
        warnings.append(
            f"{len(dates)} gene names are dates, as Excel makes them of MARCH1 and the like "
            f"(rows {_first(dates)})"
        )
    if cut:
        warnings.append(
            f"{len(cut)} protein lists end at Excel's longest cell and are cut (rows {_first(cut)})"
        )
    return warnings


def _repeated(ids: pd.Series) -> list[str]:
    rows = [number for number, again in enumerate(ids.duplicated(), start=1) if again]
    if not rows:
        return []
    return [
        f"{len(rows)} rows have the identifier of an earlier one; they are kept and numbered, as NAME.1 "
        f"(rows {_first(rows)})"
    ]


def _first(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5]))
