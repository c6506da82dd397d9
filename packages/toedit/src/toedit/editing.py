"""The edit of one document, from the prior's scores: which tokens are candidates, and what replaces them.

    c_i = [P(x_i | x_<i) >= threshold];   x'_i ~ Q_i where c_i, else x'_i = x_i           (section 2.1)

The contexts x_<i are the original ones for every i, so that all positions are independent and one forward
pass of the prior is enough. A candidate is a token that is drawn anew; most draws give the original token
back, and only the others are changes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from toedit.config import EditConfig
from toedit.errors import ToEditError
from toedit.randomness import Words, document_name, document_words, gumbel, queue_places
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
    dropped = np.zeros(len(ids), dtype=bool)
    if cfg.low == "drop":
        cut = log(cfg.low_threshold)
        dropped = free & (log_p.astype(np.float64) < cut - _rounding(log_p, cut))
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


def edit_tokens(
    ids: torch.Tensor,
    logits: torch.Tensor,
    cfg: EditConfig,
    doc_ids: Sequence[int | str],
    attention_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Edit a batch of documents from the prior's logits; no model and no tokenizer.

    `ids` integer (B, T) and `logits` float (B, T, V), where `logits[:, i - 1]` scores `ids[:, i]`; the first
    token of a document is kept. `attention_mask` (B, T) is 0 at padding, left or right, which is never edited
    and never a context. `doc_ids` are B different whole numbers or texts.

    Returns (ids, candidate_mask, changed_mask), (B, T) each, on the device of `ids`; a deleted token
    (`low="drop"`) is `DROPPED`, -1. There are no special tokens here, so `avoid_specials` does nothing.

    Raises `ToEditError` for shapes that do not fit, repeated ids of documents, tokens outside the vocabulary,
    `top_k` above V, and logits that are NaN.
    """
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask
    _check_batch(ids, logits, cfg, doc_ids, mask)
    new_ids = ids.clone()
    candidates, changed = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, doc_id in enumerate(doc_ids):
        places = mask[row].nonzero()[:, 0]
        if not len(places):
            continue
        scores = _score(ids[row], logits[row], places, cfg, doc_id)
        edited = edit_scores(ids[row, places].cpu().numpy().astype(np.int64), scores, cfg, doc_id)
        new_ids[row, places] = torch.from_numpy(edited.ids).to(ids)
        candidates[row, places] = torch.from_numpy(edited.candidate_mask).to(ids.device)
        changed[row, places] = torch.from_numpy(edited.changed_mask).to(ids.device)
    return new_ids, candidates, changed


def _score(
    ids: torch.Tensor, logits: torch.Tensor, places: torch.Tensor, cfg: EditConfig, doc_id: int | str
) -> Scores:
    """Scores of the document whose tokens stand at `places` [n] of `ids` (T) and `logits` (T, V)."""
    # A token is scored where its left neighbour is part of the document: not the first, none after padding.
    index = (places[1:] == places[:-1] + 1).nonzero()[:, 0] + 1
    heads = logits[places[index] - 1]
    heads = heads if heads.dtype == torch.float64 else heads.float()
    normaliser = heads.logsumexp(-1)
    log_p = heads.gather(1, ids[places[index], None].long())[:, 0] - normaliser
    if log_p.isnan().any():
        where = int(index[log_p.isnan()][0])
        raise ToEditError(
            f"document {doc_id!r}: the logits ({logits.dtype}) that score token {where} are NaN or infinite; "
            "run the model in float32 or bfloat16, or leave the document out"
        )
    full = np.full(len(places), np.nan, dtype=log_p.numpy(force=True).dtype)
    full[index.cpu().numpy()] = log_p.numpy(force=True)
    chosen = fulfils(log_p.numpy(force=True), cfg)
    chosen_rows = torch.from_numpy(np.flatnonzero(chosen)).to(heads.device)
    top, top_ids = heads[chosen_rows].topk(cfg.top_k, dim=-1)
    top_log_p = top - normaliser[chosen_rows, None]
    rows = index.cpu().numpy()[chosen]
    return Scores(full, rows, top_ids.numpy(force=True), top_log_p.numpy(force=True))


def _check_batch(
    ids: torch.Tensor,
    logits: torch.Tensor,
    cfg: EditConfig,
    doc_ids: Sequence[int | str],
    mask: torch.Tensor,
) -> None:
    if ids.ndim != 2 or logits.ndim != 3 or logits.shape[:2] != ids.shape or mask.shape != ids.shape:
        raise ToEditError(
            "ids, logits and attention_mask must be (B, T), (B, T, V) and (B, T), not "
            f"{tuple(ids.shape)}, {tuple(logits.shape)} and {tuple(mask.shape)}"
        )
    if ids.is_floating_point() or not logits.is_floating_point():
        raise ToEditError(
            f"ids are {ids.dtype} and logits {logits.dtype}; ids must be whole numbers, logits not"
        )
    names = [document_name(doc_id) for doc_id in doc_ids]
    if len(names) != len(ids):
        raise ToEditError(f"there are {len(names)} doc_ids for {len(ids)} documents")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ToEditError(
            f"document id {twice!r} is given twice; the draws are keyed by the id, so each needs its own"
        )
    vocabulary = logits.shape[-1]
    if cfg.top_k > vocabulary:
        raise ToEditError(f"top_k is {cfg.top_k}, more than the {vocabulary} tokens of the vocabulary")
    real = ids[mask.bool()]
    if len(real) and (int(real.min()) < 0 or int(real.max()) >= vocabulary):
        raise ToEditError(
            f"ids go from {int(real.min())} to {int(real.max())}, but the logits have {vocabulary} columns; "
            "the tokenizer and the model do not belong together"
        )
