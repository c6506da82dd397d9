"""The form for human reviewers, and how far they agree with a judge (section 2.9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from proteus_omics.errors import DataError
from proteus_omics.models import Hypothesis

METRICS = ("reliability", "coherence", "literature", "novelty", "evaluability")
LOWEST, HIGHEST = 1, 5
RESAMPLINGS = 2000


def review_form(hypotheses: Sequence[Hypothesis]) -> pd.DataFrame:
    """A row a hypothesis: `hypothesis, statement, caveats`, five empty scores (1 to 5) and a `comment`."""
    rows = [
        {"hypothesis": one.id, "statement": one.statement, "caveats": " ".join(one.caveats)}
        for one in hypotheses
    ]
    table = pd.DataFrame(rows, columns=["hypothesis", "statement", "caveats"])
    return table.assign(**dict.fromkeys((*METRICS, "comment"), ""))


def agreement(
    review: pd.DataFrame | str | Path, judge: pd.DataFrame | str | Path, *, seed: int = 0
) -> pd.DataFrame:
    """Agreement of two scorers on the hypotheses that both scored.

    `review` and `judge` are tables (or CSV files) with `hypothesis` and the five metrics, 1 to 5. Returns a
    row a metric: `metric, n, kappa` (quadratic weights), `spearman, ci_low, ci_high` (95 %, bootstrap over
    hypotheses). NaN where fewer than three were scored by both or one of them gave one score only. Raises
    `DataError` for a missing column or a score outside 1 to 5.
    """
    both = _read(review).merge(_read(judge), on="hypothesis", suffixes=("_a", "_b"), validate="1:1")
    rng = np.random.default_rng(seed)
    rows = []
    for metric in METRICS:
        scored = both[[f"{metric}_a", f"{metric}_b"]].dropna().to_numpy(dtype=np.float64)
        low, high = _interval(scored, rng)
        rows.append(
            {
                "metric": metric,
                "n": len(scored),
                "kappa": weighted_kappa(scored[:, 0], scored[:, 1]),
                "spearman": float(_spearman(scored)),
                "ci_low": low,
                "ci_high": high,
            }
        )
    return pd.DataFrame(rows)


def weighted_kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights: 1 - sum (a - b)^2 / the same over all pairs; NaN of fewer than 3.

    A median of passes may lie between two integers, so scores are not counted in classes: for integers this
    is the usual kappa.
    """
    if len(a) < 3:
        return float("nan")
    expected = float(np.mean((a[:, None] - b[None, :]) ** 2))
    return float("nan") if expected == 0 else 1 - float(np.mean((a - b) ** 2)) / expected


def _spearman(scored: np.ndarray) -> np.ndarray:
    """Of scores (..., n, 2): the correlation of their ranks, NaN where one scorer gave one score only."""
    if scored.shape[-2] < 3:
        return np.full(scored.shape[:-2], np.nan)
    ranks = rankdata(scored, axis=-2)
    ranks -= ranks.mean(axis=-2, keepdims=True)
    size = np.sqrt((ranks**2).sum(axis=-2)).prod(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(ranks.prod(axis=-1).sum(axis=-1) / size)


def _interval(scored: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    if np.isnan(_spearman(scored)):
        return float("nan"), float("nan")
    drawn = _spearman(scored[rng.integers(0, len(scored), (RESAMPLINGS, len(scored)))])
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def _read(source: pd.DataFrame | str | Path) -> pd.DataFrame:
    table = source if isinstance(source, pd.DataFrame) else pd.read_csv(source)
    missing = [name for name in ("hypothesis", *METRICS) if name not in table.columns]
    if missing:
        raise DataError(f"a table of scores lacks the columns {', '.join(missing)}")
    scores = table[list(METRICS)].apply(pd.to_numeric, errors="coerce")
    wrong = (scores < LOWEST) | (scores > HIGHEST)
    if wrong.any(axis=None):
        where = table.loc[wrong.any(axis=1), "hypothesis"].iloc[0]
        raise DataError(f"scores are {LOWEST} to {HIGHEST}; that of {where} is not")
    return pd.concat([table["hypothesis"].astype(str), scores], axis=1)
