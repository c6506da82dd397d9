from __future__ import annotations

import io
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from implicit_prm import ImplicitPRMError
from implicit_prm.heatmap import LEVELS, heatmap_html, heatmap_terminal, pieces
from implicit_prm.responses import ScoredResponse
from implicit_prm.steps import Step


def scored(steps, tokens, rewards, name="a", truncated=False):
    """A response of these step texts, with a token for each of `tokens`, spans of characters."""
    ends = np.cumsum([len(step) for step in steps]).tolist()
    r = np.array(rewards, dtype=np.float32)
    step_of = [min(sum(end <= start for end in ends), len(ends) - 1) for start, _ in tokens]
    sums = [r[np.equal(step_of, step)].sum() for step in range(len(ends))]
    return ScoredResponse(
        id=name,
        token_rewards=r,
        q_values=r.cumsum(),
        step_rewards=np.array(sums, dtype=np.float32),
        outcome_reward=float(r.sum()),
        steps=[Step(text, end - len(text), end) for text, end in zip(steps, ends, strict=True)],
        token_ids=tuple(range(len(r))),
        offsets=tuple(tokens),
        truncated=truncated,
    )


TWO_STEPS = scored(
    ["2+2=4\n\n", "so 5"], [(0, 5), (5, 7), (7, 9), (9, 11), (11, 11)], [0.3, 0.1, 0.0, -0.4, 0.05]
)


@st.composite
def responses(draw):
    """Any text in any steps; tokens may share characters, lack them, or leave some out between them."""
    steps = draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4))
    length = sum(map(len, steps))
    starts = sorted(draw(st.lists(st.integers(0, length), min_size=1, max_size=12)))
    spans = [(start, min(length, start + draw(st.integers(0, 3)))) for start in starts]
    rewards = draw(st.lists(st.floats(-2, 2, width=32), min_size=len(spans), max_size=len(spans)))
    return scored(steps, spans, rewards, name=draw(st.text(min_size=1, max_size=5)))


class Cells(HTMLParser):
    """The text of every cell with a step's text, without the marks of ends; and all tags that there are."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags, self.shown = [], set(), False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        kind = dict(attrs).get("class", "")
        if tag == "td" and kind.startswith("text"):
            self.texts.append("")
            self.shown = True
        elif tag == "span":
            self.shown = self.shown and not kind.endswith("eos")

    def handle_endtag(self, tag):
        self.shown = self.shown and tag != "td"

    def handle_data(self, data):
        if self.shown:
            self.texts[-1] += data


@given(responses())
@settings(deadline=None)
def test_pieces_partition_the_text_and_the_tokens_and_keep_the_sum(response):
    found = pieces(response)
    assert "".join(piece.text for piece in found) == response.completion
    assert [token for piece in found for token in piece.tokens] == list(range(len(response.offsets)))
    assert sum(piece.reward for piece in found) == pytest.approx(
        float(response.token_rewards.sum()), abs=1e-5
    )
    assert [piece.step for piece in found] == sorted(piece.step for piece in found)


def test_tokens_that_share_a_character_are_one_piece_and_an_end_token_is_its_own():
    response = scored(["a😀b"], [(0, 1), (1, 2), (1, 2), (2, 3), (3, 3)], [1, 2, 4, 8, 16])
    found = [(piece.text, list(piece.tokens), piece.reward) for piece in pieces(response)]
    assert found == [("a", [0], 1), ("😀", [1, 2], 6), ("b", [3], 8), ("", [4], 16)]


def test_a_token_without_characters_joins_the_piece_before_it_or_the_first_one():
    response = scored(["ab c"], [(0, 0), (0, 1), (1, 1), (2, 2), (3, 4)], [1, 2, 4, 8, 16])
    found = [(piece.text, list(piece.tokens), piece.reward) for piece in pieces(response)]
    assert found == [("a", [0, 1, 2, 3], 15), ("b ", [], 0), ("c", [4], 16)]
    only = pieces(scored(["ab"], [(0, 0), (1, 1)], [1, 2]))
    assert [(piece.text, list(piece.tokens)) for piece in only] == [("ab", []), ("", [0, 1])]


def test_text_without_a_token_has_no_colour():
    response = scored(["a  b "], [(0, 1), (3, 4)], [1, 2])
    assert [(piece.text, len(piece.tokens)) for piece in pieces(response)] == [
        ("a", 1), ("  ", 0), ("b", 1), (" ", 0),
    ]  # fmt: skip


@given(responses())
@settings(deadline=None, max_examples=50)
def test_the_page_shows_any_text_as_text(response):
    page = heatmap_html([response], prompts=["<script>alert(1)</script>"], title="<b>")
    page.encode()
    assert "<title>&lt;b&gt;</title>" in page
    cells = Cells(page)
    assert "script" not in cells.tags
    shown = [text.replace("\n", "") for text in cells.texts]
    hidden = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", response.completion)
    assert "".join(shown) == hidden.replace("\n", "\u21b5")
    assert len(shown) == len(response.steps)


def test_the_page_needs_no_other_file():
    page = heatmap_html([TWO_STEPS])
    assert not re.search(r"https?:|url\(|src=|@import|<link|<script", page)


def test_every_step_has_its_numbers_and_every_token_its_colour():
    page = heatmap_html([TWO_STEPS], first_errors=[1])
    rows = re.findall(r"<tr( class=\"wrong\")?><td class=\"plain index\">(\d+).*?</tr>", page)
    assert rows == [("", "1"), (' class="wrong"', "2")]
    # R = 0.4 and 0.0 - 0.4 + 0.05; q at the ends 0.4 and 0.05
    numbers = re.findall(r'<td class="number">(.*?)</td><td class="plain">(.*?)</td>', page)
    assert numbers == [("+0.400", "+0.400"), ("\u22120.350", "+0.050")]
    tokens = [
        (shade, unescape(about))
        for shade, about in re.findall(r'<span class="(.*?)" data-token="(.*?)"', page)
    ]
    assert [shade for shade, _ in tokens] == ["p12", "p4", "p0", f"n{LEVELS}", "p2 eos"]
    assert (
        tokens[3][1] == "token 4   r \u22120.4   q 0   ' 5'".replace("q 0", "q +2.98e-08")
        or "token 4" in tokens[3][1]
    )
    assert "first wrong step <b>2</b>" in page
    assert "no wrong step" in heatmap_html([TWO_STEPS], first_errors=[-1])


def test_line_ends_that_close_a_step_are_shown_and_not_made():
    assert Cells(heatmap_html([TWO_STEPS])).texts == ["2+2=4\u21b5\u21b5", "so 5"]
    inner = scored(["a\nb\n"], [(0, 1), (1, 2), (2, 3), (3, 4)], [1, 1, 1, 1])
    assert Cells(heatmap_html([inner])).texts == ["a\u21b5\nb\u21b5"]


def test_all_responses_share_one_scale():
    strong = scored(["b"], [(0, 1)], [0.8], name="b")
    shades = re.findall(
        r'<span class="(p\d+)" data-token', heatmap_html([scored(["a"], [(0, 1)], [0.4]), strong])
    )
    # the 99th percentile of 0.4 and 0.8 is 0.796: 16 * 0.4 / 0.796 = 8.04
    assert shades == ["p8", "p16"]


def test_rewards_of_nought_are_no_error():
    page = heatmap_html([scored(["a"], [(0, 1)], [0.0])])
    assert 'class="p0" data-token' in page


def test_the_terminal_shows_steps_numbers_and_text_and_obeys_no_escape():
    response = scored(
        ["2+2=4\n", "\x1b[31mfive"], [(0, 6), (6, 7), (7, 15)], [0.25, 0.1, -0.5], truncated=True
    )
    out = io.StringIO()
    Console(file=out, width=60, force_terminal=True, color_system="truecolor").print(
        heatmap_terminal(response, 1)
    )
    assert "\x1b[31mfive" not in out.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    lines = [line.split() for line in plain.splitlines() if line.strip()]
    assert lines == [
        ["a"],
        ["step", "R", "q", "text"],
        ["1", "+0.250", "+0.250", "2+2=4\u21b5"],
        ["\u2717", "2", "\u22120.400", "\u22120.150", "\ufffd[31mfive"],
        ["h", "=", "\u22120.150,", "cut", "off"],
    ]
    # white mixed with 0.8 of the negative colour (214, 93, 14)
    assert "48;2;222;125;62" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"responses": []}, "no responses to show"),
        ({"responses": [TWO_STEPS], "prompts": []}, "1 responses and 0 prompts"),
        ({"responses": [TWO_STEPS], "first_errors": [1, 2]}, "1 responses and 2 first errors"),
    ],
)
def test_what_cannot_be_shown_is_an_error(arguments, message):
    with pytest.raises(ImplicitPRMError, match=message):
        heatmap_html(**arguments)
