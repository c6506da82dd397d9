"""Has a model seen a question? Its certainty of its own output, and the output's likeness to an explanation.

After Xu et al. 2024 (BenBench) and the paper's table 6. The metrics need no model; `medxpertqa.memory` asks
one. The table's perplexities, 1e218, are none of a token: a 2,000-token answer at 0.25 nats a token
has an inverse probability of 1e217 as a whole. `log10_inverse_probability` is on that scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein

from medxpertqa.errors import DataError, MissingExtraError


def rouge_l(text: str, reference: str, stemmed: bool = False) -> float:
    """Return the F1 of the longest common subsequence of words, as `rouge-score` has it.

    Words are runs of a-z and 0-9 in lower case. `stemmed` compares Porter's stems of those with more than
    three letters, as BenBench does; it needs nltk. 0 if either text has no words.

    Raises:
        MissingExtraError: `stemmed`, and nltk is not installed.
    """
    a, b = _words(text), _words(reference)
    if stemmed:
        stem = _porter()
        a, b = ([stem(word) if len(word) > 3 else word for word in words] for words in (a, b))
    common = LCSseq.similarity(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


@cache
def _porter() -> Callable[[str], str]:
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError:
        raise MissingExtraError(
            "ROUGE-L on stems needs an optional extra: pip install 'medxpertqa[leakage]'"
        ) from None
    stem: Callable[[str], str] = PorterStemmer().stem
    return stem


def edit_similarity(text: str, reference: str) -> float:
    """Return 1 - Levenshtein / length of the longer, on characters; two empty texts have 1."""
    return Levenshtein.normalized_similarity(text, reference)


def perplexity(log_probabilities: Sequence[float]) -> float:
    """Return exp(-mean) of the tokens' natural log-probabilities; infinite if it is beyond a float."""
    mean = -_checked(log_probabilities).mean()
    return math.exp(mean) if mean < 709 else math.inf


def log10_inverse_probability(log_probabilities: Sequence[float]) -> float:
    """Return -Σ l / ln 10, the order of magnitude of 1 / P(whole output): the scale of the paper's table 6.

    It grows with the output's length. A mean of the inverse probabilities themselves would be that of the one
    longest answer; compare these logarithms.
    """
    return float(-_checked(log_probabilities).sum() / math.log(10))


def _checked(log_probabilities: Sequence[float]) -> np.ndarray:
    values = np.asarray(log_probabilities, dtype=float)
    if values.ndim != 1 or not len(values) or np.isnan(values).any() or (values > 1e-6).any():
        raise DataError("log-probabilities: needed: at least one, none above 0, one number a token")
    return np.minimum(values, 0)


@dataclass(frozen=True)
class NgramAudit:
    """BenBench's test of one text.

    `accuracy` is the share of the k n-grams continued exactly. `flagged`: all k exact, or all with edit
    similarity or ROUGE-L above its threshold.
    """

    accuracy: float
    edit_similarity: float
    rouge_l: float
    flagged: bool


def ngram_accuracy(
    predicted: Sequence[Sequence[Any]],
    expected: Sequence[Sequence[Any]],
) -> float:
    """Return the share of n-grams (tokens or strings) that the model continued exactly.

    Raises:
        DataError: none, or not as many predicted as expected.
    """
    if not len(expected) or len(predicted) != len(expected):
        raise DataError(
            f"{len(predicted)} predicted and {len(expected)} expected n-grams: one each, at least one"
        )
    return sum(list(p) == list(e) for p, e in zip(predicted, expected, strict=True)) / len(expected)


def ngram_audit(
    predicted: Sequence[str],
    expected: Sequence[str],
    min_edit: float = 0.9,
    min_rouge: float = 0.75,
    stemmed: bool = False,
) -> NgramAudit:
    """Judge a text by the model's continuations at k places (BenBench: k = 5 of n = 5 tokens, greedy).

    BenBench's README sets the edit threshold to .9 (its code .75), and .75 for ROUGE-L, which it takes of
    stems: `stemmed`, see `rouge_l`.
    """
    accuracy = ngram_accuracy(predicted, expected)
    edits = [edit_similarity(p, e) for p, e in zip(predicted, expected, strict=True)]
    rouges = [rouge_l(p, e, stemmed) for p, e in zip(predicted, expected, strict=True)]
    flagged = accuracy == 1 or min(edits) > min_edit or min(rouges) > min_rouge
    return NgramAudit(accuracy, float(np.mean(edits)), float(np.mean(rouges)), flagged)


def start_points(length: int, n: int = 5, k: int = 5) -> list[int]:
    """Return at most k places in a text of `length` tokens that have a token before and n tokens after.

    Evenly spaced, the first after a prefix of n tokens where that fits; [] if the text is too short.
    """
    first, last = min(n, length - n), length - n
    if first < 1:
        return []
    return sorted({round(place) for place in np.linspace(first, last, k)})


@dataclass(frozen=True)
class Change:
    """Before and after a rewriting, paired by question: both means, their difference and its interval."""

    before: float
    after: float
    difference: float
    ci: tuple[float, float]
    n: int


def paired_change(
    before: Sequence[float], after: Sequence[float], draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> Change:
    """Return mean(after - before) with its bootstrap interval over questions (percentile).

    Raises:
        DataError: the lengths differ, there are fewer than 2, or a value is not finite.
    """
    a, b = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2 or not np.isfinite([a, b]).all():
        raise DataError("before and after: needed: one finite value a question, at least 2 questions")
    difference = b - a
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=draws)
    low, high = np.quantile(weights @ difference / len(a), [(1 - level) / 2, (1 + level) / 2])
    return Change(
        float(a.mean()), float(b.mean()), float(difference.mean()), (float(low), float(high)), len(a)
    )


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the chance that a positive (seen) text scores above a negative one, ties counted half."""
    a, b = np.asarray(positive, dtype=float), np.asarray(negative, dtype=float)
    if not len(a) or not len(b):
        raise DataError("the AUC needs texts of both kinds")
    return float(((a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum()) / (len(a) * len(b)))
