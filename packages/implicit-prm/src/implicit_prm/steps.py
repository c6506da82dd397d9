"""Where the steps of a response end: splitters of its text, and the tokens that fall into each step (2.4)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Protocol, TypeAlias

from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a response: its text, and the characters [start, end) where it stands."""

    text: str
    start: int
    end: int


class StepSplitter(Protocol):
    """A splitter of one's own: the character spans [start, end) of a text's steps, in order."""

    def __call__(self, text: str, /) -> Sequence[Span]:
        """The spans; what they leave between them belongs to the step before."""
        ...


SplitBy: TypeAlias = str | StepSplitter | Sequence[Span]
"""A splitter's name, "regex:<pattern>", a splitter of one's own, or the spans themselves."""

STEP_HEADER = re.compile(r"Step \d+:")
"""What the official evaluation splits at."""

# Atomic, as "\r\n" is one line end and would otherwise pass for two.
_NEWLINE = r"(?>\r\n|\r|\n)"
_BLANK_LINE = re.compile(rf"{_NEWLINE}(?:[^\S\r\n]*{_NEWLINE})+")
_LINE_END = re.compile(_NEWLINE)
_SENTENCE_END = re.compile(r"[.!?][\"')\]\u201d\u2019]*\s+|[\u3002\uff01\uff1f]\s*|[\r\n]\s*")
# With the marks of a heading or of bold type that stand before the header on its line.
_HEADER_START = re.compile(r"(?:^[ \t#*>_-]+)?" + STEP_HEADER.pattern, re.MULTILINE)
# Nothing, or only what announces a step: "Step 3:", "## Step 3:", "2.", "-".
_BARE = re.compile(rf"[\s#*>_-]*+(?:{STEP_HEADER.pattern}|\d+[.)])?[\s#*>_-]*+")


def _after(pattern: re.Pattern[str]) -> Callable[[str], list[int]]:
    return lambda text: [found.end() for found in pattern.finditer(text)]


def _before(pattern: re.Pattern[str]) -> Callable[[str], list[int]]:
    return lambda text: [found.start() for found in pattern.finditer(text)]


# Each gives the positions at which a text is cut. What separates two steps belongs to the one before it.
_CUTS: dict[str, Callable[[str], list[int]]] = {
    "paragraph": _after(_BLANK_LINE),
    "line": _after(_LINE_END),
    "step_header": _before(_HEADER_START),
    "sentence": _after(_SENTENCE_END),
}


def split_steps(
    text: str, how: SplitBy = "paragraph", offsets: Sequence[Span] | None = None
) -> list[tuple[int, int]]:
    """The character spans of a response's steps. They partition the text: no gap, no overlap, none empty.

    how      "paragraph" (a blank line ends a step), "line", "step_header" (`Step n:` begins one),
             "sentence", "token" (needs the tokens' `offsets`; tokens of one character are one step),
             "regex:<pattern>" (a step ends where a match ends; a lookahead ends it before one),
             a `StepSplitter`, or the spans themselves
    offsets  character span of every token

    Separators belong to the step before them. Pieces that are empty or only a header ("Step 3:", "2.") are
    part of the step after them, the last one of the step before; not so for spans and splitters of one's
    own, whose gaps belong to the step before. Text without a match is one step, with a warning.

    Raises `ImplicitPRMError` for an unknown name, a pattern that does not compile, "token" without offsets,
    and spans that are out of order or outside the text.
    """
    if not isinstance(how, str):
        spans = how(text) if callable(how) else how
        return _partition(text, _checked_starts(text, spans)[1:])
    if how == "token":
        if offsets is None:
            raise ImplicitPRMError(
                'steps="token" needs the tokens: give their character offsets as `offsets`'
            )
        return _partition(text, (start for start, _ in offsets))
    spans = _merged(text, _partition(text, _cuts(how)(text)))
    if len(spans) == 1:
        message = f"no boundary of steps={how!r} in a response: all of it is one step (said once)"
        warnings.warn(message, ImplicitPRMWarning, stacklevel=2)
    return spans


def step_token_ends(offsets: Sequence[Span], spans: Sequence[Span]) -> list[int]:
    """Inclusive index of the last token of each step: the `step_ends` of `functional.step_rewards`.

    `offsets` are the character spans of T >= 1 tokens, `spans` those of the steps, which partition the text.
    A token belongs to the step in which its span begins, tokens at the text's end (EOS) to the last one. A
    step in which no token begins has no entry: its characters are those of the token before it. So the
    result has at most as many entries as there are spans, and always ends with T - 1.
    """
    return [end for end, _ in _tokens_of_steps(offsets, spans)]


def token_steps(
    text: str, offsets: Sequence[Span], how: SplitBy = "paragraph", *, truncated: bool = False
) -> tuple[list[Step], list[int]]:
    """The steps of a tokenised response, and the inclusive index of the last token of each: S of both.

    As `split_steps` and `step_token_ends`; a step in which no token begins is merged into the one before it
    (the first one into the one after it), so that every step has tokens and the texts still join to `text`.
    Spans given for a text that was `truncated` end where it ends.
    """
    if truncated and not isinstance(how, str) and not callable(how):
        how = [(start, min(end, len(text))) for start, end in how if start < len(text)]
    spans = split_steps(text, how, offsets)
    found = _tokens_of_steps(offsets, spans)
    starts = [0, *(start for _, start in found[1:])]
    bounds = zip(starts, [*starts[1:], len(text)], strict=True)
    return [Step(text[start:end], start, end) for start, end in bounds], [end for end, _ in found]


def join_steps(steps: Sequence[str], separator: str = "\n\n") -> tuple[str, list[tuple[int, int]]]:
    """Steps given one by one (ProcessBench) as one text, and their spans; a separator ends its step."""
    ends, at = [], 0
    for step in steps:
        at += len(step) + len(separator)
        ends.append(at)
    text = separator.join(steps)
    return text, [(start, min(end, len(text))) for start, end in zip([0, *ends], ends, strict=False)]


def _cuts(how: str) -> Callable[[str], list[int]]:
    if how.startswith("regex:"):
        pattern = how.removeprefix("regex:")
        try:
            return _after(re.compile(pattern))
        except re.error as error:
            raise ImplicitPRMError(f"steps={how!r}: the pattern is no regular expression: {error}") from error
    if how not in _CUTS:
        names = ", ".join(repr(name) for name in (*_CUTS, "token", "regex:<pattern>"))
        raise ImplicitPRMError(f"steps={how!r} is unknown; allowed: {names}, a function or spans")
    return _CUTS[how]


def _partition(text: str, cuts: Iterable[int]) -> list[Span]:
    """The pieces of a text cut at these positions, in any order; an empty text is one empty piece."""
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(text)}), len(text)]
    return list(pairwise(bounds))


def _merged(text: str, pieces: list[Span]) -> list[Span]:
    spans: list[Span] = []
    begun = 0
    for start, end in pieces:
        if not _BARE.fullmatch(text, start, end):
            spans.append((begun, end))
            begun = end
    if not spans:
        return [(0, len(text))]
    spans[-1] = (spans[-1][0], len(text))
    return spans


def _checked_starts(text: str, spans: Sequence[Span]) -> list[int]:
    if not spans:
        raise ImplicitPRMError(
            "a response needs at least one step, and its splitter or list of spans has none"
        )
    reached = 0
    for span in spans:
        try:
            start, end = map(index, span)
        except (TypeError, ValueError):
            raise ImplicitPRMError(
                f"{span!r} is no step span; spans are (start, end), two places in the text"
            ) from None
        if not reached <= start < end <= len(text):
            raise ImplicitPRMError(
                f"step span ({start}, {end}) does not fit: spans are (start, end) with start < end, in order "
                f"and without overlap; this one may begin at {reached} or later and end by {len(text)}"
            )
        reached = end
    return [start for start, _ in spans]


def _tokens_of_steps(offsets: Sequence[Span], spans: Sequence[Span]) -> list[tuple[int, int]]:
    """(last token, first character) of every step that has tokens."""
    found: list[tuple[int, int]] = []
    step, current = 0, -1
    for token, (begins, _) in enumerate(offsets):
        while step < len(spans) - 1 and begins >= spans[step][1]:
            step += 1
        if step == current:
            found[-1] = (token, found[-1][1])
        else:
            found.append((token, spans[step][0]))
            current = step
    return found
