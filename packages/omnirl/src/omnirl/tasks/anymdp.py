"""The law of AnyMDP (section 2.1): candidates are drawn side by side, from blocks of random numbers.

A candidate uses a fixed number of uniforms, normals and exponentials, which come from a stream of its own
task: so all candidates of a batch are built by the same array operations, and none depends on its neighbours.
Where the paper's code draws again and again until a condition holds, the conditional law is drawn directly.

The index of a state is its hidden rank: 0 is the low end, S - 1 the side of the goal. The expected reward is
a sum of something of (s, a) and something of s', so the table of (s, a, s') is only made for accepted
candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omnirl.tasks.task import Floats, Ints

STARTS = 3
"""Only the three lowest states may be start states."""

PASSES = 5
"""The passes of the adjustment of terminal rewards, each with three uniforms."""

_HARMONICS = 3


@dataclass(frozen=True)
class Draws:
    """Random numbers of a batch of B candidates, by what they are for."""

    uniform: dict[str, Floats]
    normal: dict[str, Floats]
    exponential: dict[str, Floats]


@lru_cache
def block_shapes(states: int, actions: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shape of every named draw of one candidate; `Draws` has B of each."""
    s, sa = (states,), (states, actions)
    return {
        "uniform": {
            "start_set": (),
            "terminal_rate": (),
            "terminal_count": (),
            "terminal_order": s,
            "goal": (),
            "span_from": s,
            "span_to": s,
            "centre": sa,
            "potential": (),
            "potential_box": (),
            "harmonics": (),
            "harmonic_order": (_HARMONICS,),
            "baseline": (),
            "state_noise": s,
            "action_support": sa,
            "margin": (PASSES,),
            "pit_step": (PASSES,),
            "goal_step": (PASSES,),
        },
        "normal": {
            "start": (STARTS,),
            "weight": (states, states),
            "harmonic_order": (_HARMONICS,),
            "harmonic": (_HARMONICS, 2),
            "state_step": s,
            "action_value": sa,
            "action_noise": sa,
            "step": (),
        },
        "exponential": {
            "width": s,
            "potential": (),
            "harmonic": (_HARMONICS, 2),
            "state_base": (),
            "action_base": (),
        },
    }


def block_sizes(states: int, actions: int) -> dict[str, int]:
    """Return how many numbers of each kind one candidate takes."""
    shapes = block_shapes(states, actions)
    return {kind: sum(int(np.prod(shape)) for shape in named.values()) for kind, named in shapes.items()}


def name_draws(blocks: dict[str, Floats], states: int, actions: int) -> Draws:
    """Cut the rows of `blocks` (kind -> (B, numbers)) into named views."""
    named: dict[str, dict[str, Floats]] = {}
    for kind, shapes in block_shapes(states, actions).items():
        rows, at = blocks[kind], 0
        named[kind] = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            named[kind][name] = rows[:, at : at + size].reshape(len(rows), *shape)
            at += size
    return Draws(**named)


@dataclass(frozen=True)
class Candidates:
    """B candidates of at most n states. `live`: neither terminal nor padding.

    The mean reward is `reward_from`(s, a) + `reward_to`(s') + the terminal reward of s', which `acceptance`
    adds; its noise `noise_from`(s, a) + `noise_to`(s').
    """

    num_states: Ints  # (B,)
    start_probs: Floats  # (B, n)
    terminal: NDArray[np.bool_]  # (B, n)
    live: NDArray[np.bool_]  # (B, n)
    goal: NDArray[np.bool_]  # (B,)
    weights: Floats  # (B, n, n), p̂(s'|s)
    transition: Floats  # (B, n, A, n)
    reward_from: Floats  # (B, n, A)
    reward_to: Floats  # (B, n)
    noise_from: Floats  # (B, n, A)
    noise_to: Floats  # (B, n)
    margin: Floats  # (B, PASSES), U(2, 5)
    pit_step: Floats  # (B, PASSES), U(1, 10)
    goal_step: Floats  # (B, PASSES), U(1, 10)

    def part(self, rows: Ints) -> Candidates:
        """Return some of the candidates; `rows` are in order, none twice."""
        if len(rows) == len(self.num_states):
            return self
        return Candidates(*(getattr(self, field.name)[rows] for field in fields(self)))


def spans(
    live: NDArray[np.bool_], num_states: Ints, uniform_from: Floats, uniform_to: Floats
) -> tuple[Ints, Ints]:
    """Return the half-open spans [f, t), each (B, n), that the states lead into (step 4).

    t is moved up until two live states lie in (s, t), or to S.
    """
    count, size = num_states[:, None], live.shape[1]
    s = np.arange(size)
    forward, backward = count // 4 + 1, count // 2 + 1
    lowest = np.maximum(0, s - backward)
    begin = lowest + (uniform_from * (np.maximum(s - 1, lowest + 1) - lowest)).astype(np.int64)
    highest = np.minimum(count, s + forward)
    least = np.minimum(np.minimum(count - 1, s + 1), highest - 1)
    end = least + (uniform_to * (highest - least)).astype(np.int64)
    # The k-th live state is at places[k]; beyond the last one stands S - 1, which moves t to S.
    places = np.argsort(~live, axis=1, kind="stable")
    places = np.where(s < live.sum(1, keepdims=True), places, count - 1)
    second = np.minimum(np.cumsum(live, axis=1) + 1, size - 1)
    return begin, np.maximum(end, np.take_along_axis(places, second, axis=1) + 1)


def state_weights(
    live: NDArray[np.bool_], num_states: Ints, begin: Ints, end: Ints, normal: Floats
) -> Floats:
    """Return p̂(s'|s) (B, n, n), rows of zeros where `live` is False (step 5)."""
    s = np.arange(live.shape[1])
    inside = (s >= begin[..., None]) & (s < end[..., None]) & live[..., None]
    weights = np.clip(normal, 0.10, 1.0) * inside
    weights[:, s, s] *= np.where(s == num_states[:, None] - 1, 0.0, 0.5)
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def action_transitions(weights: Floats, begin: Ints, end: Ints, centre: Floats, width: Floats) -> Floats:
    """Return P(s'|s,a) (B, n, A, n): p̂ seen through Gaussian windows, one an action (step 6)."""
    places = np.arange(weights.shape[-1], dtype=np.float64)
    centres = begin[..., None] - 1 + centre * (end - begin + 1)[..., None]
    kernel = centres[..., None] - places
    kernel *= kernel
    kernel *= (-1 / np.clip(width, 0.2, 1.6) ** 2)[..., None, None]
    np.exp(kernel, out=kernel)
    total = kernel.sum(2)
    unreached = np.argwhere((total < 1e-10) & (weights > 0))
    if len(unreached):  # no action comes near: the nearest one leads there
        b, s, to = unreached.T
        nearest = np.abs(centres[b, s] - to[:, None]).argmin(-1)
        kernel[b, s, nearest, to] = 1.0
        total[b, s, to] = kernel[b, s, :, to].sum(-1)
    kernel *= (weights / np.where(weights > 0, total, 1.0))[:, :, None, :]
    mass = kernel.sum(-1, keepdims=True)
    kernel /= np.where(mass > 0, mass, 1.0)
    return kernel


Redraw = Callable[[Ints], tuple[Floats, Floats, Floats]]
"""Candidates (M,) -> new uniforms for f and t (M, n) each and new normals (M, n, n) of theirs."""


def build(draws: Draws, num_states: Ints, states: int, redraw: Redraw | None = None) -> Candidates:
    """Return B candidates with `num_states` (B,) of `states` places each (steps 2 to 7).

    With `redraw` every row of p̂ meets the paper's bounds (`strict_paper`): rows that do not are drawn again.
    """
    uniform, normal, exponential = draws.uniform, draws.normal, draws.exponential
    real = np.arange(states) < num_states[:, None]
    start_probs = _starts(uniform["start_set"], normal["start"], states)
    terminal, goal = _terminals(uniform, start_probs, real, num_states)
    live = real & ~terminal
    begin, end = spans(live, num_states, uniform["span_from"], uniform["span_to"])
    weights = state_weights(live, num_states, begin, end, normal["weight"])
    if redraw is not None:
        _redraw_rows(live, num_states, begin, end, weights, redraw)
    transition = action_transitions(weights, begin, end, uniform["centre"], exponential["width"])
    reward_from, reward_to, noise_from, noise_to = _rewards(draws, live, real, terminal, goal, num_states)
    return Candidates(
        num_states=num_states,
        start_probs=start_probs,
        terminal=terminal,
        live=live,
        goal=goal,
        weights=weights,
        transition=transition,
        reward_from=reward_from,
        reward_to=reward_to,
        noise_from=noise_from,
        noise_to=noise_to,
        margin=2 + 3 * uniform["margin"],
        pit_step=1 + 9 * uniform["pit_step"],
        goal_step=1 + 9 * uniform["goal_step"],
    )


def _redraw_rows(
    live: NDArray[np.bool_], num_states: Ints, begin: Ints, end: Ints, weights: Floats, redraw: Redraw
) -> None:
    """Replace, in place, the rows without enough mass behind them (η) or before them, until all have it.

    The rows are independent of each other, so this is the law of all of them given that all meet the bounds.
    """
    while len(rows := np.flatnonzero((wrong := ~_banded(live, num_states, weights)).any(1))):
        uniform_from, uniform_to, normal = redraw(rows)
        new_begin, new_end = spans(live[rows], num_states[rows], uniform_from, uniform_to)
        new = state_weights(live[rows], num_states[rows], new_begin, new_end, normal)
        replaced = wrong[rows]
        begin[rows] = np.where(replaced, new_begin, begin[rows])
        end[rows] = np.where(replaced, new_end, end[rows])
        weights[rows] = np.where(replaced[..., None], new, weights[rows])


def _banded(live: NDArray[np.bool_], num_states: Ints, weights: Floats) -> NDArray[np.bool_]:
    """(B, n): over η = 0.5 of the mass behind the row (beyond b₋), over 1e-3 ahead (before S-1)."""
    s = np.arange(live.shape[1])
    behind = (weights * (s < s[:, None])).sum(-1)
    ahead = (weights * (s > s[:, None])).sum(-1)
    needs_behind = s > num_states[:, None] // 2 + 1
    needs_ahead = s < num_states[:, None] - 1
    return ~live | ((~needs_behind | (behind > 0.5)) & (~needs_ahead | (ahead > 1e-3)))


def _starts(uniform: Floats, normal: Floats, states: int) -> Floats:
    """max(N, 0) of three states, not all 0: one of the 7 patterns of signs, then half-normals (step 2)."""
    pattern = 1 + (uniform * 7).astype(np.int64)
    chosen = (pattern[:, None] >> np.arange(STARTS)) & 1
    weights = np.abs(normal) * chosen
    probs = np.zeros((len(uniform), states))
    probs[:, :STARTS] = weights / weights.sum(1, keepdims=True)
    return probs


def _terminals(
    uniform: dict[str, Floats], start_probs: Floats, real: NDArray[np.bool_], num_states: Ints
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bernoulli(p) states, given that fewer than S p + 1 came out: their number, then which (step 3)."""
    rate = np.maximum(0.6 * uniform["terminal_rate"] - 0.2, 0.0)
    number = _fewer_successes(num_states, rate, uniform["terminal_count"])
    order = np.argsort(np.where(real, uniform["terminal_order"], 2.0), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    terminal = (rank < number[:, None]) & (start_probs == 0)
    goal = uniform["goal"] < 0.3
    terminal[np.arange(len(goal)), num_states - 1] = goal
    return terminal, goal


def _fewer_successes(trials: Ints, rate: Floats, uniform: Floats) -> Ints:
    """Draw from Binomial(S, p) given that it is below S p + 1, by inversion."""
    k = np.arange(int(trials.max()) + 1)
    limit = trials * rate + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        # log of C(S, k) p^k (1-p)^(S-k) by its ratios; p = 0 leaves k = 0 alone
        ratio = (trials[:, None] - k[:-1]) / k[1:] * (rate / (1 - rate))[:, None]
        logs = np.concatenate([np.zeros((len(trials), 1)), np.cumsum(np.log(ratio), axis=1)], axis=1)
    logs = np.where((k < limit[:, None]) & (k <= trials[:, None]), logs, -np.inf)
    cumulative = np.cumsum(np.exp(logs - logs.max(1, keepdims=True)), axis=1)
    return (uniform[:, None] * cumulative[:, -1:] >= cumulative).sum(1)


def _rewards(
    draws: Draws,
    live: NDArray[np.bool_],
    real: NDArray[np.bool_],
    terminal: NDArray[np.bool_],
    goal: NDArray[np.bool_],
    num_states: Ints,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the four parts of reward and noise that `Candidates` names (step 7)."""
    uniform, normal, exponential = draws.uniform, draws.normal, draws.exponential
    potential = _potential(draws, num_states, live.shape[1])
    position, position_noise = _position_rewards(draws, num_states, real & ~terminal, real)
    base = np.minimum(0.05 * exponential["action_base"], 0.1)[:, None, None]
    support = base * (uniform["action_support"] > 0.7)
    drift = 0.01 * normal["step"]
    step = np.where(goal, np.minimum(drift, 0), np.where(terminal.any(1), np.maximum(drift, 0), 0))
    reward_from = (potential + step[:, None])[..., None] + support * normal["action_value"]
    return (
        reward_from * live[..., None],
        (position - potential) * real,
        0.3 * support * np.maximum(normal["action_noise"], 0) * live[..., None],
        position_noise,
    )


def _potential(draws: Draws, num_states: Ints, states: int) -> Floats:
    """v(s) (B, n): up to three random harmonics of s / 2S; its constant would cancel in v(s) - v(s')."""
    uniform, normal, exponential = draws.uniform, draws.normal, draws.exponential
    size = np.clip(exponential["potential"], 0.2, 5) * (uniform["potential"] >= 0.5)
    box = np.maximum(size * (2 * uniform["potential_box"] - 1), 0)
    harmonics = 1 + (3 * uniform["harmonics"]).astype(np.int64)
    used = np.arange(_HARMONICS) < harmonics[:, None]
    order = 1 + np.floor(5 * uniform["harmonic_order"]) + normal["harmonic_order"]
    amplitude = normal["harmonic"] * exponential["harmonic"] * (box / np.sqrt(harmonics))[:, None, None]
    amplitude *= used[..., None]
    angle = order[..., None] * (np.arange(states) / (2 * num_states[:, None]))[:, None, :]
    waves = amplitude[..., :1] * np.sin(angle) + amplitude[..., 1:] * np.cos(angle)
    return waves.sum(1)


def _position_rewards(
    draws: Draws, num_states: Ints, live: NDArray[np.bool_], real: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """r_s(s') and its noise (B, n): rising with the rank, 0 at terminal states."""
    base = 0.2 * draws.exponential["state_base"]
    steps = np.maximum(draws.normal["state_step"], 0)
    steps[np.arange(len(base)), num_states - 1] += 0.2
    rise = np.cumsum(steps * real, axis=1) * base[:, None]
    height = rise[:, -1] * (0.1 + 0.8 * draws.uniform["baseline"])
    noise = np.maximum(0.6 * draws.uniform["state_noise"] - 0.3, 0) * base[:, None]
    return (rise - height[:, None]) * live, noise * live
