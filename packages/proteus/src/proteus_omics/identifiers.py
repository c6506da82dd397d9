"""Columns that name samples or people: their entries leave the machine in no result (section 2.10)."""

from __future__ import annotations

import pandas as pd

from proteus_omics.design import Design

MOST_LEVELS = 12


def by_sample(obs: pd.DataFrame, name: str, sample: str | None) -> pd.Series:
    """A column a row a sample where it is the same for all cells of one, else as it is; `sample` names them.

    Of thousands of cells an identifier of their samples has few entries, each of them many times.
    """
    if sample is None or sample not in obs or name == sample:
        return obs[name]
    rows = obs[[sample, name]].drop_duplicates()
    return obs[name] if rows[sample].duplicated().any() else rows[name]


def names_each(values: pd.Series) -> bool:
    """Whether a column of texts has about as many entries as rows, so that each says who it is of."""
    known, distinct = int(values.notna().sum()), values.nunique()
    return bool(distinct > max(MOST_LEVELS, 0.5 * known) or distinct == known)


def names_samples(obs: pd.DataFrame, name: str, design: Design) -> bool:
    """Whether groups of this column would be single samples, or single subjects."""
    return name in (design.sample, design.subject) or (
        design.sample is not None and names_each(by_sample(obs, name, design.sample))
    )
