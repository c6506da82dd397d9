"""The edit of a batch of tensors, from the prior's logits: no model, no tokenizer, no text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from toedit.config import EditConfig
from toedit.editing import Scores, edit_scores, fulfils
from toedit.errors import ToEditError
from toedit.randomness import document_name


def edit_tokens(
    ids: torch.Tensor,
    logits: torch.Tensor,
    cfg: EditConfig,
    doc_ids: Sequence[int | str],
    attention_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Edit a batch of documents from the prior's logits; no model and no tokenizer.

    `ids` int64 or int32 (B, T) and `logits` float (B, T, V), where `logits[:, i - 1]` scores `ids[:, i]`; the
    first token of a document is kept. `attention_mask` (B, T) is 0 at padding, left or right, which is never
    edited and never a context. `doc_ids` are B different whole numbers or texts.

    Returns (ids, candidate_mask, changed_mask), (B, T) each, on the device of `ids`; a deleted token
    (`low="drop"`) is `DROPPED`, -1. There are no special tokens here, so `avoid_specials` does nothing.

    Raises `ToEditError` for shapes that do not fit, repeated ids of documents, tokens outside the vocabulary,
    `top_k` above V, and logits that are NaN or infinite (-inf for single tokens is allowed).
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
    if not normaliser.isfinite().all():
        where = int(index[~normaliser.isfinite()][0])
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
    if ids.dtype not in (torch.int32, torch.int64) or not logits.is_floating_point():
        raise ToEditError(
            f"ids are {ids.dtype} and logits {logits.dtype}; ids must be int64 or int32, logits float"
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
