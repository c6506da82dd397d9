"""Which contrast a clause speaks of, and which way round: "lower in healthy" turns a sign (section 2.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proteus_omics.hypotheses.guard.vocabulary import Mention

BASE = re.compile(
    r"\b(?:compared (?:with|to)|comparison (?:with|to)|relative to|versus|vs\.?|"
    r"than(?: in)?|against|over|from)\s+(?:the\s+)?$",
    re.I,
)
UNKNOWN_TARGET = re.compile(
    r"\b(?:in|for)\s+([\w\s+-]{1,40}?)\s*(?:compared|relative|versus|vs\b|than)", re.I
)
NO_LEVEL = frozenset(
    [
        "the",
        "a",
        "patients",
        "patient",
        "samples",
        "sample",
        "group",
        "groups",
        "abundance",
        "plasma",
        "serum",
        "blood",
        "tissue",
        "cells",
    ]
)


@dataclass(frozen=True)
class Oriented:
    """A contrast, and 1 where the text has it as it is, -1 turned, 0 where it does not say."""

    contrast: str
    sign: int


@dataclass(frozen=True)
class Comparison:
    """What is compared: every group must hold, in one of its alternatives."""

    groups: tuple[tuple[Oriented, ...], ...]
    targets: tuple[Mention | None, ...]
    """The level of each group that is spoken of."""
    levels: tuple[Mention, ...] = ()
    problem: str = ""


def compare(
    text: str, mentions: Sequence[Mention], contrasts: Mapping[str, tuple[str, str]]
) -> Comparison | None:
    """The comparison that the levels in a text make; None where no level is named."""
    named = [one for one in mentions if one.kind == "contrast"]
    levels = [one for one in mentions if one.kind == "level"]
    if named:
        groups = tuple((Oriented(one.name, 1),) for one in named)
        return Comparison(groups, tuple(named), tuple(levels))
    if not levels:
        return None
    bases = [one for one in levels if BASE.search(text[: one.start])]
    base_names = {one.name for one in bases}
    targets = [one for one in levels if one not in bases and one.name not in base_names]
    if bases and targets:
        return _against(targets, bases[0], contrasts, levels)
    if bases:
        unknown = _unknown_target(text, mentions)
        if unknown:
            return Comparison((), (), tuple(levels), f"no comparison with {unknown!r} is in the tables")
        return Comparison((_all_of(bases[0].name, contrasts, -1),), (None,), tuple(levels))
    return _unbased(text, targets, contrasts, levels)


def _against(
    targets: Sequence[Mention],
    base: Mention,
    contrasts: Mapping[str, tuple[str, str]],
    levels: Sequence[Mention],
) -> Comparison:
    groups = []
    unique = list({one.name: one for one in targets}.values())
    for target in unique:
        found = _between(target.name, base.name, contrasts)
        if found is None:
            problem = f"no contrast of {target.name} with {base.name} is in the tables"
            return Comparison((), (), tuple(levels), problem)
        groups.append((found,))
    return Comparison(tuple(groups), tuple(unique), tuple(levels))


def _unbased(
    text: str, targets: Sequence[Mention], contrasts: Mapping[str, tuple[str, str]], levels: Sequence[Mention]
) -> Comparison:
    unique = list({one.name: one for one in targets}.values())
    if len(unique) == 2:
        found = _between(unique[0].name, unique[1].name, contrasts)
        if found is not None:
            return Comparison(((Oriented(found.contrast, 0),),), (None,), tuple(levels))
        if re.search(r"\bbetween\b", text, re.I):
            problem = f"no contrast of {unique[0].name} with {unique[1].name} is in the tables"
            return Comparison((), (), tuple(levels), problem)
    return Comparison(tuple(_all_of(one.name, contrasts, 1) for one in unique), tuple(unique), tuple(levels))


def _between(target: str, base: str, contrasts: Mapping[str, tuple[str, str]]) -> Oriented | None:
    for contrast, levels in contrasts.items():
        if levels == (target, base):
            return Oriented(contrast, 1)
    for contrast, levels in contrasts.items():
        if levels == (base, target):
            return Oriented(contrast, -1)
    return None


def _all_of(level: str, contrasts: Mapping[str, tuple[str, str]], sign: int) -> tuple[Oriented, ...]:
    """Contrasts of a level: those in which it is the one compared, else those in which it is the reference.

    `sign` is 1 for "in <level>", -1 for "than in <level>".
    """
    place = 0 if sign > 0 else 1
    found = [name for name, levels in contrasts.items() if levels[place] == level]
    if found:
        return tuple(Oriented(name, 1) for name in found)
    return tuple(Oriented(name, -1) for name, levels in contrasts.items() if levels[1 - place] == level)


def _unknown_target(text: str, mentions: Sequence[Mention]) -> str:
    match = UNKNOWN_TARGET.search(text)
    if match is None or any(one.start < match.end(1) and match.start(1) < one.end for one in mentions):
        return ""
    words = [word for word in match[1].split() if word.lower() not in NO_LEVEL]
    return " ".join(words)
