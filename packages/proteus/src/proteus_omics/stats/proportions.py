"""How samples are made up of populations: counts, and proportions on a scale where a t-test is at home."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from proteus_omics.errors import DataError


def count_cells(populations: ArrayLike, samples: ArrayLike) -> pd.DataFrame:
    """Samples x populations, int: how many cells; 0 where a sample has none. Both sorted by name."""
    names = [pd.Series(np.asarray(values)).astype(str) for values in (samples, populations)]
    counts = pd.crosstab(*names)
    counts.index.name = counts.columns.name = None
    return counts


def transform_proportions(
    counts: pd.DataFrame, method: Literal["arcsine", "logit"] = "arcsine"
) -> pd.DataFrame:
    """Each sample's proportions (rows of `counts`) as arcsin(sqrt(p)) or ln(p/(1-p)).

    With logit half a cell is added to both sides, so that 0 and 1 are finite. Raises `DataError` for negative
    counts, a sample without cells or an unknown method.
    """
    total = counts.sum(axis=1).to_numpy(dtype=np.float64)[:, None]
    cells = counts.to_numpy(dtype=np.float64)
    if (cells < 0).any() or (total == 0).any():
        raise DataError("counts of cells have to be at least 0, with one cell or more in each sample")
    if method == "arcsine":
        values = np.arcsin(np.sqrt(cells / total))
    elif method == "logit":
        values = np.log((cells + 0.5) / (total - cells + 0.5))
    else:
        raise DataError(f"there is no transformation {method!r}; there are arcsine and logit")
    return pd.DataFrame(values, counts.index, counts.columns)
