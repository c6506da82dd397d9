"""What every table of a task must satisfy; the first entry that does not is named."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from omnirl.errors import OmniRLError

ROW_TOLERANCE = 1e-6
"""How far a row of probabilities may be from a sum of 1."""


def check_tables(tables: Mapping[str, NDArray], where: str) -> None:
    """Check `transition`, `reward`, `reward_noise` (N, S, A, S) and `start_probs` (N, S).

    `live` (N, S) bool: the states that an episode can go on from, neither terminal nor padding. `where` names
    the task, with {0} for its index. Raises `OmniRLError` naming task, (state, action) and value.
    """
    transition, live = tables["transition"], tables["live"]
    for name in ("transition", "reward", "reward_noise", "start_probs"):
        if not np.isfinite(tables[name]).all():
            raise OmniRLError(_first(name, tables[name], ~np.isfinite(tables[name]), where, "is not finite"))
    for name in ("transition", "reward_noise", "start_probs"):
        if (tables[name] < 0).any():
            raise OmniRLError(_first(name, tables[name], tables[name] < 0, where, "is negative"))
    sums = transition.sum(-1)
    expected = live[..., None].astype(float)
    wrong = np.abs(sums - expected) > ROW_TOLERANCE
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        need = "1" if live[at[:2]] else "0, because the state is terminal"
        raise OmniRLError(
            f"{where.format(at[0])}: the row of transition at (state, action) = ({at[1]}, {at[2]}) sums to "
            f"{sums[at]:.9g}; it must sum to {need}"
        )
    total = tables["start_probs"].sum(-1)
    if (np.abs(total - 1) > ROW_TOLERANCE).any():
        first = int(np.argmax(np.abs(total - 1) > ROW_TOLERANCE))
        raise OmniRLError(f"{where.format(first)}: start_probs sums to {total[first]:.9g}; it must sum to 1")
    outside = (tables["start_probs"] > 0) & ~live
    if outside.any():
        task, state = np.argwhere(outside)[0]
        raise OmniRLError(f"{where.format(task)}: state {state} is a start state and a terminal state")


def _first(name: str, array: NDArray, wrong: NDArray, where: str, what: str) -> str:
    at = tuple(np.argwhere(wrong)[0])
    place = (
        f"state {at[1]}" if array.ndim == 2 else f"(state, action, next state) = {tuple(map(int, at[1:]))}"
    )
    return f"{where.format(at[0])}: {name} at {place} {what}: {array[at]:.9g}"
