"""Where a threshold of edit similarity could lie: the fences Q3 + k·IQR of each text's nearest neighbour.

The paper states neither the threshold of its edit-distance filter nor what its outliers are.
`edit_similar_pairs` needs a threshold and spares comparisons by it; this compares all pairs, O(n²), to judge
the threshold by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from medxpertqa.construct.semantic import iqr_fence
from medxpertqa.errors import DataError

MULTIPLIERS = (1.5, 3.0)
"""Tukey's fences: of outliers, and of what is far out."""
_ROWS = 256


@dataclass(frozen=True)
class EditFences:
    """The quartiles of n texts' similarities to their nearest neighbours, and the fences by multiplier k.

    `above` counts the texts whose nearest neighbour is beyond a fence, by k; `at_threshold` those that the
    filter's threshold reaches.
    """

    quartiles: tuple[float, float, float]
    fences: dict[float, float]
    above: dict[float, int]
    threshold: float
    at_threshold: int
    n: int

    def __str__(self) -> str:
        q1, q2, q3 = self.quartiles
        fences = [
            f"k = {k:g}: {fence:.3f}, {self.above[k]} of {self.n} texts" for k, fence in self.fences.items()
        ]
        return (
            f"edit similarity to the nearest: quartiles {q1:.3f}, {q2:.3f}, {q3:.3f}; "
            f"fences {'; '.join(fences)}; threshold {self.threshold:g}: {self.at_threshold}"
        )


def edit_fences(texts: Sequence[str], threshold: float = 0.8, workers: int = 1) -> EditFences:
    """Return the fences of `texts`, and how many texts each of them and the threshold would find.

    Raises:
        DataError: fewer than 2 texts.
    """
    nearest = nearest_edit_similarity(texts, workers)
    q1, q2, q3 = (float(q) for q in np.percentile(nearest, [25, 50, 75]))
    fences = {k: iqr_fence(nearest, k) for k in MULTIPLIERS}
    above = {k: int((nearest > fence).sum()) for k, fence in fences.items()}
    return EditFences((q1, q2, q3), fences, above, threshold, int((nearest >= threshold).sum()), len(nearest))


def nearest_edit_similarity(texts: Sequence[str], workers: int = 1) -> np.ndarray:
    """Return each text's highest 1 - Levenshtein / length of the longer to another text, float64 (n,).

    Raises:
        DataError: fewer than 2 texts.
    """
    if len(texts) < 2:
        raise DataError("the nearest of a text needs at least 2 texts")
    nearest = np.zeros(len(texts))
    for start in range(0, len(texts), _ROWS):
        rows = texts[start : start + _ROWS]
        block = process.cdist(
            rows, texts[start:], scorer=Levenshtein.normalized_similarity, dtype=np.float64, workers=workers
        )
        own = np.arange(len(rows))
        block[own, own] = 0
        nearest[start : start + len(rows)] = np.maximum(nearest[start : start + len(rows)], block.max(axis=1))
        nearest[start:] = np.maximum(nearest[start:], block.max(axis=0))
    return nearest
