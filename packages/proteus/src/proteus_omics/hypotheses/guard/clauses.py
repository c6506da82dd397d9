"""Clauses: a number or a direction is of the names beside it (section 2.8, rule 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

SENTENCE = re.compile(r"(?<!vs)(?<!\bal)[.!?]+(?=\s+\S|\s*$)|\n+")
CLAUSE = re.compile(r";|,?\s+\b(?:while|whereas|but|although)\b", re.I)
JOINT = re.compile(r",?\s+and\s+|,\s+")
Span = tuple[int, int]


def sentences(text: str, covered: list[Span]) -> Iterator[Span]:
    """Sentences; a point in a name or a number ends none."""
    yield from _pieces(text, (0, len(text)), SENTENCE, lambda at: _inside(at, covered), True)


def clauses(text: str, sentence: Span, asserts: Callable[[Span], bool]) -> Iterator[Span]:
    """Parts of a sentence at `;`, while, whereas, but; at `and` or a comma where both sides assert something.

    Nothing within brackets splits: "(log2 fold change 1.8; q = 0.01)" is one claim.
    """
    bracketed = list(_brackets(text, sentence))
    for clause in _pieces(text, sentence, CLAUSE, lambda at: _inside(at, bracketed), False):
        start, end = clause
        for match in JOINT.finditer(text, start, end):
            if _inside(match.start(), bracketed):
                continue
            if asserts((start, match.start())) and asserts((match.end(), end)):
                yield start, match.start()
                start = match.end()
        yield start, end


def _pieces(
    text: str, span: Span, at: re.Pattern[str], skip: Callable[[int], bool], keep: bool
) -> Iterator[Span]:
    start = span[0]
    for match in at.finditer(text, *span):
        if skip(match.start()):
            continue
        end = match.end() if keep else match.start()
        if text[start:end].strip():
            yield start, end
        start = match.end()
    if text[start : span[1]].strip():
        yield start, span[1]


def _brackets(text: str, span: Span) -> Iterator[Span]:
    opened: list[int] = []
    for at in range(*span):
        if text[at] in "([":
            opened.append(at)
        elif text[at] in ")]" and opened:
            yield opened.pop(), at + 1


def _inside(at: int, spans: list[Span]) -> bool:
    return any(start <= at < end for start, end in spans)
