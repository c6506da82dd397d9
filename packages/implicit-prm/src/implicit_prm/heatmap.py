"""Scored responses in colour, every token by its r_t, every step by its R_s: for a browser or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from importlib.resources import files
from math import floor, log10

import numpy as np
from rich.style import Style
from rich.table import Table
from rich.text import Text

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.responses import Floats, ScoredResponse

LEVELS = 16
"""Shades of a colour; the deepest is at the 99th percentile of what is shown."""

_PLUS, _MINUS = (31, 111, 180), (214, 93, 14)
_DEEPEST = 0.8


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters in one colour: those of one token, of several that share a character, or of none.

    `tokens` are their places in the response, `step` the step in which they begin, `reward` their summed r_t.
    """

    text: str
    step: int
    tokens: range
    reward: float


def heatmap_html(
    responses: Sequence[ScoredResponse],
    *,
    prompts: Sequence[str] | None = None,
    first_errors: Sequence[int | None] | None = None,
    title: str = "Implicit rewards",
) -> str:
    """One page, without scripts and without other files, that shows the responses in the order given.

    prompts: the text above each response; first_errors: the first wrong step of each, counted from 0, -1 for
    none and None for not known, which is marked. All responses share one scale of colours.

    Raises `ImplicitPRMError` for no responses, or other numbers of prompts or first errors than responses.
    """
    _check(responses, prompts, first_errors)
    limits = _Limits.of(responses)
    sections = [
        _section(
            response,
            "" if prompts is None else prompts[place],
            None if first_errors is None else first_errors[place],
            limits,
        )
        for place, response in enumerate(responses)
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_escaped(title)}</title>
<style>
{_css()}</style>
</head>
<body>
<h1>{_escaped(title)}</h1>
<p class="note">r is the reward of a token, R the sum of r over a step, q the sum up to here, h all of it.
The curve is q; a line across it ends a step. Point at a token for its numbers.</p>
<div class="controls">
<fieldset><legend class="muted">Colour</legend>
<label><input type="radio" name="by" id="by-token" checked> tokens by r</label>
<label><input type="radio" name="by" id="by-step"> steps by R</label></fieldset>
{_scale("token", limits.token)}{_scale("step", limits.step)}
</div>
{"".join(sections)}</body>
</html>
"""


def heatmap_terminal(response: ScoredResponse, first_error: int | None = None) -> Table:
    """A rich table of the steps, R_s and q beside the text coloured by r_t: `rich.print` it.

    first_error: the first wrong step, counted from 0, which is marked.
    """
    limits, digits = _Limits.of([response]), _digits(response)
    table = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left"
    )
    table.title = Text(_visible(response.id), "bold")
    for name in ("step", "R", "q"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("text", overflow="fold")
    for step, of_step, q in _steps(response):
        text = Text()
        for piece in of_step:
            style = _style(piece.reward, limits.token) if piece.tokens else Style()
            text.append(_visible(piece.text).replace("\n", "\u21b5"), style)
        reward = float(response.step_rewards[step])
        table.add_row(
            Text(f"\u2717 {step + 1}", "bold red") if step == first_error else str(step + 1),
            Text(_signed(reward, digits), _style(reward, limits.step)),
            _signed(q, digits),
            text,
        )
    cut_off = ", cut off" if response.truncated else ""
    table.caption = Text(f"h = {_signed(response.outcome_reward, digits)}{cut_off}")
    return table


@dataclass(frozen=True, slots=True)
class _Limits:
    """The rewards of the deepest colours, of tokens and of steps."""

    token: float
    step: float

    @classmethod
    def of(cls, responses: Sequence[ScoredResponse]) -> _Limits:
        return cls(
            _limit([response.token_rewards for response in responses]),
            _limit([response.step_rewards for response in responses]),
        )


def pieces(response: ScoredResponse) -> list[Piece]:
    """The response's text, cut where the colour may change, in order and without a gap.

    A token without characters of its own, a part of a character or a mere mark, joins the piece before it, or
    the first one; behind the text, as an end of sequence, it is a piece without text.
    """
    text, ends = response.completion, [step.end for step in response.steps]
    found: list[Piece] = []
    at = first = 0
    reward = 0.0
    for token, (start, end) in enumerate(response.offsets):
        start, reward = max(start, at), reward + float(response.token_rewards[token])
        if end <= start < len(text):
            if found:
                last = found.pop()
                found.append(
                    replace(last, tokens=range(last.tokens.start, token + 1), reward=last.reward + reward)
                )
                first, reward = token + 1, 0.0
            continue
        if start > at:
            found.append(Piece(text[at:start], _step_at(at, ends), range(0), 0.0))
        found.append(Piece(text[start:end], _step_at(start, ends), range(first, token + 1), reward))
        at, first, reward = max(start, end), token + 1, 0.0
    if at < len(text):
        found.append(Piece(text[at:], _step_at(at, ends), range(0), 0.0))
    if first < len(response.offsets):  # no token has a character
        found.append(Piece("", len(ends) - 1, range(first, len(response.offsets)), reward))
    return found


def _step_at(place: int, ends: Sequence[int]) -> int:
    """The step that has this character; the last one has what follows the text."""
    return min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1)


def _steps(response: ScoredResponse) -> Iterator[tuple[int, list[Piece], float]]:
    """Every step with its pieces, and q at its end."""
    by_step: list[list[Piece]] = [[] for _ in response.steps]
    for piece in pieces(response):
        by_step[piece.step].append(piece)
    q_at_end = np.cumsum(response.step_rewards, dtype=np.float64)
    for step, of_step in enumerate(by_step):
        yield step, of_step, float(q_at_end[step])


def _section(response: ScoredResponse, prompt: str, first_error: int | None, limits: _Limits) -> str:
    digits = _digits(response)
    lowest = float(response.step_rewards.min())
    facts = [
        f"h <b>{_signed(response.outcome_reward, digits)}</b>",
        f"lowest R <b>{_signed(lowest, digits)}</b>",
        f"{len(response.token_rewards)} tokens",
    ]
    if response.truncated:
        facts.append("cut off")
    if first_error is not None:
        facts.append("no wrong step" if first_error < 0 else f"first wrong step <b>{first_error + 1}</b>")
    rows = [
        _row(response, step, of_step, q, step == first_error, limits) for step, of_step, q in _steps(response)
    ]
    asked = f'<p class="prompt">{_escaped(prompt.strip())}</p>\n' if prompt else ""
    heads = '<th scope="col">step</th><th scope="col">R</th><th scope="col">q</th><th scope="col">text</th>'
    return f"""<section>
<h2>{_escaped(response.id)}</h2>
<div class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>
{asked}{_plot(response, digits)}
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{"".join(rows)}</tbody>
</table>
</section>
"""


def _row(
    response: ScoredResponse, step: int, of_step: Sequence[Piece], q: float, wrong: bool, limits: _Limits
) -> str:
    digits, reward = _digits(response), float(response.step_rewards[step])
    text = "".join(_span(piece, limits.token, response) for piece in of_step)
    # The row ends the line already: line ends with nothing but such after them are shown, and not made.
    text = re.sub(r"\n(?=(?:<[^>]*>|\u21b5|\n)*$)", "", text)
    tag, note = ('<tr class="wrong">', "<small>wrong</small>") if wrong else ("<tr>", "")
    return (
        f'{tag}<td class="plain index">{step + 1}{note}</td>'
        f'<td class="number">{_signed(reward, digits)}</td><td class="plain">{_signed(q, digits)}</td>'
        f'<td class="text {_shade(reward, limits.step)}">{text}</td></tr>\n'
    )


def _span(piece: Piece, limit: float, response: ScoredResponse) -> str:
    text = _escaped(piece.text).replace("\n", "<u>\u21b5</u>\n")
    if not piece.tokens:
        return text
    first, last = piece.tokens[0], piece.tokens[-1]
    which = f"token {first + 1}" if first == last else f"tokens {first + 1} to {last + 1}"
    numbers = f"r {piece.reward:+.4g}   q {float(response.q_values[last]):+.4g}".replace("-", "\u2212")
    about = f"{which}   {numbers}   {piece.text!r}"
    shade = _shade(piece.reward, limit)
    if not piece.text:
        shade, text = f"{shade} eos", "end"
    return f'<span class="{shade}" data-token="{_escaped(about)}">{text}</span>'


def _plot(response: ScoredResponse, digits: int) -> str:
    """q over the tokens, with the steps' ends, in a box of 1000 x 100."""
    q = np.concatenate([[0.0], response.q_values.astype(np.float64)])
    low, high = float(q.min()), float(q.max())
    heights = 100 * (high - q) / ((high - low) or 1.0)
    places = 1000 * np.arange(len(q)) / max(len(q) - 1, 1)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))
    last_tokens = {piece.step: piece.tokens[-1] for piece in pieces(response) if piece.tokens}
    ends = "".join(
        f'<path class="end" d="M{places[last + 1]:.1f} 0V100"/>' for last in list(last_tokens.values())[:-1]
    )
    about = f"q over the tokens, from {_signed(low, digits)} to {_signed(high, digits)}"
    return (
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img"><title>{about}</title>{ends}'
        f'<path class="zero" d="M0 {heights[0]:.1f}H1000"/><polyline class="q" points="{line}"/></svg>'
    )


def _scale(of: str, limit: float) -> str:
    return f'<span class="scale {of}">\u2212{limit:.2g} <i></i> +{limit:.2g}</span>'


@cache
def _css() -> str:
    shades = [
        f".{sign}{level} {{ background: rgb(var(--{colour}) / {_DEEPEST * level / LEVELS:.3f}); }}\n"
        for sign, colour in (("p", "plus"), ("n", "minus"))
        for level in range(LEVELS + 1)
    ]
    # Before the rest, which takes colours away according to what is chosen.
    return "".join(shades) + files("implicit_prm").joinpath("heatmap.css").read_text(encoding="utf-8")


def _limit(rewards: Sequence[Floats]) -> float:
    """The reward of the deepest colour: beyond it are 1 % of the tokens, which would make all others pale."""
    sizes = np.abs(np.concatenate(rewards), dtype=np.float64)
    return float(np.quantile(sizes, 0.99)) or float(sizes.max()) or 1.0


def _level(reward: float, limit: float) -> int:
    return round(LEVELS * min(abs(reward) / limit, 1.0))


def _shade(reward: float, limit: float) -> str:
    return f"{'p' if reward >= 0 else 'n'}{_level(reward, limit)}"


def _style(reward: float, limit: float) -> Style:
    """Mixed with white, under black letters: the same in a dark terminal and a light one."""
    share = _DEEPEST * _level(reward, limit) / LEVELS
    mixed = [round(255 + share * (part - 255)) for part in (_PLUS if reward >= 0 else _MINUS)]
    return Style(color="#000000", bgcolor="#{:02x}{:02x}{:02x}".format(*mixed))


def _digits(response: ScoredResponse) -> int:
    """Decimals with which the largest number of this response has three digits, and all stand in line."""
    largest = max(abs(float(value)) for value in (*response.step_rewards, *response.q_values))
    return min(max(2 - floor(log10(largest)), 0), 9) if largest else 3


def _signed(value: float, digits: int) -> str:
    """With the sign before it, as typeset."""
    return f"{value:+.{digits}f}".replace("-", "\u2212")


def _visible(text: str) -> str:
    """The text without what commands a terminal or is no character: an escape, half of a surrogate pair."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


def _escaped(text: str) -> str:
    return escape(_visible(text))


def _check(
    responses: Sequence[ScoredResponse],
    prompts: Sequence[str] | None,
    first_errors: Sequence[int | None] | None,
) -> None:
    if not responses:
        raise ImplicitPRMError("there are no responses to show")
    for name, values in (("prompts", prompts), ("first errors", first_errors)):
        if values is not None and len(values) != len(responses):
            raise ImplicitPRMError(
                f"there are {len(responses)} responses and {len(values)} {name}; give one each"
            )
