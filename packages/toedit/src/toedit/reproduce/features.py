"""T6: hashed n-grams of human, synthetic and edited text, as many words of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmlab.tokenizers import tokenizer_for
from tenfold import Trial, TrialContext
from toedit.analysis import concentration, hashed_ngrams
from toedit.reproduce.prior import PriorConfig, edited_texts
from toedit.reproduce.synthesis import synthetic_texts
from toedit.reproduce.texts import count_words, cut_to_words
from toedit.reproduce.tiny import TinyConfig, human_for

CURVE = 100
"""Points of a bucket curve."""


def features_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Effective buckets and the sorted shares of {"human": ..., "synthetic": ...}, {"source", "edited"}."""
    found: dict[str, Any] = {}
    if (settings := trial.settings["synthesis"]) is not None:
        tiny = TinyConfig(**settings["tiny"])
        human = human_for(tiny, settings["corpus"], tokenizer_for(settings["corpus"], tiny.vocab_size))
        found |= compared(human=human, synthetic=synthetic_texts(settings))
    if trial.settings["sizes"] is not None:
        source, edited = edited_texts(trial.settings["edited"], PriorConfig(**trial.settings["sizes"]))
        found |= compared(source=source, edited=edited)
    return found


def compared(**kinds: Sequence[str]) -> dict[str, Any]:
    """Of each kind `effective_buckets` and a `curve`, on as many words as the shortest has."""
    words = min(count_words(texts) for texts in kinds.values())
    found = {}
    for name, texts in kinds.items():
        counts = hashed_ngrams(cut_to_words(texts, words))
        effective = concentration(counts).effective_buckets
        found[name] = {"effective_buckets": effective, "curve": curve(counts), "words": words}
    return found


def curve(counts: NDArray[np.int64]) -> list[float]:
    """`CURVE` shares: how much of all counts the fullest 1/CURVE, 2/CURVE, ... of the buckets hold."""
    held = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    places = np.ceil(np.arange(1, CURVE + 1) * len(counts) / CURVE).astype(int) - 1
    return held[places].tolist()


def features_metrics(found: dict[str, Any]) -> dict[str, float]:
    """The numbers of the claims T6."""
    e = {name: kind["effective_buckets"] for name, kind in found.items()}
    metrics = {f"effective_buckets_{name}": value for name, value in e.items()}
    if "synthetic" in e:
        metrics["effective_buckets_synthetic_over_human"] = e["synthetic"] / e["human"]
    if "edited" in e:
        metrics["effective_buckets_edited_change"] = abs(e["edited"] / e["source"] - 1)
    return metrics
