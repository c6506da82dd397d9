"""The edit of one document, from the prior's scores: which tokens are candidates, and what replaces them.

    c_i = [P(x_i | x_<i) >= threshold];   x'_i ~ Q_i where c_i, else x'_i = x_i           (section 2.1)

The contexts x_<i are the original ones for every i, so that all positions are independent and one forward
pass of the prior is enough. A candidate is a token that is drawn anew; most draws give the original token
back, and only the others are changes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toedit.config import EditConfig
from toedit.errors import ToEditError
from toedit.randomness import Words, document_words, gumbel, queue_places
from toedit.sampling import draw, log_weights, swap_probability

DROPPED = -1
"""What stands in the new ids where `low="drop"` deletes a token."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What the prior says about one document (or window) of n tokens; every backend gives this.

    log_p      float32 [n]    log P(x_i | x_<i) of each token; NaN where it was not scored (the first token)
    rows       int64 [m]      the positions that fulfil the condition (`fulfils`), ascending
    top_ids    int64 [m, k]   the k most probable tokens there
    top_log_p  float32 [m, k] their log P, normalised over the whole vocabulary
    """

    log_p: NDArray[np.floating]
    rows: NDArray[np.int64]
    top_ids: NDArray[np.int64]
    top_log_p: NDArray[np.floating]


class EditedTokens(NamedTuple):
    """The edit of one document of n tokens.

    ids             int64 [n]   the new tokens, `DROPPED` where one is deleted
    candidate_mask  bool [n]    drawn anew
    changed_mask    bool [n]    drawn anew, and another token than before
    p_new           float32 [n] P under the prior, in the original context, of the token standing there now;
                                NaN where the token was not scored or is dropped
    """

    ids: NDArray[np.int64]
    candidate_mask: NDArray[np.bool_]
    changed_mask: NDArray[np.bool_]
    p_new: NDArray[np.floating]


def fulfils(log_p: NDArray[np.floating], cfg: EditConfig) -> NDArray[np.bool_]:
    """c_i for log probabilities of any shape; False for NaN.

    A probability that equals the threshold up to the rounding of `log_p`'s dtype counts as equal to it.
    """
    if cfg.threshold > 1:
        return np.zeros(log_p.shape, dtype=bool)
    cut = log(cfg.threshold)
    slack = _rounding(log_p, cut) * (1 if cfg.inclusive else -1)
    exact = log_p.astype(np.float64)
    return exact >= cut - slack if cfg.condition == "ge" else exact <= cut + slack


def is_low(log_p: NDArray[np.floating], cfg: EditConfig) -> NDArray[np.bool_]:
    """Whether `low="drop"` deletes a token, for log probabilities of any shape; False for NaN."""
    if cfg.low != "drop":
        return np.zeros(log_p.shape, dtype=bool)
    cut = log(cfg.low_threshold)
    return log_p.astype(np.float64) < cut - _rounding(log_p, cut)


def _rounding(log_p: NDArray[np.floating], cut: float) -> float:
    return 4 * float(np.finfo(log_p.dtype).eps) * max(1.0, abs(cut))


def edit_scores(
    ids: NDArray[np.int64],
    scores: Scores,
    cfg: EditConfig,
    doc_id: int | str,
    offset: int = 0,
    protected: NDArray[np.bool_] | None = None,
    specials: Collection[int] = frozenset(),
) -> EditedTokens:
    """Edit one document from its scores.

    `ids` int64 [n]; `protected` bool [n] marks tokens that are never touched; `specials` are the ids of the
    special tokens (see `avoid_specials`). `offset` is the position of `ids[0]` in the document, for a caller
    that edits it piece by piece; `max_edit_fraction` is then a share of each piece. Scores made with a looser
    threshold or more top tokens than the config's serve as well: one scoring pass, several thresholds.

    Raises `ToEditError` if the scores lack a candidate's top tokens, or have fewer than `top_k` of them.
    """
    candidates, dropped = _masks(ids, scores.log_p, cfg, protected, specials)
    rows, top_ids, top_log_p = _top(scores, candidates, cfg)
    document = document_words(cfg.seed, doc_id)
    weights = log_weights(ids[rows], top_ids, top_log_p, cfg, specials)
    rank = draw(weights, gumbel(document, rows + offset, cfg.top_k))
    drawn = rank >= 0
    rows, rank = rows[drawn], rank[drawn]

    new_ids, p_new = ids.copy(), np.exp(scores.log_p)
    new_ids[rows], p_new[rows] = top_ids[drawn, rank], np.exp(top_log_p[drawn, rank])
    new_ids[dropped], p_new[dropped] = DROPPED, np.nan
    if cfg.max_edit_fraction is not None:
        undone = _too_many(new_ids != ids, cfg.max_edit_fraction, document, offset)
        new_ids[undone], p_new[undone] = ids[undone], np.exp(scores.log_p[undone])
    return EditedTokens(new_ids, candidates, candidates & (new_ids != ids), p_new)


def swap_probabilities(
    ids: NDArray[np.int64],
    scores: Scores,
    cfg: EditConfig,
    protected: NDArray[np.bool_] | None = None,
    specials: Collection[int] = frozenset(),
) -> NDArray[np.float64]:
    """The probability [n] that each token changes, without drawing: 1 - q(original) at candidates, else 0.

    Its sum is the expected number of changes (before `max_edit_fraction`). Arguments as for `edit_scores`.
    """
    candidates, _ = _masks(ids, scores.log_p, cfg, protected, specials)
    rows, top_ids, top_log_p = _top(scores, candidates, cfg)
    swap = np.zeros(len(ids))
    weights = log_weights(ids[rows], top_ids, top_log_p, cfg, specials)
    swap[rows] = swap_probability(ids[rows], top_ids, weights)
    return swap


def _masks(
    ids: NDArray[np.int64],
    log_p: NDArray[np.floating],
    cfg: EditConfig,
    protected: NDArray[np.bool_] | None,
    specials: Collection[int],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(candidates, dropped), both bool [n] and disjoint."""
    free = np.ones(len(ids), dtype=bool) if protected is None else ~protected
    if cfg.avoid_specials and specials:
        free &= ~np.isin(ids, np.fromiter(specials, np.int64))
    dropped = free & is_low(log_p, cfg)
    return free & fulfils(log_p, cfg) & ~dropped, dropped


def _top(
    scores: Scores, candidates: NDArray[np.bool_], cfg: EditConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
    """The candidates' rows [c], and their top_k tokens and log P [c, top_k], most probable first."""
    wanted = candidates[scores.rows]
    missing = int(candidates.sum() - wanted.sum())
    if missing:
        raise ToEditError(
            f"the scores hold no top tokens for {missing} of {int(candidates.sum())} candidates; "
            f"score again with condition={cfg.condition!r} and threshold={cfg.threshold}"
        )
    if not wanted.any():  # a backend need not know k then
        return np.empty(0, np.int64), np.empty((0, cfg.top_k), np.int64), np.empty((0, cfg.top_k))
    if scores.top_ids.shape[1] < cfg.top_k:
        raise ToEditError(
            f"top_k is {cfg.top_k}, but the scores hold {scores.top_ids.shape[1]} tokens at a candidate; "
            f"score again with top_k={cfg.top_k}"
        )
    top_ids, top_log_p = scores.top_ids[wanted], scores.top_log_p[wanted]
    # Backends return tokens of equal probability in any order; the lower id first is ours.
    order = np.lexsort((top_ids, -top_log_p), axis=1)[:, : cfg.top_k]
    return (
        scores.rows[wanted],
        np.take_along_axis(top_ids, order, axis=1),
        np.take_along_axis(top_log_p, order, axis=1),
    )


def _too_many(touched: NDArray[np.bool_], fraction: float, document: Words, offset: int) -> NDArray[np.int64]:
    """The touched positions that go beyond `fraction` of the tokens; which ones is drawn by lot."""
    positions = np.flatnonzero(touched)
    allowed = int(fraction * len(touched) + 1e-9)
    places = queue_places(document, positions + offset)
    return positions[np.argsort(places, kind="stable")[allowed:]]
