"""What a planner is told of a result: a few lines, four significant digits, never a sample (section 2.2)."""

from __future__ import annotations

import pandas as pd

ROWS = 10
DIGITS = 4


def rows(found: pd.DataFrame, columns: str, by: str | None = None, n: int = ROWS) -> str:
    """The first `n` rows by the column `by` (ascending), as text."""
    if by is not None:
        found = found.sort_values(by, kind="stable")
    shown = found.loc[:, columns.replace(",", " ").split()].head(n).copy()
    for name in shown.select_dtypes("number"):
        shown[name] = [f"{value:.{DIGITS}g}" for value in shown[name]]
    return shown.to_string(index=False) if len(shown) else "no rows"


def hits(found: pd.DataFrame, alpha: float = 0.05) -> str:
    """How many rows were tested, and how many have q below alpha."""
    tested = int(found["p_value"].notna().sum())
    return f"{tested} tested, {int((found['q_value'] < alpha).sum())} with q < {alpha:g}"
