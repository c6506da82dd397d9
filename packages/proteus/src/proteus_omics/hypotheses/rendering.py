"""From a draft's text with references to a statement with digits (section 2.7).

{{de:PIGR|cirrhosis_vs_healthy:log2fc|.2f}}     a cell, and how it is written
{{de.cirrhosis_vs_healthy:PIGR:log2fc|fold|.1f}}  through a named filter: fold, percent_change
{{count(de.cirrhosis_vs_healthy, q<0.05, up)}}  rows with q below a bound, of one direction or of both
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proteus_omics.errors import DataError
from proteus_omics.hypotheses.references import Tables
from proteus_omics.models import Ref

PLACE = re.compile(r"\{\{(.+?)\}\}")
FORMAT = re.compile(r"\.\d+[efg%]|,|d")
COUNT = re.compile(r"count\(\s*(.+?)\s*,\s*q\s*<\s*([\d.eE\-]+)\s*(?:,\s*(up|down)\s*)?\)")
DEFAULT_FORMAT = ".3g"


@dataclass(frozen=True)
class Rendered:
    """A statement, the cells that its digits come from, and what could not be filled."""

    text: str
    refs: tuple[Ref, ...]
    unresolved: tuple[str, ...] = ()


def fold(log2_ratio: float) -> float:
    """2^|x|: how many times more, or less."""
    return float(2 ** abs(log2_ratio))


def percent_change(log2_ratio: float) -> float:
    """100 (2^x - 1) of an increase, 100 (1 - 2^x) of a decrease: always positive."""
    return float(abs(100 * (2**log2_ratio - 1)))


FILTERS: Mapping[str, Callable[[float], float]] = {"fold": fold, "percent_change": percent_change}


def render(text: str, tables: Tables) -> Rendered:
    """Fill the references of a text. What does not resolve stays as it is, and is listed with the reason."""
    refs: list[Ref] = []
    unresolved: list[str] = []

    def fill(match: re.Match[str]) -> str:
        try:
            value, found = _evaluate(match[1].strip(), tables)
        except DataError as error:
            unresolved.append(str(error))
            return match[0]
        refs.extend(found)
        return value

    filled = PLACE.sub(fill, text)
    return Rendered(filled, tuple(dict.fromkeys(refs)), tuple(unresolved))


def count_rows(tables: Tables, table: str, bound: float, direction: str | None) -> int:
    """How many rows of `table` (or of `table.contrast`) have q below the bound, and which direction.

    Raises `DataError` for a table that is not there, or has no q.
    """
    id, _, contrast = table.partition(".")
    if id not in tables:
        raise DataError(f"there is no table {id!r} to count in")
    found = tables[id]
    data = found.data
    if contrast:
        if "contrast" not in data.columns or contrast not in set(data["contrast"].astype(str)):
            raise DataError(f"{id} has no contrast {contrast!r}")
        data = data[data["contrast"].astype(str) == contrast]
    columns = {role: name for name, role in found.roles.items()}
    if "q" not in columns:
        raise DataError(f"{id} has no q to count by")
    kept = data[columns["q"]] < bound
    if direction:
        estimate = data[columns["estimate"]]
        kept &= estimate > 0 if direction == "up" else estimate < 0
    return int(kept.sum())


def _evaluate(expression: str, tables: Tables) -> tuple[str, list[Ref]]:
    counted = COUNT.fullmatch(expression)
    if counted:
        return str(count_rows(tables, counted[1], float(counted[2]), counted[3])), []
    place, _, tail = expression.rpartition(":")
    column, *filters = (part.strip() for part in tail.split("|"))
    ref = tables.resolve(f"{place}:{column}")
    value = tables.value(ref)
    written = DEFAULT_FORMAT
    for name in filters:
        if name in FILTERS:
            value = FILTERS[name](float(value))
        elif FORMAT.fullmatch(name):
            written = name
        else:
            raise DataError(f"{expression!r}: there is no filter {name!r}; there are {', '.join(FILTERS)}")
    if isinstance(value, str):
        return value, [ref]
    if value is None or math.isnan(float(value)):
        raise DataError(f"{expression!r}: the cell is empty")
    return _written(float(value), written), [ref]


def _written(value: float, written: str) -> str:
    if written in ("d", ","):
        return f"{round(value):{written}}"
    return f"{value:{written}}"
