"""Text and Parquet tables as the programs write them, whole lines or none."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path

import pandas as pd

from proteus_omics.errors import DataError, FormatError

EXCEL_CELL = 32_767
"""The longest text that a cell of Excel holds; longer ones were cut."""

COMMA = re.compile(r"[\t;]\"?-?\d+,\d+\"?(?=[\t;\r\n]|$)")
"""A number with a decimal comma, as a field of its own."""


def load_table(path: Path) -> pd.DataFrame:
    """A table with all columns as they are: Parquet, or text with tabs, commas or semicolons, gzip or plain.

    Raises `DataError` where there is no file or nothing in it, `FormatError` where it is no table.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the file of the table")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.name.endswith(".parquet"):
        try:
            return pd.read_parquet(path)
        except ValueError as error:  # pyarrow's ArrowInvalid is one
            raise FormatError(f"{path} is no Parquet table: {error}") from error
    text = _text(path)
    if not text.strip():
        raise DataError(f"{path} is empty")
    first = text.partition("\n")[0]
    separator = max("\t,;", key=first.count)
    if first.count(separator) == 0:
        raise FormatError(f"{path} has one column: a table with tabs, commas or semicolons is needed")
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, low_memory=False)
        if separator != "," and COMMA.search(text):
            other = pd.read_csv(io.StringIO(text), sep=separator, low_memory=False, decimal=",")
            table = max(table, other, key=lambda one: one.select_dtypes("number").shape[1])
        return table
    except (pd.errors.ParserError, ValueError) as error:
        raise FormatError(f"{path} is no table: {error}") from error


def numbers(table: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """The columns as numbers, and the rows (from 1) with a text that is none; it counts as missing.

    `Filtered` is Spectronaut's word for missing.
    """
    found = table.apply(pd.to_numeric, errors="coerce")
    texts = (table.notna() & found.isna() & (table != "Filtered")).any(axis=1)
    return found, [int(at) + 1 for at in texts.to_numpy().nonzero()[0]]


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        if zipfile.is_zipfile(io.BytesIO(raw)):
            raise FormatError(f"{path} is an Excel or ZIP file: save the sheet as tab-separated text")
        return raw.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut short or damaged: {error}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8 text: {error}") from error
