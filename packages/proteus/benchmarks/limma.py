"""Moderated t-tests of tables with missing values, beside pylimma and beside R's limma.

    python benchmarks/limma.py [--repeats 5]

From matrix and design to t, p and B, all in one process, one thread, processor time, median of the repeats.
pylimma (GPL-3, not a dependency) takes part where it is installed. R's times are those of limma 3.54.1 (R
4.2.2) in the specification, from another machine of two cores. "ubi" is the interactome of DEP (1,601
proteins, 12 samples, 177 patterns of missing values) where $TENFOLD_DATA has it, else a simulation of that
size. "wide" has 10,000 proteins, 200 samples, 30 % missing and six terms: each protein has its own
pattern. Goals: ubi no slower than R and at least 200 times as fast as pylimma; wide at most half of R's time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from proteus_omics.stats import ModeratedFit, lm_fit

R_SECONDS = {"ubi": 0.2, "wide": 1.1}
UBI = Path(os.environ.get("TENFOLD_DATA", "")) / "proteus/golden/input_ubi_log2.csv.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(
        "| table | proteins x samples | ours (s) | R (s) | pylimma (s) | pylimma / ours | t apart, at most |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (y, x, contrast) in {"ubi": ubi(), "wide": wide()}.items():
        call = partial(ours, y, x, contrast)
        fit = call()
        seconds = median_cpu(call, options.repeats)
        cells = [name, f"{y.shape[1]:,} x {len(y)}", f"{seconds:.4f}", f"{R_SECONDS[name]}"]
        print(
            "| " + " | ".join(cells + beside(fit, y, x, contrast, seconds, options.repeats)) + " |",
            flush=True,
        )


def ubi() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    if UBI.is_file():
        y = pd.read_csv(UBI, index_col=0).T
        groups = [sample.split(".")[-1].split("_")[0] for sample in y.index]
    else:
        rng = np.random.default_rng(0)
        values = rng.normal(rng.uniform(22, 30, 1601), 0.4, (12, 1601))
        values[rng.random(values.shape) < 1 / (1 + np.exp(values - 23))] = np.nan
        y, groups = pd.DataFrame(values), list(np.repeat(["Ctrl", "Ubi1", "Ubi4", "Ubi6"], 3))
    x = pd.get_dummies(pd.Series(groups, index=y.index)).astype(float)
    return y, x, {"Ubi6": 1.0, "Ctrl": -1.0}


def wide() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    rng = np.random.default_rng(0)
    y = rng.normal(25, 1, (200, 10_000))
    y[rng.random(y.shape) < 0.3] = np.nan
    x = pd.DataFrame(np.column_stack([np.ones(200), rng.normal(size=(200, 5))])).add_prefix("x")
    return pd.DataFrame(y), x, {"x1": 1.0}


def ours(y: pd.DataFrame, x: pd.DataFrame, contrast: dict[str, float]) -> ModeratedFit:
    fit = lm_fit(y, x).contrasts({"c": contrast}).ebayes(legacy=True)
    _ = fit.p_value, fit.b  # computed when first asked for
    return fit


def beside(
    fit: ModeratedFit,
    y: pd.DataFrame,
    x: pd.DataFrame,
    contrast: dict[str, float],
    seconds: float,
    repeats: int,
) -> list[str]:
    """pylimma's time, the ratio, and by how much its t are apart, where it is installed."""
    try:
        import pylimma
    except ImportError:
        return ["not installed", "", ""]
    weights = np.array([[contrast.get(term, 0.0)] for term in x])
    found = {}

    def peer() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            linear = pylimma.lm_fit(y.T.to_numpy(), x.to_numpy())
            found.update(pylimma.e_bayes(pylimma.contrasts_fit(linear, weights), legacy=True))

    took = median_cpu(peer, min(repeats, 3))
    apart = np.nanmax(np.abs(np.asarray(found["t"])[:, 0] - fit.t[:, 0]))
    return [f"{took:.1f}", f"{took / seconds:,.0f}", f"{apart:.0e}"]


def median_cpu(call: Callable[[], object], repeats: int) -> float:
    """Processor time of a call, the median of the repeats."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
