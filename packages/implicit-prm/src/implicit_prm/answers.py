r"""The final answer of a worked solution, and whether two answers are the same.

    same_answer("\\frac{1}{2}", "0.5")    True: both are the number 1/2
    same_answer("x^2+2x+1", "(x+1)^2")    True with math-verify (pip install 'implicit-prm[math]'), else False

Without math-verify answers are the same if they are written alike, notation aside, or are the same number.
A comma before three digits is one of thousands ("1,100" is 1100) where there are no brackets: "(1,100)" is a
point, "1, 100" two numbers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

SECONDS = 5
"""What math-verify may take to read an answer, and again to compare two."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_PHRASE = re.compile(r"\banswer\b[ \t*]*(?:is|[:=])[ \t*:]*(\S[^\n]*)", re.IGNORECASE)
_LAST_LINE = re.compile(r"^A:[ \t]*(\S[^\n]*)\s*\Z", re.MULTILINE)


def extract_answer(text: str) -> str | None:
    r"""The final answer of a solution, or None where none is marked.

    Looked for in this order, the last of a kind: `\boxed{...}`; `#### ...`; "the answer is ..." or
    "Answer: ..."; a last line `A: ...`. An unmarked last number is not taken for an answer.
    """
    if (boxed := boxed_answer(text)) is not None:
        return boxed or None
    if hashes := _HASHES.findall(text):
        return hashes[-1].strip()
    if phrases := _PHRASE.findall(text):
        return _sentence(phrases[-1])
    if last_line := _LAST_LINE.search(text):
        return _sentence(last_line[1])
    return None


def boxed_answer(text: str) -> str | None:
    r"""What the last `\boxed{...}` or `\fbox{...}` that is closed holds, or None where there is none."""
    boxed = [inside for found in _BOX.finditer(text) if (inside := _in_braces(text, found.end())) is not None]
    return boxed[-1].strip() if boxed else None


def same_answer(answer: str | None, reference: str | None, *, seconds: int | None = SECONDS) -> bool:
    """Are these the same answer? None is the same as nothing.

    Of two integers, of two words and of what is written alike, notation aside, that is plain; the rest is
    judged by math-verify where it is installed. It is stopped after `seconds` in the main thread only: a
    thread that compares answers of unknown origin needs a limit of its own. None sets no limit.
    """
    if answer is None or reference is None:
        return False
    a, b = _plain(answer), _plain(reference)
    if a == b:
        return bool(a)
    x, y = _number(a), _number(b)
    if x is not None and y is not None and (x == y or (x.denominator == y.denominator == 1)):
        return x == y
    if _is_words(a) or _is_words(b) or not a or not b:  # math-verify reads "no" as n times o, which is "on"
        return False
    return _math_verify() is not None and _verified(answer, reference, seconds)


def grade(solution: str, reference: str) -> bool:
    """Is the final answer of a solution right? The reference is an answer, or a solution that marks one."""
    marked = extract_answer(reference)
    return same_answer(extract_answer(solution), reference if marked is None else marked)


def group_answers(answers: Sequence[Hashable | None]) -> npt.NDArray[np.int64]:
    """A number for each answer [N], from 0 in the order of first appearance, the same for same answers.

    None, a response without an answer, is -1. Strings are compared by `same_answer` with the first answer of
    each group; other values, integers for instance, by equality.
    """
    numbers: dict[Hashable, int] = {}
    firsts: list[str | None] = []
    groups = np.empty(len(answers), dtype=np.int64)
    for place, answer in enumerate(answers):
        if answer is None:
            groups[place] = -1
            continue
        key = _plain(answer) if isinstance(answer, str) else (answer,)
        if key not in numbers:
            numbers[key] = _group_of(answer, firsts)
        groups[place] = numbers[key]
    return groups


def _group_of(answer: Hashable, firsts: list[str | None]) -> int:
    """The group that has this answer; a new one is added to `firsts`."""
    if isinstance(answer, str):
        for number, first in enumerate(firsts):
            if same_answer(answer, first):
                return number
    firsts.append(answer if isinstance(answer, str) else None)
    return len(firsts) - 1


def _in_braces(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes the one before it; None if nothing does."""
    depth, place = 1, start
    while place < len(text):
        if text[place] == "\\":  # \{ and \} are braces of the answer itself
            place += 1
        elif text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return text[start:place]
        place += 1
    return None


def _sentence(line: str) -> str | None:
    """The line's first sentence, without its stop and without emphasis."""
    first = re.split(r"(?<=[^.])\.(?=\s|$)", line, maxsplit=1)[0]
    return first.strip().strip("*").strip() or None


_NOTATION = (
    (re.compile(r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\[!,;: ]|~"), ""),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"(?<=[\d}])\s*\\(?:text|mbox|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?$"), ""),  # a unit
    (re.compile(r"\\(?:text|textbf|mbox|mathrm|mathbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|°"), ""),
    (re.compile(r"\\?[$%]"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3}(?:\D|$))"), ""),
)
# Not a part of "1234,567" or "1,234,5", which are lists.
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_BRACKETS = re.compile(r"[(\[]|\\\{|\\langle(?![A-Za-z])")
_UNIT_IN_WORDS = re.compile(r"(-?[\d./]+)\s+[A-Za-z]{2}[A-Za-z ]*")
_OF_A_VARIABLE = re.compile(r"[A-Za-z]\s*(?:=|\\in(?![A-Za-z]))\s*(?=\S)")
_NUMBER = re.compile(r"([+-]?)(?:(\d+\.?\d*|\.\d+)(?:/(\d+))?|\\frac\{([+-]?\d+)\}\{(\d+)\})")
_WORDS = re.compile(r"[a-z][a-z'-]+")


@lru_cache(maxsize=1 << 16)
def _plain(answer: str) -> str:
    """The answer without what only concerns its looks: spaces, LaTeX's layout, units, thousands' commas."""
    plain = answer.strip()
    for pattern, instead in _NOTATION:
        while (shorter := pattern.sub(instead, plain)) != plain:
            plain = shorter
    if not _BRACKETS.search(plain):  # a point, an interval and a set have commas of their own
        plain = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), plain)
    plain = plain.strip().rstrip(".").rstrip()
    if found := _OF_A_VARIABLE.match(plain):
        plain = plain[found.end() :]
    if found := _UNIT_IN_WORDS.fullmatch(plain):
        plain = found[1]
    plain = re.sub(r"\s+", "", plain)
    if found := re.fullmatch(r"\(([A-Za-z])\)", plain):  # a choice
        plain = found[1]
    return plain.lower() if _is_words(plain.lower()) else plain


def _is_words(plain: str) -> bool:
    return _WORDS.fullmatch(plain) is not None


def _number(plain: str) -> Fraction | None:
    """The number that this is, exactly: an integer, a decimal or a fraction of two; else None."""
    found = _NUMBER.fullmatch(plain)
    if found is None:
        return None
    above, below = Fraction(found[2] or found[4]), int(found[3] or found[5] or 1)
    if below == 0:
        return None
    return (-above if found[1] == "-" else above) / below


@cache
def _math_verify() -> Any:
    """The module, which takes a second to import; None where it is not installed."""
    if find_spec("math_verify") is None:
        return None
    import math_verify

    return math_verify


@lru_cache(maxsize=1 << 14)
def _parsed(answer: str, seconds: int | None) -> Any:
    bare = answer.strip().strip("$").strip()
    return _math_verify().parse(f"${bare}$", parsing_timeout=seconds)


@lru_cache(maxsize=1 << 16)
def _verified(answer: str, reference: str, seconds: int | None) -> bool:
    # Its limit is an alarm signal, which Python delivers to the main thread alone.
    seconds = seconds if threading.current_thread() is threading.main_thread() else None
    gold, target = _parsed(reference, seconds), _parsed(answer, seconds)
    return bool(gold and target and _math_verify().verify(gold, target, timeout_seconds=seconds))
