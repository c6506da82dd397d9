"""Cells x markers: a CSV with columns of the sample sheet and of markers, or FCS files."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from proteus_omics.errors import DataError, FormatError, MissingExtraError
from proteus_omics.io.tables import load_table

CLASSES = ("type", "state", "none")


def split_cells(table: pd.DataFrame, panel: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Markers (numbers) and the sheet (texts and what the panel does not name) of a table of cells.

    Raises `FormatError` if there is no marker, or one that holds texts.
    """
    if panel is not None:
        markers = [name for name in panel["antigen"].astype(str) if name in table.columns]
    else:
        markers = [name for name in table.columns if pd.api.types.is_float_dtype(table[name])]
    if not markers:
        raise FormatError("no column of the table is a marker: give a panel with a column antigen")
    texts = [name for name in markers if not pd.api.types.is_numeric_dtype(table[name])]
    if texts:
        raise FormatError(f"markers of the panel are texts in the table: {', '.join(texts[:5])}")
    return table[markers].astype(np.float64), table.drop(columns=markers)


def load_panel(path: Path | None) -> pd.DataFrame | None:
    """The panel: `antigen` and `marker_class` of each marker. Raises `DataError` for other classes."""
    if path is None:
        return None
    panel = load_table(path)
    missing = {"antigen", "marker_class"} - set(panel.columns)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}")
    wrong = sorted(set(panel["marker_class"].astype(str)) - set(CLASSES))
    if wrong:
        raise DataError(f"{path}: marker_class is one of {', '.join(CLASSES)}, and not {', '.join(wrong)}")
    return panel


def classes(markers: pd.Index, panel: pd.DataFrame | None) -> list[str]:
    """Class of each marker: the panel's, else `state` of phospho-proteins (p and a capital), else `type`."""
    known: Mapping[str, str] = (
        {} if panel is None else dict(zip(panel["antigen"].astype(str), panel["marker_class"], strict=True))
    )
    return [
        known.get(name, "state" if len(name) > 2 and name[0] == "p" and name[1].isupper() else "type")
        for name in map(str, markers)
    ]


def read_fcs(path: Path) -> pd.DataFrame:
    """Events x markers of an FCS file, with the file's name as `sample_id`.

    Raises `DataError` where there is no file, `FormatError` where it is no FCS file.
    """
    try:
        import flowio
    except ImportError as error:
        raise MissingExtraError(
            "reading FCS files needs an optional extra: pip install 'proteus-omics[fcs]'"
        ) from error
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        data = flowio.FlowData(str(path))
    except (ValueError, KeyError, EOFError, struct.error, flowio.exceptions.FlowIOException) as error:
        raise FormatError(f"{path} is no FCS file, or a damaged one: {error}") from error
    names = [
        (channel.get("pns") or channel.get("PnS") or channel.get("pnn") or channel.get("PnN") or number)
        for number, channel in sorted(data.channels.items(), key=lambda item: int(item[0]))
    ]
    events = np.reshape(np.asarray(data.events, dtype=np.float64), (-1, data.channel_count))
    return pd.DataFrame(events, columns=[str(name) for name in names]).assign(sample_id=path.stem)
