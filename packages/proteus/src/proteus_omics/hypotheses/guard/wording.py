"""Words that claim something: directions, significance, superlatives, causes, functions (section 2.8)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

AssertionKind = Literal["direction", "significant", "differs", "superlative", "background", "cause"]

UP = (
    r"increas(?:ed|es|e|ing)|up-?regulat(?:ed|es|ion)|elevat(?:ed|ion|es)|higher|rises?|rose|risen|raised|"
    r"greater|induced|enriched|enhanced|gain(?:s|ed)?|over-?expressed|overabundant|is up|are up|"
    r"more (?:often|frequent(?:ly)?|abundant)|positive(?:ly)?|(?:doubl|tripl|trebl|quadrupl)(?:ed|es|ing)"
)
DOWN = (
    r"decreas(?:ed|es|e|ing)|down-?regulat(?:ed|es|ion)|lower(?:ed)?|reduc(?:ed|tion|es)|falls?|fell|fallen|"
    r"drop(?:s|ped)?|depleted|diminished|declin(?:ed|es|e)|suppressed|lost|loss|under-?expressed|"
    r"is down|are down|less (?:often|frequent(?:ly)?|abundant)|negative(?:ly)?|inverse(?:ly)?|"
    r"halv(?:ed|es|ing)"
)
DIRECTION = re.compile(rf"\b(?:(?P<up>{UP})|(?P<down>{DOWN}))\b", re.I)
NEGATION = re.compile(
    r"\b(?:not|no|neither|never|nor|without|n't|isn't|aren't|wasn't|fails? to|hardly)\b"
    r"(?:\s+(?!but\b|only\b)[\w-]+){0,3}\s*$",
    re.I,
)
SIGNIFICANT = re.compile(r"\b(?P<non>non-?\s?|in)?significan(?:t|tly|ce)\b|\b(?P<ns>n\.s\.)", re.I)
UNCHANGED = re.compile(
    r"\b(?:unchanged|unaffected|unaltered|stable between|(?:does|do|did) not (?:differ|change)|"
    r"no (?:difference|change|effect)|not (?:different|changed|altered|affected))\b",
    re.I,
)
DIFFERS = re.compile(r"\b(?:differs?|differed|(?:is|are) (?:different|altered|changed)|associated)\b", re.I)
RELATIVE = re.compile(r"\b(?:that|which|who)\s*$", re.I)
SUPERLATIVE = re.compile(
    r"\b(?:most\s+(?:strongly\s+|highly\s+)?"
    r"(?P<dir>increased|upregulated|elevated|enriched|decreased|downregulated|reduced|depleted)"
    r"|most\s+(?P<sig>significant(?:ly)?)"
    r"(?:\s+(?P<sigdir>increased|upregulated|decreased|downregulated|reduced|elevated))?"
    r"|(?P<smallest>(?:smallest|lowest)\s+(?:adjusted\s+)?[pq])\b"
    r"|(?:strongest|largest|greatest|biggest|steepest)\s+"
    r"(?P<size>increase|rise|decrease|fall|reduction|drop|effect|change|difference|"
    r"fold change))\b",
    re.I,
)
CAUSE = re.compile(
    r"\b(?:caus(?:es|ed|ing|ative|ally)|cause(?=\s+(?:of|the))|drives?|driven by|driver|driving|proves?|"
    r"proven|"
    r"proof|leads? to|led to|results? in|triggers?|triggered|responsible for|due to|because of|mediates?|"
    r"mechanism of)\b",
    re.I,
)
BACKGROUND = re.compile(
    r"\b(?:is|are|was) (?:an?|the) (?!most\b|only\b|significant|gene set\b|protein (?:with|that)\b)"
    r"[\w\s-]{2,60}|"
    r"\b(?:known (?:to|for|as)|involved in|plays? (?:an? |the )?(?:[\w-]+ )?role|encodes?|"
    r"functions? (?:as|in)|"
    r"member of|part of the|regulates?|binds?|interacts? with|phosphorylates?|activates?|inhibits?|"
    r"secreted by|produced by|belongs? to|marker (?:of|for)|also known|which (?:is|are)|participates? in)\b",
    re.I,
)
LOG_ODDS = re.compile(
    r"\bB(?:[- ]statistic| value)?\s*(?:=|of|is|\()?\s*[-\u2212]?\d[^;.]*"
    r"\b(?:batch|effect size|fold|probability|percent)\b"
    r"|\b(?:batch effect|effect size|probability|fold change)\s*\(?\s*(?:B|t)\s*="
    r"|\bt\s*=\s*[-\u2212\d.]+[\s-]*(?:fold|times)\b"
    r"|\b[tB] (?:is|means|shows) (?:the |an? )?(?:batch|effect size|fold|probability|p-value)",
)
OUTCOME = r"\s+(?:overall\s+)?(?:survival|prognosis|outcome)\b"
SHORTER = re.compile(
    rf"\b(?P<worse>shorter|worse|poorer|reduced|lower){OUTCOME}|"
    rf"\b(?P<better>longer|better|improved|prolonged|higher){OUTCOME}",
    re.I,
)
ACCESSION = r"[A-NR-Z]\d(?:[A-Z][A-Z0-9]{2}\d){1,2}|[OPQ]\d[A-Z0-9]{3}\d"
GENE_LIKE = re.compile(
    rf"(?<![\w/-])(?:{ACCESSION}|GO:\d+|HALLMARK_\w+|[A-Z]{{2,}}-?\d+[A-Z0-9]*|"
    r"[A-Z][A-Z0-9]{2,}(?:-[A-Z0-9]+)?|"
    r"p[A-Z][A-Za-z]*\d*|[A-Z][a-z]{1,5}\d+[a-z]?\d?|[A-Z]\d[A-Z]?)(?![\w])"
)
ABBREVIATIONS = frozenset(
    {
        "AND", "ANOVA", "AUC", "BH", "BMI", "CI", "CV", "DDA", "DIA", "DNA", "ELISA", "EU", "FDR", "GO",
        "GSEA", "GSVA", "HDL", "HR", "ICU", "II", "III", "IQR", "IV", "LC", "LDL", "LFQ", "MAD", "MRM",
        "MS", "NES", "NOT", "OR", "ORA", "PBMC", "PCA", "PPI", "PRM", "QC", "RNA", "ROC", "SD", "SE", "SRM",
        "STRING", "TMT", "UK", "UMAP", "US", "USA", "VLDL", "WGCNA", "WT",
    }
)  # fmt: skip
"""Capitals that are no genes."""


@dataclass(frozen=True)
class Assertion:
    """Words at `start:end` that claim something of a row."""

    start: int
    end: int
    kind: AssertionKind
    sign: int = 0
    negated: bool = False
    by_p: bool = False


def assertions(text: str, plain: str) -> Iterator[Assertion]:
    """What a text claims in words; `plain` is the text with its known names blanked out."""
    taken: list[tuple[int, int]] = []
    for match in SUPERLATIVE.finditer(plain):
        taken.append(match.span())
        yield _superlative(match)
    for match in UNCHANGED.finditer(plain):
        taken.append(match.span())
        yield Assertion(*match.span(), "differs", negated=True)
    for match in SHORTER.finditer(plain):
        taken.append(match.span())
        yield Assertion(*match.span(), "direction", _survival(plain, match))
    for match in DIRECTION.finditer(plain):
        if _free(match, taken) and not _beside_survival(plain, match):
            sign = 1 if match["up"] else -1
            yield Assertion(*match.span(), "direction", sign, _negated(plain, match.start()))
    for match in SIGNIFICANT.finditer(plain):
        if _free(match, taken):
            negated = bool(match["non"] or match["ns"]) or _negated(plain, match.start())
            yield Assertion(*match.span(), "significant", negated=negated)
    for match in DIFFERS.finditer(plain):
        if _free(match, taken) and not RELATIVE.search(plain[: match.start()]):
            yield Assertion(*match.span(), "differs", negated=_negated(plain, match.start()))
    for match in BACKGROUND.finditer(plain):
        if not any(start < match.end() and match.start() < end for start, end in taken):
            yield Assertion(*match.span(), "background")
    for pattern in (CAUSE, LOG_ODDS):
        for match in pattern.finditer(text):
            yield Assertion(*match.span(), "cause", negated=pattern is LOG_ODDS)


def unknown_names(plain: str) -> Iterator[re.Match[str]]:
    """Tokens that look like a gene, an accession or a set, of those that no table has."""
    for match in GENE_LIKE.finditer(plain):
        if match[0] not in ABBREVIATIONS:
            yield match


def _superlative(match: re.Match[str]) -> Assertion:
    if match["sig"] or match["smallest"]:
        return Assertion(*match.span(), "superlative", _sign(match["sigdir"]), by_p=True)
    return Assertion(*match.span(), "superlative", _sign(match["dir"] or match["size"]))


def _sign(word: str | None) -> int:
    if word is None or word.lower() in ("effect", "change", "difference", "fold change"):
        return 0
    return (
        1 if word.lower() in ("increased", "upregulated", "elevated", "enriched", "increase", "rise") else -1
    )


def _survival(text: str, match: re.Match[str]) -> int:
    """Higher X with shorter survival: a larger hazard, so the coefficient is above 0."""
    before = list(DIRECTION.finditer(text, 0, match.start()))
    level = -1 if before and before[-1]["down"] else 1
    return level if match["worse"] else -level


def _beside_survival(text: str, match: re.Match[str]) -> bool:
    """Whether the word is the `higher` of a sentence on survival, which `SHORTER` has read."""
    return bool(SHORTER.search(text)) and match[0].lower() in ("higher", "lower", "high", "low")


def _negated(text: str, at: int) -> bool:
    return bool(NEGATION.search(text[max(0, at - 40) : at]))


def _free(match: re.Match[str], taken: list[tuple[int, int]]) -> bool:
    return not any(start <= match.start() < end for start, end in taken)
