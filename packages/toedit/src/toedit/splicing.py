"""Edited tokens back into the text, exactly: every byte outside an edit stays what it was.

Nothing is decoded but the tokens that changed. The text of a token is what it adds when it is decoded after
the token before it, so that tokenizers which mark a word's beginning give their spaces back. An edit is made
only where the text of the old token is exactly the stretch of the source that the tokenizer says it covers.
Everywhere else it is taken back and counted: at tokens that hold a part of a character, new tokens that would
leave one, and places where the tokenizer's normalizer had rewritten the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toedit.editing import DROPPED, EditedTokens

_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Edit:
    """One edit: `source[start:end] == old` became `new`; `start` and `end` count characters of the source.

    `p_old` and `p_new` are the prior's probabilities of the two tokens, in the original context. A deleted
    token has `new == ""` and a NaN `p_new`.
    """

    start: int
    end: int
    old: str
    new: str
    p_old: float
    p_new: float


@dataclass(frozen=True, eq=False)
class Spliced:
    """A text with its edits, and the tokens with those edits undone that the text cannot hold."""

    text: str
    edits: list[Edit]
    edited: EditedTokens
    n_skipped: int


def splice(
    text: str,
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    edited: EditedTokens,
    log_p: NDArray[np.floating],
    decode: Callable[[list[int]], str],
) -> Spliced:
    """Put the edited tokens into the text.

    `ids` int64 [n] are the tokens of `text`, `offsets` int64 [n, 2] the characters that each covers, `log_p`
    [n] their scores; `decode` gives the text of ids, with nothing skipped or cleaned up.
    """
    edits: list[Edit] = []
    skipped: list[int] = []
    for at in np.flatnonzero(edited.ids != ids).tolist():
        context = ids[max(0, at - 1) : at].tolist()
        span = _span(text, offsets, at, _piece(decode, context, int(ids[at])))
        new = "" if edited.ids[at] == DROPPED else _piece(decode, context, int(edited.ids[at]))
        if span is None or new is None or _BROKEN in new:
            skipped.append(at)
            continue
        p_old, p_new = float(np.exp(log_p[at])), float(edited.p_new[at])
        edits.append(Edit(*span, text[slice(*span)], new, p_old, p_new))
    return Spliced(apply_edits(text, edits), edits, _without(edited, ids, log_p, skipped), len(skipped))


def apply_edits(text: str, edits: Iterable[Edit], start: int = 0, end: int | None = None) -> str:
    """What `text[start:end]` becomes; `edits` are in order, and those that lie outside are left out."""
    pieces, done = [], start
    stop = len(text) if end is None else end
    for edit in edits:
        if start <= edit.start and edit.end <= stop:
            pieces += [text[done : edit.start], edit.new]
            done = edit.end
    return "".join([*pieces, text[done:stop]])


def _piece(decode: Callable[[list[int]], str], context: list[int], token: int) -> str | None:
    """What `token` adds to the text after `context`; None if it changes the context's text."""
    before, both = decode(context) if context else "", decode([*context, token])
    return both[len(before) :] if both.startswith(before) else None


def _span(text: str, offsets: NDArray[np.int64], at: int, old: str | None) -> tuple[int, int] | None:
    """Where `old`, the text of the token `at`, stands in the source; None if it shares a character."""
    start, end = offsets[at].tolist()
    before = int(offsets[at - 1, 1]) if at else 0
    after = int(offsets[at + 1, 0]) if at + 1 < len(offsets) else len(text)
    if not before <= start < end <= after or old is None:
        return None
    # Some tokenizers leave a word's space out of its offsets; then it belongs to no token.
    for first in (start, before):
        if text[first:end] == old and _BROKEN not in old:
            return first, end
    return None


def _without(
    edited: EditedTokens, ids: NDArray[np.int64], log_p: NDArray[np.floating], skipped: Sequence[int]
) -> EditedTokens:
    if not skipped:
        return edited
    new_ids, changed, p_new = edited.ids.copy(), edited.changed_mask.copy(), edited.p_new.copy()
    new_ids[skipped], changed[skipped], p_new[skipped] = ids[skipped], False, np.exp(log_p[skipped])
    return EditedTokens(new_ids, edited.candidate_mask, changed, p_new)
