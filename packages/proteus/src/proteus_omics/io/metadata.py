"""The sample sheet, and the match of its rows with the table's samples."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from proteus_omics.errors import MetadataError
from proteus_omics.io.tables import load_table

ID_COLUMNS = ("sample_id", "sample", "sample_name", "run", "file_name", "raw_file")
MOST_TEXTS = 0.2
"""Of a column's entries: with more that are no numbers, it is a column of texts."""


def load_sheet(metadata: str | Path | pd.DataFrame, sample_id: str | None) -> pd.DataFrame:
    """The sheet, indexed by its sample ids. Raises `MetadataError` for ids that are missing or repeat."""
    sheet = metadata.copy() if isinstance(metadata, pd.DataFrame) else load_table(Path(metadata))
    column = sample_id or next((name for name in ID_COLUMNS if name in sheet.columns), str(sheet.columns[0]))
    if column not in sheet.columns:
        raise MetadataError(
            f"the sample sheet has no column {column!r}; it has {', '.join(map(str, sheet.columns))}"
        )
    ids = sheet[column].astype(str).str.strip()
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        raise MetadataError(
            f"the sample sheet names {len(twice)} samples more than once: {_shown(list(twice))}"
        )
    sheet.index = pd.Index(ids)
    return sheet


def unread(sheet: pd.DataFrame) -> list[str]:
    """A note for each column that holds numbers but for few entries, and so is not used as numbers."""
    notes = []
    for name in sheet.columns:
        known = sheet[name].dropna()
        texts = pd.to_numeric(known, errors="coerce").isna()
        if 0 < texts.mean() <= MOST_TEXTS:
            at = sheet[name].notna().to_numpy().nonzero()[0][texts.to_numpy()]
            notes.append(
                f"the column {name} of the sample sheet holds numbers but for {len(at)} entries, so it is "
                f"not used as numbers (rows {', '.join(str(row + 1) for row in at[:5])})"
            )
    return notes


def matched(sheet: pd.DataFrame, samples: Sequence[str]) -> pd.DataFrame:
    """The sheet's rows in the order of the table's samples.

    Raises `MetadataError` with both lists and the nearest names where they differ.
    """
    names = list(map(str, samples))
    unknown = [name for name in names if name not in sheet.index]
    unused = [name for name in sheet.index if name not in set(names)]
    if unknown or unused:
        alike = {name.lower(): name for name in unused or list(sheet.index)}
        nearest = {name: difflib.get_close_matches(name.lower(), alike, 1) for name in unknown[:5]}
        hints = ", ".join(f"{name} ~ {alike[found[0]]}" for name, found in nearest.items() if found)
        raise MetadataError(
            f"the table and the sample sheet have different samples. Only in the table: {_shown(unknown)}. "
            f"Only in the sheet: {_shown(unused)}." + (f" Nearest names: {hints}." if hints else "")
        )
    return sheet.loc[names]


def _shown(names: Sequence[str], n: int = 5) -> str:
    if not names:
        return "none"
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
