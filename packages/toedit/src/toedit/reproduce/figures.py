"""The figures of the report. Where a claim of the paper does not hold, the title says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold import Estimate, Figure, Records
from tenfold.figures import style
from toedit.reproduce.model_figures import bucket_response, generations, mixing, training_effect
from toedit.reproduce.prior_figures import candidate_shares, edit_examples, histograms, perplexities
from toedit.reproduce.theory_figure import theory_curves

if TYPE_CHECKING:
    from toedit.reproduce.experiment import ExperimentConfig

Metrics = Mapping[str, Estimate]


def figures(config: ExperimentConfig, metrics: Metrics, records: Records, folder: Path) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    found = {(trial.stage, trial.arm): result for trial, result in records.results().items()}
    priors = [result for (stage, _), result in found.items() if stage == "prior"]
    corpora = {name: read for result in priors for name, read in result["corpora"].items()}
    with style():
        drawn = [theory_curves(found["theory", "linear model"], folder)]
        if corpora:
            drawn += [histograms(corpora, metrics, folder), candidate_shares(corpora, folder)]
            drawn += edit_examples(corpora, folder)
        for result in priors:
            if "synthetic_ppl" in result:
                drawn.append(perplexities(corpora, result["synthetic_ppl"], folder))
        drawn += bucket_response(found["features", "n-grams"], folder)
        drawn += [
            mixing(corpus, metrics, folder)
            for corpus in ("docs", "books")
            if f"ppl_ratio_{corpus}" in metrics
        ]
        drawn += generations(records, folder)
        drawn += training_effect(metrics, folder)
    return drawn
