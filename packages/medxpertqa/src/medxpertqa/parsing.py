"""From a reply to a letter: the official extraction rules, trap for trap, and one that avoids the traps.

The official rules (section 2.3 of the specification) give the numbers that compare with the paper's.
`robust` reads the letter that the reply states as its answer; every rule of it has a name, which the result
carries, so that a report can say how the letters were found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal, get_args

from medxpertqa.errors import MedXpertQAError

ParserName = Literal["official", "official-r1", "official-qvq", "robust"]
TriggerName = Literal["cot", "ao"]

PARSERS: tuple[ParserName, ...] = get_args(ParserName)
_TRIGGERS = {
    "cot": "Therefore, among A through {last}, the answer is",
    "ao": "Among A through {last}, the answer is",
}
_UNWANTED = ("I understand", "A through J", "A through E", "A through D")


@dataclass(frozen=True)
class ParsedAnswer:
    """The letter (None: no answer), the rule that found it, and whether that rule saw other letters too."""

    letter: str | None
    rule: str
    ambiguous: bool = False


NO_ANSWER = ParsedAnswer(None, "none")


def parse_answer(
    text: str,
    n_options: int,
    parser: ParserName = "robust",
    *,
    options: Mapping[str, str] | None = None,
    trigger: TriggerName = "cot",
) -> ParsedAnswer:
    """Read the letter of the answer out of a model's last reply.

    `n_options` (2 to 26) gives the valid letters. `options` (letter: text) lets `robust` recognise a reply
    that quotes one option's text; the official parsers ignore it. `trigger` is the prompt's last phrase,
    which `official` looks for. Never raises for any text; raises `MedXpertQAError` for the other arguments.
    """
    if not 2 <= n_options <= 26:
        raise MedXpertQAError(f"n_options is {n_options}; it must be 2 to 26")
    if parser not in PARSERS:
        raise MedXpertQAError(f"there is no parser {parser!r}; there are: {', '.join(PARSERS)}")
    if trigger not in _TRIGGERS:
        raise MedXpertQAError(f"there is no trigger {trigger!r}; there are: {', '.join(_TRIGGERS)}")
    text, letters = text.strip(), ascii_uppercase[:n_options]  # the official client strips every reply
    if parser == "official":
        return _official(text, letters, _TRIGGERS[trigger].format(last=letters[-1]))
    if parser == "official-r1":
        return _official_r1(text, letters)
    if parser == "official-qvq":
        return _official_qvq(text, letters)
    return _robust(text, letters, options or {})


def _official(text: str, letters: str, trigger: str) -> ParsedAnswer:
    """After Kojima et al. 2022: the first lone capital behind the trigger, or behind " answer is "."""
    rule = "first-letter"
    for phrase, name in ((trigger, "trigger"), (" answer is ", "answer-is")):
        if phrase in text:
            text, rule = text.split(phrase)[1].strip(), name
            break
    for phrase in _UNWANTED:
        text = text.replace(phrase, "")
    return _found(re.findall(rf"\b[{letters}]\b", text), rule, take=0)


def _official_r1(text: str, letters: str) -> ParsedAnswer:
    boxed = re.findall(rf"\\boxed{{([{letters}])}}", text)
    if boxed:
        return _found(boxed, "boxed", take=0)
    return ParsedAnswer(text, "whole-reply") if len(text) == 1 and text in letters else NO_ANSWER


def _official_qvq(text: str, letters: str) -> ParsedAnswer:
    parts = re.split(r"(?i)final answer", text)
    stated = len(parts) > 1
    rule, take = ("final-answer", 0) if stated else ("last-letter", -1)
    for valid in (letters, letters.lower()):
        hits = re.findall(f"[{valid}]", parts[-1])
        if hits:
            return _found([hit.upper() for hit in hits], rule, take)
    return NO_ANSWER


def _found(hits: list[str], rule: str, take: int) -> ParsedAnswer:
    return ParsedAnswer(hits[take], rule, len(set(hits)) > 1) if hits else NO_ANSWER


# The robust parser. Repeats are bounded, so that no reply makes a pattern slow.
_OPEN = r"""[\s*_`"'“‘$]{0,8}(?:\\(?:text|textbf|mathbf|mathrm|boxed)\{\s{0,3}){0,2}[\s*_`"'(\[{$]{0,8}"""
_THINK = re.compile(r"<(think|thinking|reasoning|thought)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_HALF_THINK = re.compile(r"\A.*</(?:think|thinking|reasoning|thought)>", re.DOTALL | re.IGNORECASE)
_RANGE = re.compile(r"\b([A-Z])\s{0,3}(?:through|to|-|–|—)\s{0,3}([A-Z])\b")
_CUE = re.compile(
    r"\b(?:final\s{1,3}answer|(?:answer|(?:correct|best|right)\s{1,3}(?:option|choice))"
    r"(?=[\s*_]{0,4}(?::|is\b|would\b|should\b|=)))"
    r"(?:[\s*_]{0,4}(?::|=|is\b|would\s{1,3}be\b|should\s{1,3}be\b)){0,2}"
    r"(?:\s{1,3}(?:most\s{1,3}likely|likely|probably|therefore|thus|clearly|definitely|indeed)\b,?){0,2}"
    r"(?:[\s*_:]{0,4}(?:the\s{1,3})?(?:correct\s{1,3})?(?:option|choice|letter|answer)\b(?:\s{1,3}is\b)?:?){0,2}",
    re.IGNORECASE,
)
_CONNECTED = re.compile(r"(?:is|because|since|as|and|or|due|was|with|for|which)\b")
_NAMED = re.compile(
    r"\b(?:hepatitis|vitamins?|type|stage|grade|class|group|phase|factor|protein|troponin|influenza|hemoglobin"
    r"|angiotensin|collagen|immunoglobulin|interleukin|bipolar|mobitz|apolipoprotein|not|nor)[\s(*_]{1,3}\Z",
    re.IGNORECASE,
)
"""What makes the capital behind it part of a name, or denies it: hepatitis C, type I, not A."""


def _robust(text: str, letters: str, options: Mapping[str, str]) -> ParsedAnswer:
    text = _HALF_THINK.sub("", _THINK.sub(" ", text)).strip()
    text = _RANGE.sub(lambda hit: " " if hit[1] == "A" and hit[2] == letters[-1] else hit[0], text)
    rules: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("boxed", lambda: _boxed(text, letters)),
        ("statement", lambda: _statements(text, letters)),
        ("leading", lambda: _leading(text, letters)),
        ("option-text", lambda: _quoted(text, options)),
        ("last-letter", lambda: _standalone(text, letters)),
    )
    for rule, hits in rules:
        found = hits()
        if found:
            return _found(found, rule, take=-1)
    return NO_ANSWER


def _boxed(text: str, letters: str) -> list[str]:
    pattern = rf"\\boxed\s{{0,3}}\{{{_OPEN}([{letters}{letters.lower()}])(?!\w)"
    return [hit.upper() for hit in re.findall(pattern, text)]


def _statements(text: str, letters: str) -> list[str]:
    """The letters that are said to be the answer; of "not A but C" the second."""
    letter = rf"([{letters}]|(?<=[(\[])[{letters.lower()}](?=[)\]]))"
    denial = (
        rf"(?:\s{{1,3}}not\s{{1,3}}{_OPEN}[{letters}]\b[)\]*_]{{0,4}},?\s{{1,3}}but(?:\s{{1,3}}rather)?\b)?"
    )
    pattern = re.compile(denial + r"(?:\s{1,3}(?:option|choice)\b)?" + _OPEN + letter + r"(?!\w)")
    second = re.compile(rf"[)\]*_]{{0,4}},?\s{{1,3}}(?:or|and)\s{{1,3}}{_OPEN}([{letters}])(?!\w)")
    found: list[str] = []
    for cue in _CUE.finditer(text):
        hit = pattern.match(text, cue.end())
        if hit and _is_answer(text, hit.start(1)):
            other = second.match(text, hit.end())  # "B or C" counts as B, and as ambiguous
            found += [other[1], hit[1].upper()] if other else [hit[1].upper()]
    return found


def _leading(text: str, letters: str) -> list[str]:
    hit = re.match(rf"{_OPEN}([{letters}])(?:[)\].:,*_}}]|\s{{0,3}}\n|\s{{1,3}}[-–—]|\s*\Z)", text)
    return [hit[1]] if hit and _is_answer(text, hit.start(1)) else []


def _quoted(text: str, options: Mapping[str, str]) -> list[str]:
    """The one option whose text the reply quotes, not counting those that lie inside a longer quoted one."""
    reply = _plain(text)
    plain = {letter: _plain(option) for letter, option in options.items() if option.strip()}
    said = {
        letter: option
        for letter, option in plain.items()
        if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", reply)
    }
    longest = [
        letter
        for letter, option in said.items()
        if not any(option in other and option != other for other in said.values())
    ]
    return longest if len(longest) == 1 else []


def _standalone(text: str, letters: str) -> list[str]:
    hits = re.finditer(rf"(?<![\w'’])[{letters}](?!\w)", text)
    return [hit[0] for hit in hits if _is_answer(text, hit.start()) and not _is_named(text, hit.start())]


def _is_answer(text: str, at: int) -> bool:
    """Whether the capital stands for an option, and is neither the pronoun "I" nor the article "A"."""
    letter, before, after = text[at], text[max(at - 1, 0) : at], text[at + 1 : at + 24]
    if letter not in "AI" or (before in "([{" and before):
        return True
    if re.match(r"['’](?:m|d|ll|ve)\b", after):
        return False
    word = re.match(r"[^\S\n]{1,3}([\"“'*_]{0,2})(\w{1,18})", after)
    if word is None or _CONNECTED.fullmatch(word[2]):
        return True
    if re.search(r"\b(?:option|choice)[\s*_:\"“']{1,4}\Z", text[max(at - 16, 0) : at], re.IGNORECASE):
        return True
    return not (word[2][0].islower() or word[2][0].isdigit())


def _is_named(text: str, at: int) -> bool:
    return _NAMED.search(text[max(at - 24, 0) : at]) is not None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
