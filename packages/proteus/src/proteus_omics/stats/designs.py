"""From the sample sheet to the design matrix: terms for the condition and for what is in its way."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from proteus_omics.design import Design
from proteus_omics.errors import DesignError


def design_matrix(obs: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Samples x terms, float64: an indicator for each level of the condition (an intercept without one).

    Then batch, categorical covariates and subject as indicators of all levels but the first, `sex=M`, and
    numeric covariates, centred. The subject takes part only where one was seen at two levels, which is a
    paired design. Samples with a missing value in any of these columns are left out: the index says which
    samples the model is of. Raises `DesignError` for a column that is not there or where none is left.
    """
    nuisance = [name for name in (design.batch, *design.covariates) if name is not None]
    named = [name for name in (design.condition, *nuisance, design.subject) if name is not None]
    absent = [name for name in named if name not in obs.columns]
    if absent:
        raise DesignError(
            f"the sample sheet has no column {', '.join(absent)}; it has {', '.join(map(str, obs.columns))}"
        )
    obs = obs.loc[obs[named].notna().all(axis=1)]
    if obs.empty:
        raise DesignError(f"no sample has a value in all of the columns {', '.join(named)}")
    parts = []
    if design.condition is None:
        parts.append(pd.DataFrame({"intercept": 1.0}, index=obs.index))
    else:
        parts.append(_indicators(obs[design.condition], ""))
    parts += [_term(obs[name]) for name in nuisance]
    if is_paired(obs, design):
        parts.append(_indicators(obs[design.subject], f"{design.subject}=").iloc[:, 1:])
    return pd.concat(parts, axis=1)


def level_contrasts(levels: Iterable[str], reference: str) -> dict[str, dict[str, float]]:
    """`{"B_vs_A": {"B": 1, "A": -1}}`: each level against the reference, in the order given."""
    levels = [str(level) for level in levels]
    if reference not in levels:
        raise DesignError(f"the reference {reference!r} is not one of the levels {', '.join(levels)}")
    return {
        f"{level}_vs_{reference}": {level: 1.0, reference: -1.0} for level in levels if level != reference
    }


def _term(column: pd.Series) -> pd.DataFrame:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.astype(np.float64)
        return (values - values.mean()).to_frame(str(column.name))
    return _indicators(column, f"{column.name}=").iloc[:, 1:]


def _indicators(column: pd.Series, prefix: str) -> pd.DataFrame:
    text = column.astype(str)
    return pd.DataFrame(
        {f"{prefix}{level}": (text == level).astype(np.float64) for level in sorted(set(text))}
    )


def is_paired(obs: pd.DataFrame, design: Design) -> bool:
    """Whether a subject was seen at two levels of the condition."""
    if design.subject is None or design.condition is None:
        return False
    levels = obs.groupby(design.subject, observed=True)[design.condition].nunique()
    return bool((levels >= 2).any())
