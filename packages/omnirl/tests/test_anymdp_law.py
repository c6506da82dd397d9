"""The law of single steps of the sampler, each against its plain reading or its exact distribution."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from omnirl.tasks import anymdp
from omnirl.tasks.acceptance import accept, start_rows_of_power
from omnirl.tasks.anymdp import Candidates, block_sizes, build, name_draws

LEAST_P = 1e-4


def random_blocks(count: int, states: int, actions: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng, sizes = np.random.default_rng(seed), block_sizes(states, actions)
    return {
        "uniform": rng.random((count, sizes["uniform"])),
        "normal": rng.standard_normal((count, sizes["normal"])),
        "exponential": rng.standard_exponential((count, sizes["exponential"])),
    }


def candidates(count: int, states: int, actions: int = 5, fewer: int = 0) -> Candidates:
    sizes = np.random.default_rng(1).integers(states - fewer, states + 1, count)
    return build(name_draws(random_blocks(count, states, actions), states, actions), sizes, states)


def test_a_span_is_what_the_loop_of_the_rule_gives() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(8, 25, 200)
    live = (rng.random((200, 24)) < 0.6) & (np.arange(24) < sizes[:, None])
    uniform = rng.random((2, 200, 24))
    begin, end = anymdp.spans(live, sizes, *uniform)
    for task, size in enumerate(sizes):
        back, ahead = size // 2 + 1, size // 4 + 1
        for s in np.flatnonzero(live[task]):
            choices = range(max(0, s - back), max(0, s - 1, max(0, s - back) + 1))
            assert begin[task, s] == choices[int(uniform[0, task, s] * len(choices))]
            t_max = min(size, s + ahead)
            choices = range(min(size - 1, s + 1, t_max - 1), t_max)
            t = choices[int(uniform[1, task, s] * len(choices))]
            while t < size and live[task, s + 1 : t].sum() < 2:
                t += 1
            assert end[task, s] == t


def test_windows_split_a_row_among_actions_as_the_rule_says() -> None:
    made = candidates(6, 12)
    blocks = name_draws(random_blocks(6, 12, 5), 12, 5)
    begin, end = anymdp.spans(
        made.live, made.num_states, blocks.uniform["span_from"], blocks.uniform["span_to"]
    )
    for b, s in np.argwhere(made.live):
        f, t = begin[b, s], end[b, s]
        raw = np.clip(blocks.normal["weight"][b, s, f:t], 0.1, 1.0)
        raw[s - f] *= 0 if s == 11 else 0.5
        p = raw / raw.sum()
        centre = f - 1 + blocks.uniform["centre"][b, s] * (t - f + 1)
        width = np.clip(blocks.exponential["width"][b, s], 0.2, 1.6)
        kernel = np.exp(-(((centre[:, None] - np.arange(f, t)) / width) ** 2))
        for to in np.flatnonzero(kernel.sum(0) < 1e-10):
            kernel[np.abs(centre - f - to).argmin(), to] = 1
        kernel = kernel / kernel.sum(0) * p
        kernel /= kernel.sum(1, keepdims=True)
        np.testing.assert_allclose(made.transition[b, s, :, f:t], kernel, atol=1e-12)


def test_a_place_that_no_window_reaches_is_led_to_by_the_nearest_action() -> None:
    # Both centres at f - 1 = -1 with the least width: e^-((10/0.2)^2) is 0 at place 9.
    weights = np.zeros((1, 1, 10))
    weights[0, 0, [0, 9]] = 0.5
    begin, end = np.array([[0]]), np.array([[10]])
    got = anymdp.action_transitions(weights, begin, end, np.array([[[0.0, 0.01]]]), np.array([[0.1]]))
    np.testing.assert_allclose(got[0, 0].sum(-1), 1)
    assert got[0, 0, 0, 9] < 1e-10  # centre -1
    assert got[0, 0, 1, 9] > 0.4  # centre -0.89, nearer


def test_start_states_are_the_seven_patterns_of_signs_with_half_normal_weights() -> None:
    probs = candidates(7000, 8).start_probs
    np.testing.assert_allclose(probs.sum(1), 1)
    assert not probs[:, 3:].any()
    patterns = (probs[:, :3] > 0) @ [1, 2, 4]
    assert stats.chisquare(np.bincount(patterns, minlength=8)[1:]).pvalue > LEAST_P
    rng = np.random.default_rng(5)  # the share of state 0 when all three are starts
    weights = np.abs(rng.standard_normal((4000, 3)))
    share = weights[:, 0] / weights.sum(1)
    assert stats.ks_2samp(probs[patterns == 7][:, 0], share).pvalue > LEAST_P


@pytest.mark.parametrize(("rate", "limit"), [(0.05, 1.4), (0.3, 3.4), (0.39, 4.12)])
def test_the_number_of_terminal_states_is_a_binomial_below_its_limit(rate: float, limit: float) -> None:
    count, n = 20_000, 8
    got = anymdp._fewer_successes(
        np.full(count, n), np.full(count, rate), np.random.default_rng(0).random(count)
    )
    ks = np.arange(n + 1)[np.arange(n + 1) < limit]
    expected = stats.binom.pmf(ks, n, rate)
    observed = np.bincount(got, minlength=n + 1)
    assert observed[len(ks) :].sum() == 0
    assert stats.chisquare(observed[: len(ks)], count * expected / expected.sum()).pvalue > LEAST_P


def test_no_state_ends_the_episode_at_a_rate_of_0() -> None:
    assert not anymdp._fewer_successes(np.full(50, 16), np.zeros(50), np.linspace(0, 0.999, 50)).any()


def test_the_goal_ends_three_episodes_in_ten_and_pitfalls_are_spread_evenly() -> None:
    made = candidates(8000, 16)
    assert stats.binomtest(int(made.goal.sum()), 8000, 0.3).pvalue > LEAST_P
    np.testing.assert_array_equal(made.terminal[:, -1], made.goal)
    assert stats.chisquare(made.terminal[:, 3:-1].sum(0)).pvalue > LEAST_P
    assert not (made.terminal & (made.start_probs > 0)).any()


def test_rewards_of_positions_rise_with_the_rank_and_rest_at_terminal_states() -> None:
    count, n = 300, 16
    draws = name_draws(random_blocks(count, n, 5), n, 5)
    draws.uniform["potential"][:] = 0  # no potential
    made = build(draws, np.full(count, n), n)
    for task in range(count):
        assert (np.diff(made.reward_to[task, made.live[task]]) >= 0).all()
    assert not made.reward_to[made.terminal].any()
    assert not made.noise_to[made.terminal].any()


def test_the_potential_is_its_sum_of_waves_and_cancels_on_a_round_trip() -> None:
    draws = name_draws(random_blocks(50, 16, 5), 16, 5)
    draws.uniform["potential"][:] = 0.9
    v = anymdp._potential(draws, np.full(50, 16), 16)
    for task in range(50):
        k = 1 + int(3 * draws.uniform["harmonics"][task])
        base = np.clip(draws.exponential["potential"][task], 0.2, 5)
        box = max(base * (2 * draws.uniform["potential_box"][task] - 1), 0)
        x, total = np.arange(16) / 32, np.zeros(16)
        for j in range(k):
            o = 1 + int(5 * draws.uniform["harmonic_order"][task, j])
            o = o + draws.normal["harmonic_order"][task, j]
            a, b = (draws.normal["harmonic"] * draws.exponential["harmonic"])[task, j] * box / np.sqrt(k)
            total += a * np.sin(o * x) + b * np.cos(o * x)
        np.testing.assert_allclose(v[task], total, atol=1e-12)


def test_candidates_of_fewer_states_leave_the_rest_empty() -> None:
    made = candidates(60, 16, fewer=8)
    for task, size in enumerate(made.num_states):
        assert not made.transition[task, size:].any()
        assert not made.transition[task, :, :, size:].any()
        assert not made.reward_to[task, size:].any()
        assert not made.live[task, size:].any()
        sums = made.transition[task].sum(-1)
        np.testing.assert_allclose(sums, np.broadcast_to(made.live[task][:, None], sums.shape), atol=1e-12)


def test_a_power_of_a_chain_by_doubling_is_the_power() -> None:
    rng = np.random.default_rng(0)
    chain = rng.dirichlet(np.full(6, 0.2), (5, 6))
    doublings = np.array([4, 5, 7, 8, 9])
    got = start_rows_of_power(chain, doublings)
    for task, number in enumerate(doublings):
        expected = np.linalg.matrix_power(chain[task], 2 ** int(number))[:3]
        np.testing.assert_allclose(got[task], expected, atol=1e-12)


def test_the_tally_counts_what_passes_each_filter() -> None:
    tally: Counter[str] = Counter()
    rows, terminal = accept(candidates(200, 16), np.full(200, 110.0), False, tally)
    assert list(tally) == ["candidates", "terminal rewards", "gain over random", "spread of visits"]
    assert list(tally.values()) == sorted(tally.values(), reverse=True)
    assert tally["spread of visits"] == len(rows) == len(terminal)
