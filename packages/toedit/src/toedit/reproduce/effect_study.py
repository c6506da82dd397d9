"""T7: does editing help? Tiny models trained on text that SmolLM2 edited, and on its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

import numpy as np

from lmlab.tokenizers import encode, tokenizer_for
from tenfold import Trial, TrialContext
from toedit.reproduce.prior import PriorConfig, edited_texts
from toedit.reproduce.texts import blocks_of
from toedit.reproduce.tiny import TinyConfig, held_back_loss, trained

SOURCE, EDITED = ARMS = ("source", "edited")
HELDOUT = {"valid": ("docs", "valid"), "library": ("docs", "heldout"), "code": ("code", "valid")}
"""Documentation, that of a library nobody trains on, and code: three sets that every machine has."""


def effect_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """T7: train on the source or on its edit; returns the loss on each of `HELDOUT`, in nats a token."""
    tiny, sizes = TinyConfig(**trial.settings["tiny"]), PriorConfig(**trial.settings["sizes"])
    tokenizer = tokenizer_for(trial.settings["edited"], tiny.vocab_size)
    pair = edited_texts(trial.settings["edited"], sizes)
    # As many tokens of both, to the block: an edit seldom keeps their number.
    common = min(sum(len(ids) + 1 for ids in encode(tokenizer, texts)) for texts in pair)
    blocks = blocks_of(pair[(SOURCE, EDITED).index(trial.arm)], tokenizer, tiny.context_length, common)
    model, _ = trained(tiny, blocks, trial.seed, context.progress)
    return {
        name: held_back_loss(model, tiny, corpus, split, tokenizer)
        for name, (corpus, split) in HELDOUT.items()
    }


def effect_metrics(results: Mapping[Trial, Mapping[str, Any]]) -> dict[str, list[float] | float]:
    """Edited minus source, paired by seed, for each set and their mean; and the seeds an answer needs."""
    pairs: dict[int, dict[str, Mapping[str, Any]]] = {}
    for trial, result in results.items():
        pairs.setdefault(trial.seed, {})[trial.arm] = result
    if not pairs:
        return {}
    metrics: dict[str, list[float] | float] = {}
    for name in HELDOUT:
        gaps = [pair[EDITED][name] - pair[SOURCE][name] for pair in pairs.values()]
        metrics[f"edited_minus_source_{name}"] = gaps
        metrics |= {f"{key}_{name}": value for key, value in power(gaps).items()}
    means = np.mean([metrics[f"edited_minus_source_{name}"] for name in HELDOUT], axis=0).tolist()
    return metrics | {"edited_minus_source": means} | power(means)


def power(gaps: Sequence[float], tested: float = 0.05, power: float = 0.8) -> dict[str, float]:
    """What a two-sided paired test at the level `tested` can see with this spread, by the normal formula.

    `smallest_effect`: the difference found with probability `power` with as many seeds as here;
    `seeds_needed`: for a difference as large as the mean found. Empty with fewer than two seeds.
    """
    if len(gaps) < 2:
        return {}
    from scipy.special import ndtri

    width = float(ndtri(1 - tested / 2) + ndtri(power)) * stdev(gaps)
    mean = abs(float(np.mean(gaps)))
    found = {"smallest_effect": width / np.sqrt(len(gaps))}
    return found | ({"seeds_needed": float(np.ceil((width / mean) ** 2))} if mean > 0 else {})
