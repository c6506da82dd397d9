"""Changed statements, and a second opinion on whether they are still true (criterion C5).

The second opinion knows the templates of the rules and reads the tables with plain pandas; it shares nothing
with the guard.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

OPPOSITE = {
    "increased": "decreased", "decreased": "increased", "higher": "lower", "lower": "higher", "more": "less",
    "less": "more", "positively": "negatively", "negatively": "positively",
}  # fmt: skip
KINDS = ("number", "direction", "entity", "contrast", "significance")
"""What `mutants` changes in a statement."""
UP = ("increased", "higher", "more", "positively")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w])")
CLAIMS = re.compile(
    r"^(?:In (?P<population>.+), )?(?:The gene set |Module )?(?P<entity>\S+) is (?P<no>not significantly )?"
    r"(?:(?P<word>increased|decreased|higher|lower)|(?:detected |correlated )?(?P<other>more|less|positively|"
    r"negatively)(?: often)?) (?:in|with) (?P<alt>.+?)(?: \((?P<seen>\d+) of (?P<all>\d+) samples\))?"
    r"(?: (?:compared with|than in) (?P<ref>.+?)(?: \((?P<seen_ref>\d+) of (?P<all_ref>\d+) samples\),)?)?"
    r" ?(?:\((?:log2 fold change|difference|normalised enrichment score|r =|rho =) (?P<x>-?[\d.]+),)? ?"
    r"q = (?P<q>[\d.e-]+)\)?\.$"
)
TABLES = {
    "de": ("protein", "log2fc"),
    "detection": ("protein", "difference"),
    "gsea": ("term", "nes"),
    "module_trait": ("module", "r"),
    "traits": ("protein", "rho"),
    "state_de": ("protein", "log2fc"),
}


def mutants(
    statement: str, others: Sequence[str], levels: Sequence[str], draw: random.Random
) -> Iterator[tuple[str, str]]:
    """Up to five changed statements, one of each of `KINDS`, as (kind, statement).

    `others` are entities of the same table, `levels` those of the condition.
    """
    match = CLAIMS.match(statement)
    if match is None:
        return
    number = draw.choice([one for one in NUMBER.finditer(statement) if one.start() > match.end("entity")])
    yield "number", statement[: number.start()] + _other_number(number[0], draw) + statement[number.end() :]
    word = match["word"] or match["other"]
    yield "direction", statement.replace(f" {word} ", f" {OPPOSITE[word]} ", 1)
    rest = [name for name in others if name != match["entity"]]
    if rest:
        start, end = match.span("entity")
        yield "entity", statement[:start] + draw.choice(rest) + statement[end:]
    alt, ref = match["alt"], match["ref"]
    if ref is not None:
        other = draw.choice([level for level in levels if level != alt])
        new = (ref, alt) if other == ref else (other, ref)
        yield "contrast", _with_levels(statement, match, *new)
        yield "significance", statement.replace(f" is {word} ", f" is not significantly {word} ", 1)


def _other_number(text: str, draw: random.Random) -> str:
    """The number with its last shown digit, or one before it, changed."""
    mantissa, _, exponent = text.partition("e")
    places = [at for at, letter in enumerate(mantissa) if letter.isdigit()]
    at = places[-1] if draw.random() < 0.5 else draw.choice(places)
    digit = str((int(mantissa[at]) + draw.randint(1, 9)) % 10)
    return mantissa[:at] + digit + mantissa[at + 1 :] + (f"e{exponent}" if exponent else "")


def _with_levels(statement: str, match: re.Match[str], alt: str, ref: str) -> str:
    (a, b), (c, d) = match.span("alt"), match.span("ref")
    return statement[:a] + alt + statement[b:c] + ref + statement[d:]


def is_true(statement: str, tables: Mapping[str, pd.DataFrame], alpha: float = 0.05) -> bool:
    """Whether a row of a table bears the statement out; False for what is no sentence of a template."""
    match = CLAIMS.match(statement)
    if match is None:
        return False
    for name, (key, estimate) in TABLES.items():
        if name in tables:
            for row in _rows(tables[name], key, match):
                if _bears(row, match, estimate, alpha, name):
                    return True
    return False


def _rows(table: pd.DataFrame, key: str, match: re.Match[str]) -> Iterator[pd.Series]:
    entity = match["entity"]
    keep = table[key].astype(str) == entity
    if "gene" in table:
        keep |= table["gene"].astype(str) == entity
    if "population" in table:
        keep &= table["population"].astype(str) == match["population"]
    yield from (row for _, row in table[keep].iterrows())


def _bears(row: pd.Series, match: re.Match[str], estimate: str, alpha: float, table: str) -> bool:
    alt, ref, value = match["alt"], match["ref"], float(row[estimate])
    sign = 1
    if ref is None:
        if str(row.get("trait")) != alt:
            return False
    elif row.get("contrast") == f"{ref}_vs_{alt}":
        sign = -1
    elif row.get("contrast") != f"{alt}_vs_{ref}":
        return False
    up = (match["word"] or match["other"]) in UP
    if match["no"]:
        return not row["q_value"] < alpha
    if np.sign(value) * sign != (1 if up else -1):
        return False
    if match["x"] is not None and f"{value:.2f}" != match["x"]:
        return False
    if match["seen"] is not None:
        shown = tuple(map(int, match.group("seen", "all", "seen_ref", "all_ref")))
        if shown != tuple(int(row[name]) for name in ("detected_alt", "n_alt", "detected_ref", "n_ref")):
            return False
    elif table == "detection":
        return False
    return f"{row['q_value']:.2g}" == match["q"]
