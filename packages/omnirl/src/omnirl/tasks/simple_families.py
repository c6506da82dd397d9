"""The two families without a filter: Garnet and the bandit (end of section 2.1)."""

from __future__ import annotations

from typing import Any

import numpy as np


def garnet_tables(rng: np.random.Generator, states: int, actions: int, branching: int) -> dict[str, Any]:
    """Return the tables of Garnet(states, actions, branching): `branching` successors a (state, action).

    Their probabilities are the spacings of sorted uniforms; rewards are Normal(0, 0.1) a (s, a, s'), without
    noise; the episode starts in state 0 and has no terminal state.
    """
    # The first places of a random order are a draw without replacement.
    successors = rng.random((states, actions, states)).argsort(-1)[..., :branching]
    inner = np.sort(rng.random((states, actions, branching - 1)), axis=-1)
    edges = np.concatenate([np.zeros((states, actions, 1)), inner, np.ones((states, actions, 1))], axis=-1)
    transition = np.zeros((states, actions, states))
    np.put_along_axis(transition, successors, np.diff(edges), axis=-1)
    start = np.zeros(states)
    start[0] = 1
    return {
        "transition": transition,
        "reward": 0.1 * rng.standard_normal((states, actions, states)),
        "start_probs": start,
    }


def bandit_tables(rng: np.random.Generator, actions: int) -> dict[str, Any]:
    """Return the tables of a bandit: one state, every step ends the episode."""
    base = np.clip(rng.standard_exponential(), 0.05, 2.0)
    noise = max(rng.uniform(-0.3, 0.3), 0.0)
    while True:  # arms that are too much alike are drawn again
        reward = rng.uniform(0.5 * base, base, size=(1, actions, 1))
        if reward.std() > 0.01:
            break
    return {
        "transition": np.ones((1, actions, 1)),
        "reward": reward,
        "reward_noise": noise * reward,
        "start_probs": np.ones(1),
        "terminal": np.ones(1, bool),
    }
