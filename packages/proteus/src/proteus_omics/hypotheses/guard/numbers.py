"""Numbers of a text: what they are said to be, and whether a value is one of them (section 2.8)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

NUMBER = re.compile(
    r"(?<![\w.])[-\u2212+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w,]*\d)"
    r"|(?<![\w.])[-\u2212+]?(?:\d+\.\d+|\d+|\.\d+)"
    r"(?:[eE][-\u2212+]?\d+|\s?[x\u00d7]\s?10\s?\^?\s?[-\u2212]?\d+)?"
)
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NOUN = (
    r"(?:gene sets?|pathways?|proteins?|genes?|markers?|sets?|terms?|modules?|populations?|hits?|samples?|"
    r"interactions?|edges?|events?|cells?)"
)
WORD_COUNT = re.compile(rf"\b({'|'.join(WORDS)})\b(?=\s+(?:[a-z]+\s+)?{NOUN}\b)", re.IGNORECASE)
COUNTED = re.compile(rf"\s+(?:of\s+)?(?:(?!of\b|in\b)[a-z\-]+\s+){{0,2}}?({NOUN})\b", re.IGNORECASE)
TENS: Mapping[str, int] = {"twenty": 20, "thirty": 30, "fifty": 50, "hundred": 100, "thousand": 1000}
MULTIPLES = {word: number for number, word in enumerate(WORDS, start=1)} | dict(TENS)
MULTIPLIED: Mapping[str, int] = {"doubl": 2, "tripl": 3, "trebl": 3, "quadrupl": 4, "halv": 2, "twice": 2}
FOLD_WORD = re.compile(
    rf"\b(?P<times>{'|'.join(MULTIPLES)})(?:-?fold\b|\s+fold\b(?!\s*change)"
    r"|\s+times\s+(?=(?:more|less|higher|lower|greater|smaller|as|the)\b))"
    r"|\b(?P<verb>doubl|tripl|trebl|quadrupl|halv)(?:ed|es|ing)\b|\b(?P<twice>twice)(?=\s+(?:as|the)\b)",
    re.IGNORECASE,
)
LABEL = re.compile(r"\b(?:figures?|figs?\.?|tables?|panels?)\s*$", re.IGNORECASE)
LOGARITHM = re.compile(r"\blog\s*$", re.IGNORECASE)
INTERVAL = re.compile(r"\s*%\s*(?:CI|confidence)", re.IGNORECASE)
IS = r"(?:[\s-]?values?)?\s*(?:of|is|was|at|by)?\s*[=:(<>\u2264\u2265~]?\s*$"
ESTIMATES = ("log2fc", "difference", "coef", "nes", "r", "rho", "estimate", "logFC")
"""Estimates with a sign, in the order in which a table is looked for them."""
QUANTITIES: Sequence[tuple[str, tuple[str, ...], re.Pattern[str]]] = tuple(
    (name, columns, re.compile(f"(?:{words}){IS}", flags))
    for name, columns, words, flags in (
        ("q", ("q_value",), r"\bq|\bFDR|\badjusted p|\bpadj", re.I),
        ("p", ("p_value",), r"(?<!adjusted )\bp", re.I),
        (
            "log2 fold change",
            ("log2fc", "difference", "logFC"),
            r"log2[ -]?(?:fold[ -]?change|FC|ratio)",
            re.I,
        ),
        ("difference", ("log2fc", "difference"), r"\bdifference", re.I),
        ("hazard ratio", ("hr",), r"hazard ratio|\bHR", 0),
        ("coefficient", ("coef",), r"\bcoefficient", re.I),
        ("correlation", ("r", "rho"), r"\br|\bcorrelation(?: coefficient)?", 0),
        ("rho", ("rho", "r"), r"\brho|\u03c1", re.I),
        ("enrichment score", ("nes",), r"normali[sz]ed enrichment score|\bNES", re.I),
        ("odds ratio", ("odds_ratio",), r"odds ratio|\bOR", 0),
        ("t", ("t", "z", "statistic"), r"\bt|\bz|moderated t|t[ -]statistic", 0),
        ("log-odds", ("b",), r"\bB|log[- ]odds", 0),
        ("sign stability", ("sign_stability",), r"sign stability", re.I),
        ("kME", ("kme",), r"\bkME", re.I),
        ("mean", ("ave_expr", "median"), r"\bmean intensity|\bmedian", re.I),
        ("degree", ("degree",), r"\bdegree", re.I),
        ("n", ("n", "n_valid", "n_samples", "n_alt", "n_ref"), r"\bn", 0),
    )
)
SHARE = re.compile(r"\bshares?(?: of)?\s*[=:(]?\s*(?:[\d.]+ (?:%\s*)?and )?$", re.I)
LOW = re.compile(r"\b(?:CI|confidence interval)\W*$", re.I)
HIGH = re.compile(r"\b(?:CI|confidence interval)\W*[-\u2212\d.]+\s*(?:to|,|;|\u2013|-)\s*$", re.I)
COMPARED = re.compile(r"([<>\u2264\u2265])\s*$")
BOUND = re.compile(r"(?:\bq|\bFDR)\s*<\s*(\d*\.?\d+(?:[eE]-?\d+)?)", re.I)
COUNT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "interaction": ("n_edges", "degree"),
    "edge": ("n_edges", "degree"),
    "sample": ("detected_alt", "detected_ref", "n_alt", "n_ref", "n_valid", "n", "n_samples"),
    "event": ("n_events",),
    "cell": ("n_cells",),
    "gene": ("n_overlap", "n_set", "n_hits", "n", "n_in_network"),
    "protein": ("n_tested", "n_hits", "n_overlap", "n_in_network"),
}


@dataclass(frozen=True)
class Number:
    """A number in a text."""

    start: int
    end: int
    value: float
    digits: int
    """Digits after the point, of the mantissa where there is an exponent."""
    exponent: int
    quantity: str
    """`q`, `p`, `fold`, `percent`, `count`, `any`, or another that the words before it name."""
    columns: tuple[str, ...] = ()
    relation: str = "="
    signed: bool = False
    by: bool = False
    """Whether it is a size ("by 0.53"), of which the direction is said in words."""
    noun: str = ""
    part: str = ""
    """`of` for the k of "k of n", `whole` for its n."""


def numbers(text: str, covered: Sequence[tuple[int, int]]) -> Iterator[Number]:
    """Numbers outside the covered spans, also folds in words; what claims nothing is left out.

    That are labels (Figure 2), the bases of logarithms (log 2) and the coverage of intervals (95 % CI).
    """
    hidden = list(text)
    for start, end in covered:
        hidden[start:end] = "\u00b7" * (end - start)
    plain = "".join(hidden)
    for match in NUMBER.finditer(plain):
        if not _claims_nothing(plain, match):
            yield _number(plain, match)
    for match in FOLD_WORD.finditer(plain):
        times = MULTIPLES.get((match["times"] or "").lower())
        value = times or MULTIPLIED[(match["verb"] or match["twice"]).lower()]
        yield Number(*match.span(), value, 0, 0, "fold")
    for match in WORD_COUNT.finditer(plain):
        noun = COUNTED.match(plain, match.end())
        value = WORDS.index(match[1].lower()) + 1
        yield Number(*match.span(), value, 0, 0, "count", noun=_noun(noun[1]) if noun else "")


def _claims_nothing(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 12) : match.start()]
    if LABEL.search(before):
        return match[0].isdigit()
    if LOGARITHM.search(before):
        return match[0] in ("2", "10")
    return match[0] == "95" and bool(INTERVAL.match(text, match.end()))


def _number(text: str, match: re.Match[str]) -> Number:
    raw = match[0].replace("\u2212", "-").replace(",", "")
    before, after = text[max(0, match.start() - 45) : match.start()], text[match.end() : match.end() + 40]
    mantissa, exponent = _parts(raw)
    compared = COMPARED.search(before)
    quantity, columns = _quantity(before)
    noun = ""
    if re.match(r"[- ]?(?:fold\b(?!\s*change)|times\b)", after):
        quantity, columns = "fold", ()
    elif re.match(r"\s?(?:%|per ?cent)", after):
        quantity, columns = "percent", columns if quantity == "share" else ()
    part = "of" if re.match(r"\s+of\s+(?:the\s+)?\d", after) else ""
    part = "whole" if re.search(r"\d\s+of\s+(?:the\s+)?$", before) else part
    counted = COUNTED.match(after) if not part else COUNTED.search(after)
    if quantity == "any" and exponent == 0 and "." not in mantissa and (counted or part):
        quantity, noun = "count", _noun(counted[1]) if counted else ""
    return Number(
        *match.span(),
        float(Decimal(mantissa) * Decimal(10) ** exponent),
        len(mantissa.partition(".")[2]),
        exponent,
        quantity,
        columns,
        compared[1] if compared else "=",
        raw[0] in "+-",
        bool(re.search(r"\bby (?:a |an )?(?:log2 [a-z ]+of )?(?:about )?$", before)),
        noun,
        part,
    )


def _quantity(before: str) -> tuple[str, tuple[str, ...]]:
    if LOW.search(before):
        return "lower bound", ("ci_low",)
    if HIGH.search(before):
        return "upper bound", ("ci_high",)
    if SHARE.search(before):
        return "share", ("share_alt", "share_ref", "share")
    for name, columns, pattern in QUANTITIES:
        if pattern.search(before):
            return name, columns
    return "any", ()


def _noun(word: str) -> str:
    low = word.lower()
    if low.startswith(("gene set", "pathway", "set", "term")):
        return "term"
    return "protein" if low.startswith(("hit", "marker")) else low.rstrip("s")


def _parts(raw: str) -> tuple[str, int]:
    split = re.split(r"[eE]|\s?[x\u00d7]\s?10\s?\^?\s?", raw, maxsplit=1)
    return split[0].lstrip("+"), int(split[1]) if len(split) > 1 else 0


def states(number: Number, value: float) -> bool:
    """Whether `value`, rounded half up or half even to the digits shown, is the number; keeps its bound."""
    if not math.isfinite(value):
        return False
    if number.relation != "=":
        return {
            "<": value < number.value,
            "\u2264": value <= number.value,
            ">": value > number.value,
            "\u2265": value >= number.value,
        }[number.relation]
    place = Decimal(1).scaleb(number.exponent - number.digits)
    exact = Decimal(repr(float(value)))
    if abs(exact - Decimal(repr(number.value))) > place:
        return False
    stated = Decimal(repr(number.value)).quantize(place)
    return any(exact.quantize(place, rounding=how) == stated for how in (ROUND_HALF_UP, ROUND_HALF_EVEN))
