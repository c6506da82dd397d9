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


def rows_of(found: Proteins) -> tuple[pd.DataFrame, list[str]]:
    """The `var` of AnnData, and what about the names is to be warned of.

    Names are the first accession of a group, the whole group where two groups begin alike and it is no longer
    than 60 characters, else numbered.
    """
    ids = found.ids.astype(str)
    genes = _text(found.genes, len(ids))
    warnings = _excel_damage(ids, genes)
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
        shown = ", ".join(map(str, dates[:5]))
        warnings.append(
            f"{len(dates)} gene names are dates, as Excel makes them of MARCH1 and the like (rows {shown})"
        )
    if cut:
        shown = ", ".join(map(str, cut[:5]))
        warnings.append(f"{len(cut)} protein lists end at Excel's longest cell and are cut (rows {shown})")
    return warnings
