"""The exact task behind an environment that has a `P` table: FrozenLake, CliffWalking, Taxi and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.errors import OmniRLError
from omnirl.tasks.task import Floats, Task

Cut = Callable[[int, int, float, int, bool], bool]
"""Of (state, action, reward, next state, terminated): whether this entry ends the episode besides."""


def task_from_gymnasium(env: Any, max_steps: int | None, cut: Cut | None = None) -> Task:
    """Read `env.unwrapped.P[state][action] = [(probability, next state, reward, terminated), ...]`.

    Where two entries of a row lead to the same state with different rewards, the reward of the task is their
    mean and its noise their standard deviation: values stay exact, the law of a single reward does not. An
    entry that `cut` says true of leads to one more state instead, the last, which ends the episode.
    """
    world = env.unwrapped
    name = getattr(getattr(env, "spec", None), "id", None) or type(world).__name__
    table = getattr(world, "P", None)
    if not table:
        raise OmniRLError(f"{name} has no transition table `P`; only tabular environments have an exact task")
    limit = max_steps or getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if limit is None:
        raise OmniRLError(f"{name} has no limit of steps; pass max_steps=, for example max_steps=200")
    real = len(table)
    table = table if cut is None else _with_cuts(table, cut)
    start = np.pad(_start_distribution(world, name), (0, len(table) - real))
    probability, total, square, terminal = _read(table, start, name)
    weight = np.where(probability > 0, probability, 1.0)
    reward = total / weight
    variance = square / weight - reward**2
    # What is left of a difference of equal squares is rounding, no noise.
    noise = np.sqrt(np.where(variance > 1e-9 * np.maximum(square / weight, 1.0), variance, 0.0))
    start_states = np.flatnonzero(start)
    states, actions = probability.shape[:2]
    return Task(
        transition=probability,
        reward=reward,
        reward_noise=noise,
        start_states=start_states,
        start_probs=start[start_states],
        terminal_states=np.flatnonzero(terminal),
        state_mapping=np.arange(states),
        num_observations=states,
        num_actions=actions,
        max_steps=limit,
        goal_terminates=bool(terminal[-1]) and states == real,
        family=name,
    )


def _with_cuts(table: Any, cut: Cut) -> Any:
    """The table in which the entries that are cut lead to a state of their own; itself where none is.

    This comes before entries are merged: slipping into a cliff and staying at the start both lead to the
    start.
    """
    end, changed = len(table), False
    found: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {}
    for s, actions in table.items():
        found[s] = {}
        for a, entries in actions.items():
            cuts = [cut(s, a, r, after, ended) for _, after, r, ended in entries]
            changed |= any(cuts)
            found[s][a] = [
                (p, end, r, True) if ends else (p, after, r, ended)
                for (p, after, r, ended), ends in zip(entries, cuts, strict=True)
            ]
    return found | {end: {a: [(1.0, end, 0.0, True)] for a in table[0]}} if changed else table


def _read(table: Any, starts: Floats, name: str) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    states, actions = len(table), len(table[0])
    probability, total, square = (np.zeros((states, actions, states)) for _ in range(3))
    terminal, live = _states_met(table, starts)
    for s in range(states):
        if terminal[s]:
            continue  # an episode never goes on from here
        for a in range(actions):
            for p, after, r, ended in table[s][a]:
                if live[s] and p > 0 and terminal[after] and not ended:
                    raise OmniRLError(
                        f"{name}: state {after} ends the episode, but not when it is entered from state {s} "
                        f"by action {a}; a task has terminal states only"
                    )
                probability[s, a, after] += p
                total[s, a, after] += p * r
                square[s, a, after] += p * r * r
    return probability, total, square, terminal


def _states_met(table: Any, starts: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (terminal, live): the states that end an episode, and those that one can go on from.

    Only what an episode can meet counts: in Taxi there are also states that no episode reaches, with moves
    into its terminal states that do not end.
    """
    terminal, live = np.zeros(len(table), bool), starts > 0
    waiting = np.flatnonzero(live).tolist()
    while waiting:
        state = waiting.pop()
        for entries in table[state].values():
            for p, after, _, ended in entries:
                if p > 0 and ended:
                    terminal[after] = True
                elif p > 0 and not live[after]:
                    live[after] = True
                    waiting.append(after)
    return terminal, live


def _start_distribution(world: Any, name: str) -> Floats:
    start = getattr(world, "initial_state_distrib", None)
    if start is None:
        raise OmniRLError(f"{name} has no `initial_state_distrib`, so where its episodes start is not known")
    return np.asarray(start, np.float64)
