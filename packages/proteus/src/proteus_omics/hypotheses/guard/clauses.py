"""Clauses, and what their words claim: direction, contrast, significance, extremes (section 2.8)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proteus_omics.hypotheses.guard.vocabulary import Mention, Vocabulary

SPLIT = re.compile(
    r";|(?<=[a-z0-9)%])[.!?](?=\s+[^a-z]|\s*$)|,?\s+\b(?:while|whereas|although|but)\b", re.IGNORECASE
)
UP = r"increas\w*|elevat\w*|higher|up-?regulat\w*|raised|rises?|more|gain\w*|positiv\w*|shorter|\bup\b"
DOWN = r"decreas\w*|reduc\w*|lower(?:ed)?|down-?regulat\w*|falls?|less|fewer|lost|negativ\w*|longer|\bdown\b"
DIRECTION = re.compile(rf"\b(?:(?P<up>{UP})|(?P<down>{DOWN}))\b", re.IGNORECASE)
NEGATION = re.compile(r"\b(?:not|no|neither|never|without)\b[^.;]{0,30}$", re.IGNORECASE)
SIGNIFICANT = re.compile(
    r"\b(?P<not>not\s+(?:statistically\s+)?|non-?|in)?significan(?:t|tly|ce)\b", re.IGNORECASE
)
EXTREME = re.compile(
    r"\b(?:the\s+)?(?:most|strongest|largest|greatest)\s+(?P<what>significant\w*|increas\w*|decreas\w*|"
    r"up-?regulat\w*|down-?regulat\w*|reduc\w*|elevat\w*)",
    re.IGNORECASE,
)
CAUSAL = re.compile(
    r"\b(?:caus(?:es?|ed|ing)|drives?|driven by|proves?|proven|demonstrates that)\b", re.IGNORECASE
)
BACKGROUND = re.compile(
    r"\b(?:is|are|as)\s+(?:an?|the)\s+(?:\w+\s+){0,3}(?:receptor|kinase|enzyme|transporter|ligand|marker|cytokine|"
    r"chemokine|factor|protease|inhibitor|subunit|regulator|hormone|antigen|chaperone)\b|\bencodes?\b|"
    r"\bfunctions? as\b|\bknown to\b|\binvolved in\b|\bplays? a role\b",
    re.IGNORECASE,
)
MISREAD = re.compile(
    r"\bbatch effects?\b[^.;]{0,20}\bB\b|\bB\b[^.;]{0,30}\bbatch effect|\bt\b\s+is the (?:fold|effect)", re.I
)
VERSUS = re.compile(
    r"\b(?:compared (?:with|to)|than in|than|versus|vs\.?|relative to|against)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Clause:
    """A part of a sentence with the names in it."""

    start: int
    text: str
    mentions: tuple[Mention, ...]
    inherited: tuple[Mention, ...] = ()
    """Names of the clause before, where this one has no entity of its own."""

    def of(self, *kinds: str) -> list[Mention]:
        """Names of some kinds; without any of its own, those of the clause before."""
        own = [one for one in self.mentions if one.kind in kinds]
        return own or [one for one in self.inherited if one.kind in kinds]


@dataclass(frozen=True)
class Direction:
    """A direction word: 1 or -1."""

    start: int
    end: int
    sign: int
    negated: bool
    word: str


def clauses(text: str, mentions: Sequence[Mention]) -> Iterator[Clause]:
    """Clauses from left to right. What stands in brackets belongs to its clause."""
    cuts = [0]
    covered = [(one.start, one.end) for one in mentions]
    for match in SPLIT.finditer(text):
        inside = any(start <= match.start() < end for start, end in covered)
        if not inside and text[: match.start()].count("(") <= text[: match.start()].count(")"):
            cuts.append(match.end())
    cuts.append(len(text))
    before: tuple[Mention, ...] = ()
    for start, end in itertools.pairwise(cuts):
        if not text[start:end].strip():
            continue
        own = tuple(one for one in mentions if start <= one.start < end)
        sentence_begins = start == 0 or text[start - 1] in ".!?"
        clause = Clause(start, text[start:end], own, () if sentence_begins else before)
        yield clause
        before = own or clause.inherited


def directions(clause: Clause) -> list[Direction]:
    """Direction words outside of names."""
    found = []
    for match in DIRECTION.finditer(clause.text):
        at = clause.start + match.start()
        if any(one.start <= at < one.end for one in clause.mentions):
            continue
        sign = 1 if match["up"] else -1
        negated = bool(NEGATION.search(clause.text[: match.start()]))
        found.append(Direction(at, clause.start + match.end(), sign, negated, match[0]))
    return found


@dataclass(frozen=True)
class Comparison:
    """The contrast that a clause is about, and whether it is said the other way round."""

    contrast: str
    flipped: bool


def comparison(clause: Clause, vocabulary: Vocabulary) -> Comparison | None:
    """The contrast of the levels that a clause names, in the order in which it compares them.

    Of one level its own contrast; the reference named alone turns it round ("lower in healthy"). Without a
    level the only contrast there is. None where nothing is named and there are several.
    """
    levels = list(dict.fromkeys(one.name for one in clause.of("level")))
    if len(levels) >= 2:
        first, second = levels[:2]
        for name, (alt, ref) in vocabulary.contrasts.items():
            if {first, second} == {alt, ref}:
                return Comparison(name, flipped=first == ref)
        return None
    found = [
        Comparison(name, flipped=levels == [ref])
        for name, (alt, ref) in vocabulary.contrasts.items()
        if not levels or levels[0] in (alt, ref)
    ]
    named = [one for one in found if not one.flipped] or found
    return named[0] if len(named) == 1 else None
