"""Long documents in overlapping windows: every token is scored once, and nothing is thrown away.

A window has at most `window` tokens. From the second one on, its first `overlap` tokens are there as context
only, so that every token but those near the document's start is scored with at least `overlap` tokens before
it. The windows depend on the document alone: not on batches, shards or other documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toedit.editing import Scores
from toedit.errors import ToEditError


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a document that goes through the model in one piece.

    ids    int64 [n]  the model's input, with the BOS where one is added
    first  int >= 1   the tokens before `ids[first]` are context only; ids[first:] are scored
    start  int        the position of ids[first] in the document
    """

    ids: NDArray[np.int64]
    first: int
    start: int


def split(ids: NDArray[np.int64], window: int, overlap: int, bos: int | None = None) -> list[Window]:
    """The windows of a document, `ids` int64 [n], in order; none where nothing can be scored.

    Without a `bos` the first token has no context and is not scored. With one, every window starts with it,
    since models that were trained so expect it; a document that begins with it gets no second one in front.

    Raises `ToEditError` if `overlap` leaves no room for new tokens in a window.
    """
    own_bos = bos is not None and len(ids) > 0 and int(ids[0]) == bos
    prefix = np.array([] if bos is None else [bos], dtype=np.int64)
    room = window - len(prefix)
    shared = overlap if bos is not None else max(overlap, 1)  # a window's first token needs a context too
    if shared >= room:
        raise ToEditError(
            f"overlap is {overlap}, but a window holds {room} tokens of the document; lower the overlap"
        )
    windows, start = [], 1 if bos is None or own_bos else 0
    while start < len(ids):
        begin = max(0, start - shared)
        add = prefix[:0] if begin == 0 and own_bos else prefix
        end = min(len(ids), begin + window - len(add))
        windows.append(Window(np.concatenate([add, ids[begin:end]]), len(add) + start - begin, start))
        start = end
    return windows


def merge(length: int, windows: Sequence[Window], scores: Sequence[Scores]) -> Scores:
    """The scores of a document of `length` tokens from those of its windows (`split`), in order.

    Raises `ToEditError` where a token that should have a score is NaN: the model computed no number.
    """
    # Their own precision: rounded anew, a token at the threshold could cross it.
    kind = scores[0].log_p.dtype if scores else np.float32
    log_p = np.full(length, np.nan, dtype=kind)
    rows: list[NDArray[np.int64]] = []
    for window, part in zip(windows, scores, strict=True):
        wanted = part.log_p[window.first :]
        if np.isnan(wanted).any():
            where = window.start + int(np.flatnonzero(np.isnan(wanted))[0])
            raise ToEditError(f"the model's logits for token {where} are NaN or infinite")
        log_p[window.start : window.start + len(wanted)] = wanted
        rows.append(part.rows + (window.start - window.first))
    hits = [part for part in scores if len(part.rows)]
    if not hits:
        return Scores(log_p, np.empty(0, np.int64), np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    return Scores(
        log_p,
        np.concatenate(rows),
        np.concatenate([part.top_ids for part in hits]),
        np.concatenate([part.top_log_p for part in hits]),
    )
