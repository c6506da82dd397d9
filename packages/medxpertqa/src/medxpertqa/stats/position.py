"""Whether a model prefers letters: predicted letters against uniform, and the recall of each letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np

from medxpertqa.errors import MedXpertQAError
from medxpertqa.stats.distributions import chi2_survival


@dataclass(frozen=True)
class Position:
    """Predicted letters by count, chi-squared against uniform with its p-value, and recalls.

    `recall` has only letters that are the label of some question; `recall_sd` is their standard deviation.
    `n` is the number of parsed predictions; with none, `chi2` is 0 and `p_value` 1.
    """

    n: int
    counts: Mapping[str, int]
    chi2: float
    p_value: float
    recall: Mapping[str, float]
    recall_sd: float


def position_bias(predicted: Sequence[str | None], labels: Sequence[str], n_options: int) -> Position:
    """Compare the letters that were predicted (None: none was read) with uniform ones, and with the labels.

    chi2 = sum over letters of (count - n/K)^2 / (n/K), K = n_options, with K - 1 degrees of freedom.
    Raises `MedXpertQAError` if the two differ in length or a letter is beyond the options.
    """
    if len(predicted) != len(labels):
        raise MedXpertQAError(f"there are {len(predicted)} predictions and {len(labels)} labels")
    letters = ascii_uppercase[:n_options]
    strange = sorted({letter for letter in (*predicted, *labels) if letter is not None} - set(letters))
    if strange:
        raise MedXpertQAError(f"the letter {strange[0]} is none of the {n_options} options")
    counts = {letter: sum(found == letter for found in predicted) for letter in letters}
    n, expected = sum(counts.values()), sum(counts.values()) / n_options
    chi2 = sum((count - expected) ** 2 for count in counts.values()) / expected if n else 0.0
    recall = {}
    for letter in letters:
        found = [guess == letter for guess, label in zip(predicted, labels, strict=True) if label == letter]
        if found:
            recall[letter] = sum(found) / len(found)
    spread = float(np.std(list(recall.values()))) if recall else 0.0
    return Position(n, counts, chi2, chi2_survival(chi2, n_options - 1), recall, spread)
