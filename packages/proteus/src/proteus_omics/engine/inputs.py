"""Whether the data of a repeated run are those that it began with: values, names, sheets, meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from proteus_omics.tools.matrices import about, dense

if TYPE_CHECKING:
    from anndata import AnnData

MEANING = {"scale": "log2", "modality": "bulk"}
"""What a record says of the values, and what it is where there is no record."""


def difference(kept: AnnData, given: AnnData) -> str:
    """In what the two differ, for people; empty where an analysis of either is one of the other."""
    if list(kept.obs_names) != list(given.obs_names) or list(kept.var_names) != list(given.var_names):
        return "names of samples or proteins"
    for name, otherwise in MEANING.items():
        before, now = (str(about(one).get(name, otherwise)) for one in (kept, given))
        if before != now:
            return f"{name} {now}, was {before}"
    columns = _different(kept.obs, given.obs) or _different(kept.var, given.var)
    if columns:
        return f"columns {', '.join(columns[:5])}"
    return "" if np.array_equal(dense(kept), dense(given), equal_nan=True) else "values"


def _different(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """Columns that only one of the sheets has, or that differ as texts: files change the types of texts."""
    a, b = a.rename(columns=str), b.rename(columns=str)
    names = list(dict.fromkeys([*a.columns, *b.columns]))
    return [name for name in names if name not in a or name not in b or _texts(a[name]) != _texts(b[name])]


def _texts(column: pd.Series) -> list[str | None]:
    return [str(value) if known else None for value, known in zip(column, column.notna(), strict=True)]
