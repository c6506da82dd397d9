"""What an edit never touches: stretches of text by pattern, tokens by id, and all outside given spans."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

PATTERNS = {
    "code": r"(?ms)^[ \t]*(`{3,}|~{3,}).*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)|`[^`\n]+`",
    "emails": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "math": r"(?s)\$\$.+?\$\$|\$[^$\n]+\$|\\\(.+?\\\)|\\\[.+?\\\]",
    "numbers": r"[+\-\u2212]?\d+(?:[.,:/\-]?\d+)*%?",
    "urls": r"(?:https?|ftp)://[^\s<>\"]+|www\.[^\s<>\"]+",
}
"""The names that `EditConfig.protect` knows. `"(?:code)"` is the regular expression for that word itself."""

Spans = Sequence[tuple[int, int]]


def protected_tokens(
    text: str,
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    protect: Iterable[str | int],
    editable: Spans | None = None,
) -> NDArray[np.bool_]:
    """bool [n]: the tokens that are never touched.

    `ids` int64 [n] and `offsets` int64 [n, 2] are the tokens of `text` and the characters they cover.
    `protect` has token ids, regular expressions and names of `PATTERNS`; a token is protected if it covers
    any character of a match. `editable` are the only stretches of characters that may be edited; None is all.
    Characters between two tokens count as the second one's: some tokenizers leave a word's space out of its
    offsets, and an edit replaces the space too (`toedit.splicing`).
    """
    entries = list(protect)
    expressions = [PATTERNS.get(entry, entry) for entry in entries if isinstance(entry, str)]
    by_id = np.array([entry for entry in entries if isinstance(entry, int)], dtype=np.int64)
    protected = np.isin(ids, by_id)
    if not expressions and editable is None:
        return protected
    closed = np.zeros(len(text), dtype=bool)
    if editable is not None:
        closed[:] = True
        for start, end in editable:
            closed[start:end] = False
    for expression in expressions:
        for match in re.finditer(expression, text):
            closed[match.start() : match.end()] = True
    before = np.concatenate([[0], np.cumsum(closed)])
    starts = np.minimum(offsets[:, 0], np.concatenate([[0], offsets[:-1, 1]])[: len(offsets)])
    return protected | (before[offsets[:, 1]] > before[starts])
