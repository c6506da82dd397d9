"""Numbers of a text: what they are said to be, and whether a value is that number (section 2.8)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Literal

Quantity = Literal["q", "p", "estimate", "fold", "percent", "count", "any"]

NUMBER = re.compile(
    r"(?<![\w.])[-\u2212+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)"
    r"|(?<![\w.])[-\u2212+]?(?:\d+\.\d+|\d+|\.\d+)(?:[eE][-\u2212+]?\d+|\s?[x\u00d7]\s?10\^?[-\u2212]?\d+)?"
)
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
WORD_COUNT = re.compile(
    rf"\b({'|'.join(WORDS)})\b(?=\s+(?:\w+\s+)?(?:proteins?|genes?|sets?|modules?|populations?|hits?|samples?|interactions?))",
    re.IGNORECASE,
)
COUNTED = re.compile(
    r"\s*(?:known |significant |upregulated |downregulated |more |of )?"
    r"(?:proteins?|genes?|hits?|gene sets?|sets|interactions?|samples?|populations?)\b"
)
EXEMPT_BEFORE = re.compile(r"(?:log|figure|fig\.?|table|panel|step|analysis)\s*$", re.IGNORECASE)
INTERVAL = re.compile(r"\s*%\s*(?:CI|confidence)", re.IGNORECASE)
BEFORE: Sequence[tuple[Quantity, re.Pattern[str]]] = (
    (
        "q",
        re.compile(
            r"(?:\bq|\bFDR|adjusted p|q-?value)(?:-?\s?values?)?\s*(?:of|is|was)?\s*[=<>\u2264\u2265]?\s*$",
            re.I,
        ),
    ),
    ("p", re.compile(r"\bp(?:-?\s?values?)?\s*(?:of|is|was)?\s*[=<>\u2264\u2265]?\s*$", re.I)),
    (
        "estimate",
        re.compile(
            r"(?:log2[ -]?(?:fold[ -]?change|FC|ratio)?|\br|\brho|difference|coefficient|hazard ratio|"
            r"enrichment score|NES|odds ratio|share)\s*(?:of|is|was|by)?\s*[=:]?\s*$",
            re.I,
        ),
    ),
)
COMPARED = re.compile(r"([<>\u2264\u2265])\s*$")


@dataclass(frozen=True)
class Number:
    """A number in a text."""

    start: int
    end: int
    value: float
    digits: int
    """Digits after the point, of the mantissa where there is an exponent."""
    exponent: int
    quantity: Quantity
    relation: str = "="
    phrase: str = ""
    """What it is said to be, in the words before it."""


def numbers(text: str, covered: Sequence[tuple[int, int]], alpha: float) -> Iterator[Number]:
    """Numbers outside the covered spans, without those that claim nothing (95 % CI, log2, alpha)."""
    hidden = list(text)
    for start, end in covered:
        hidden[start:end] = "\u00b7" * (end - start)
    plain = "".join(hidden)
    for match in NUMBER.finditer(plain):
        found = _number(plain, match, alpha)
        if found is not None:
            yield found
    for match in WORD_COUNT.finditer(plain):
        value = WORDS.index(match[1].lower()) + 1
        yield Number(
            match.start(),
            match.end(),
            value,
            0,
            0,
            "count",
            "=",
            plain[max(0, match.start() - 40) : match.start()],
        )


def _number(text: str, match: re.Match[str], alpha: float) -> Number | None:
    raw = match[0].replace("\u2212", "-").replace(",", "")
    before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() :]
    if EXEMPT_BEFORE.search(before) or INTERVAL.match(after) or before.endswith("log"):
        return None
    mantissa, exponent = _parts(raw)
    value = float(Decimal(mantissa) * Decimal(10) ** exponent)
    compared = COMPARED.search(before)
    relation = compared[1] if compared else "="
    if relation in "<\u2264>\u2265" and math.isclose(value, alpha):
        return None
    quantity: Quantity = next((name for name, pattern in BEFORE if pattern.search(before)), "any")
    if re.match(r"[- ]?fold\b(?!\s*change)", after):
        quantity = "fold"
    elif re.match(r"\s?(?:%|per ?cent)", after):
        quantity = "percent"
    elif quantity == "any" and COUNTED.match(after):
        quantity = "count"
    digits = len(mantissa.partition(".")[2])
    return Number(match.start(), match.end(), value, digits, exponent, quantity, relation, before)


def _parts(raw: str) -> tuple[str, int]:
    split = re.split(r"[eE]|\s?[x\u00d7]\s?10\^?", raw, maxsplit=1)
    return split[0].lstrip("+"), int(split[1]) if len(split) > 1 else 0


def states(number: Number, value: float) -> bool:
    """Whether `value` rounds (half up or half even) to the number as shown, or is below or above it."""
    if not math.isfinite(value):
        return False
    if number.relation in "<\u2264":
        return value < number.value
    if number.relation in ">\u2265":
        return value > number.value
    place = Decimal(1).scaleb(number.exponent - number.digits)
    stated = Decimal(repr(number.value)).quantize(place)
    exact = Decimal(repr(float(value)))
    return any(exact.quantize(place, rounding=how) == stated for how in (ROUND_HALF_UP, ROUND_HALF_EVEN))
