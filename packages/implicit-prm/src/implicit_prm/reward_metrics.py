"""How well outcomes separate right from wrong responses: what the trainer logs and `evaluate` returns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Probability that a right response scores above a wrong one, a tie counting one half.

    `scores` [n], `labels` [n], right where above 0.5. NaN without both kinds.
    """
    scores, right = np.asarray(scores, np.float64), np.asarray(labels) > 0.5
    won, lost = np.count_nonzero(right), np.count_nonzero(~right)
    if not won or not lost:
        return float("nan")
    # Mann-Whitney: the sum of the right ones' mean ranks, less what it is when they are the lowest.
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[right].sum() - won * (won + 1) / 2) / (won * lost))


def reward_metrics(scores: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """Mean reward of right and wrong responses, their difference, accuracy and AUC.

    `scores` [n] are outcomes (or step rewards) with `labels` [n], right where above 0.5; or [m, 2], pairs of
    a right and a wrong one, whose labels are not read. Names are TRL's. The accuracy is that of the sign
    against the label; of pairs, how often the right one is higher. What one kind alone cannot say is left
    out.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim == 2:
        chosen, rejected = scores.T
        accuracies = chosen > rejected
    else:
        right = np.asarray(labels) > 0.5
        chosen, rejected = scores[right], scores[~right]
        accuracies = (scores > 0) == right
    both = np.concatenate([chosen, rejected])
    is_right = np.arange(len(both)) < len(chosen)
    found = {
        "rewards/chosen": chosen.mean() if len(chosen) else np.nan,
        "rewards/rejected": rejected.mean() if len(rejected) else np.nan,
        "rewards/accuracies": accuracies.mean(),
        "rewards/auc": auc(both, is_right),
    }
    found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
    return {name: float(value) for name, value in found.items() if not np.isnan(value)}


def auc_within_prompts(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """How often a right response scores above a wrong one of the same prompt, over all such pairs.

    Rewards carry an offset of their prompt (section 2.1), so this is what best-of-n goes by. All [n]; NaN
    where no prompt has both kinds.
    """
    scores, right, groups = np.asarray(scores), np.asarray(labels) > 0.5, np.asarray(groups)
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    won = pairs = 0.0
    for members in np.split(order, bounds):
        count = np.count_nonzero(right[members]) * np.count_nonzero(~right[members])
        if count:
            won += count * auc(scores[members], right[members])
            pairs += count
    return won / pairs if pairs else float("nan")
