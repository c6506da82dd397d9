from __future__ import annotations

import re

import numpy as np
import pytest

from toedit.protection import PATTERNS, protected_tokens


def protected_words(text, protect, editable=None):
    """One token a run of letters, digits or signs: the protected ones, as text."""
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]+", text)]
    ids = np.arange(len(spans))
    mask = protected_tokens(text, ids, np.array(spans, dtype=np.int64).reshape(-1, 2), protect, editable)
    return [text[slice(*spans[at])] for at in np.flatnonzero(mask)]


def matches(name, text):
    return [match.group() for match in re.finditer(PATTERNS[name], text)]


def test_a_token_is_protected_if_a_match_touches_any_of_its_characters():
    assert protected_words("one abcdef two", ["cd"]) == ["abcdef"]
    assert protected_words("one abcdef two", ["e a"]) == ["one", "abcdef"]
    assert protected_words("one,two", ["x"]) == []
    assert protected_words("one abcdef two", ["(?i)TWO", "^one"]) == ["one", "two"]


def test_tokens_are_protected_by_id():
    assert protected_words("a b c d", [1, 3]) == ["b", "d"]
    assert protected_words("a b c d", []) == []


def test_all_outside_the_editable_ranges_is_protected():
    assert protected_words("ask: one two", [], [(4, 12)]) == ["ask", ":"]
    assert protected_words("one two three", [], [(5, 13)]) == ["one", "two"]
    assert protected_words("one two", [], []) == ["one", "two"]
    assert protected_words("one two three", ["three"], [(3, 13)]) == ["one", "three"]


def test_what_no_token_covers_belongs_to_the_token_after_it():
    """An edit may take the space before a word along."""
    assert protected_words("one abcdef two", [" "]) == ["abcdef", "two"]
    assert protected_words(" one two", ["^ "]) == ["one"]
    assert protected_words("ask: one two", [], [(5, 12)]) == ["ask", ":", "one"]
    assert protected_words("", ["x"], []) == []


def test_names_stand_for_patterns_and_a_group_for_the_word():
    assert protected_words("numbers: 12", ["numbers"]) == ["12"]
    assert protected_words("numbers: 12", ["(?:numbers)"]) == ["numbers"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,234.50 and -7%, at 12:30", ["1,234.50", "-7%", "12:30"]),
        ("on 2024-12-19.", ["2024-12-19"]),
        ("x1 3/4 \u22125", ["1", "3/4", "\u22125"]),
        ("no digits", []),
    ],
)
def test_numbers(text, found):
    assert matches("numbers", text) == found


def test_urls_and_emails():
    text = "See https://a.org/b?c=d#e, or <http://x.y> or www.z.com; mail first.last+tag@mail.co.uk!"
    assert matches("urls", text) == ["https://a.org/b?c=d#e,", "http://x.y", "www.z.com;"]
    assert matches("emails", text) == ["first.last+tag@mail.co.uk"]


def test_code_is_fenced_or_in_backticks():
    fence = "```python\nx = `1`\n\ny\n```"
    assert matches("code", f"a `b c` d\n{fence}\ne ` f") == ["`b c`", fence]
    tildes = "~~~~\n```\nx\n~~~~"
    assert matches("code", f"a\n{tildes}\nb `c`") == [tildes, "`c`"]
    assert matches("code", "a\n```\nnever closed\n") == ["```\nnever closed\n"]


def test_math_is_between_dollars_or_brackets():
    text = r"cost $5, $x + y$ and $$a" + "\n" + r"b$$ or \(c\) or \[d\]"
    assert matches("math", r"so $x + y$ and $$a" + "\n" + r"b$$ or \(c\) or \[d\]") == [
        "$x + y$",
        "$$a\nb$$",
        r"\(c\)",
        r"\[d\]",
    ]
    assert "$5, $" in matches("math", text)  # prices in a row look like a formula: protected, not edited
