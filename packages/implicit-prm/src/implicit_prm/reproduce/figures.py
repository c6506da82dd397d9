"""The figures of the report. Where a claim of the paper does not hold, the title says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from implicit_prm.reproduce.chain_figures import (
    best_of_n,
    heat_map,
    losses,
    over_optimization,
    roc_curves,
    scaling,
)
from implicit_prm.reproduce.cost_figures import cost, real_responses
from implicit_prm.reproduce.prm_study import MAIN
from tenfold import Estimate, Figure, Records
from tenfold.figures import style
from tenfold.trials import by_arm

if TYPE_CHECKING:
    from implicit_prm.reproduce.experiment import ExperimentConfig


def figures(
    config: ExperimentConfig, metrics: Mapping[str, Estimate], records: Records, folder: Path
) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    found = records.results()
    chains, gsm8k = by_arm(found, "modchain"), by_arm(found, "gsm8k")
    with style():
        drawn = [
            heat_map(chains[MAIN], folder),
            roc_curves(chains, MAIN, metrics, folder),
            best_of_n(chains, MAIN, "best_of_n", "ModChain", metrics, folder),
            losses(chains, metrics, folder),
            *scaling(chains, metrics, folder),
            *over_optimization(chains[MAIN], metrics, folder),
        ]
        if gsm8k and config.gsm8k is not None:
            main = config.gsm8k.arms[0].name
            drawn += [
                best_of_n(gsm8k, main, "best_of_n_gsm8k", "GSM8K's calculations", metrics, folder, "gsm8k_"),
                heat_map(gsm8k[main], folder, "heat_map_gsm8k"),
            ]
        drawn += cost(by_arm(found, "shepherd"), chains, metrics, folder)
        drawn += real_responses(by_arm(found, "real"), metrics, folder)
    return drawn
