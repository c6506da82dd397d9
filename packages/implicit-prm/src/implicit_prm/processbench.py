"""ProcessBench: the first wrong step by a threshold on the steps' scores, and its F1 (section 2.4).

The prediction is the first step whose score is below the threshold, -1 if none is; a label is the first
wrong step, -1 if all are right. Scores are q at the steps' ends, as in the official script, or the step
rewards. The script compares sigmoid(coef * score) with t: that is the threshold log(t / (1 - t)) / coef here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError

Floats = npt.NDArray[np.float64]


def first_error(scores: npt.ArrayLike, threshold: float) -> int:
    """The index of the first of the step scores [S] that is below `threshold`, -1 if none is.

    Raises `ImplicitPRMError` for a threshold that is NaN, which nothing is below.
    """
    if np.isnan(threshold):
        raise ImplicitPRMError("the threshold is NaN; give a number")
    below = np.asarray(scores, dtype=np.float64) < threshold  # float32 would round the threshold
    return int(below.argmax()) if below.any() else -1


def processbench_f1(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """`error_acc`, `correct_acc` and `f1`, their harmonic mean, of integer predictions and labels [N].

    error_acc is the share of samples with a wrong step whose first one is predicted, correct_acc that of the
    samples without for which -1 is. Without samples of a kind its accuracy, and F1, is NaN.

    Raises `ImplicitPRMError` if there are not as many predictions as labels, or none.
    """
    predicted, label = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != label.shape or not label.size:
        raise ImplicitPRMError(
            f"there are {predicted.size} predictions and {label.size} labels; give one of each a sample"
        )
    hit, is_error = predicted == label, label >= 0
    error_acc, correct_acc = (
        float(hit[part].mean()) if part.any() else np.nan for part in (is_error, ~is_error)
    )
    return {"error_acc": error_acc, "correct_acc": correct_acc, "f1": float(_f1(error_acc, correct_acc))}


def best_threshold(list_of_scores: Sequence[npt.ArrayLike], labels: Sequence[int]) -> tuple[float, float]:
    """The threshold with the highest F1, and that F1: exact, over all real thresholds.

    list_of_scores: the step scores [S] of each sample; labels: its first wrong step or -1. F1 only changes at
    observed scores; of the best thresholds the one in the middle between the two lowest such scores around
    it is given, to be kept for other splits, as the official script keeps that of GSM8K.

    Raises `ImplicitPRMError` for samples of one kind only, a label that is no step, a score that is NaN.
    """
    _check(list_of_scores, labels)
    intervals = [_right_between(scores, label) for scores, label in zip(list_of_scores, labels, strict=True)]
    low, high = np.array(intervals, dtype=np.float64).T
    is_error = np.asarray(labels) >= 0
    # Thresholds in (ends[i], ends[i + 1]] all predict the same.
    ends = np.unique(np.concatenate([low, high, [-np.inf, np.inf]]))
    rights = []
    for part in (is_error, ~is_error):
        change = np.zeros(len(ends))
        np.add.at(change, np.searchsorted(ends, low[part]), 1)
        np.add.at(change, np.searchsorted(ends, high[part]), -1)
        rights.append(change.cumsum()[:-1] / part.sum())
    f1 = _f1(*rights)
    best = int(f1.argmax())
    return _between(ends[best], ends[best + 1]), float(f1[best])


def _right_between(scores: npt.ArrayLike, label: int) -> tuple[float, float]:
    """The thresholds (low, high] with which this sample's prediction is its label; low = high if none is.

    Step s is predicted by thresholds above its score, but not above the lowest score before it.
    """
    values = np.asarray(scores, dtype=np.float64)
    if label < 0:
        return -np.inf, float(values.min())
    before = float(values[:label].min(initial=np.inf))
    return min(float(values[label]), before), before


def _f1(error_acc: npt.ArrayLike, correct_acc: npt.ArrayLike) -> Floats:
    """The harmonic mean, 0 where both are 0."""
    a, b = np.asarray(error_acc, dtype=np.float64), np.asarray(correct_acc, dtype=np.float64)
    return 2 * a * b / np.where(a + b == 0, 1.0, a + b)


def _between(low: float, high: float) -> float:
    """A threshold in (low, high], in the middle if both are finite."""
    if not np.isfinite([low, high]).all():
        return float(high if np.isfinite(high) else np.nextafter(low, np.inf))
    middle = low + (high - low) / 2
    return float(middle if low < middle else high)


def _check(list_of_scores: Sequence[npt.ArrayLike], labels: Sequence[int]) -> None:
    if len(list_of_scores) != len(labels):
        raise ImplicitPRMError(
            f"there are scores of {len(list_of_scores)} samples and {len(labels)} labels; give one of each"
        )
    for sample, (scores, label) in enumerate(zip(list_of_scores, labels, strict=True)):
        values = np.asarray(scores, dtype=np.float64)
        if not -1 <= label < len(values):
            raise ImplicitPRMError(
                f"sample {sample}: the label is {label} and there are {len(values)} steps; "
                "a label is the first wrong step, counted from 0, or -1"
            )
        if not len(values) or np.isnan(values).any():
            raise ImplicitPRMError(f"sample {sample} has no step scores, or one that is NaN; score it again")
    n_errors = sum(label >= 0 for label in labels)
    if n_errors in (0, len(labels)):
        raise ImplicitPRMError(
            f"{n_errors} of {len(labels)} samples have a wrong step; "
            "a threshold needs samples with one and samples without"
        )
