"""Is the policy learning to please the PRM? Its rewards then rise while the verifier's outcomes fall."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf, sqrt
from statistics import mean, variance

WINDOW = 20
"""Steps that are looked at: the later half against the earlier one."""

SURE = 3.0
"""Standard errors by which both must have moved; chance gets there in some 15 of a million windows."""


class OveroptimizationAlarm:
    """Watches the mean outcome reward of the PRM and the mean outcome of all responses, step by step."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def add(self, prm_reward: float, outcome: float) -> str | None:
        """Take in a step; what is wrong, in words, once in a window, or None."""
        self._seen.append((prm_reward, outcome))
        if len(self._seen) < WINDOW:
            return None
        rewards, outcomes = zip(*self._seen, strict=True)
        if _rise(rewards) < SURE or _rise(outcomes) > -SURE:
            return None
        self._seen.clear()
        half = WINDOW // 2
        return (
            f"over the last {half} steps the PRM's rewards rose, from {mean(rewards[:half]):.3g} to "
            f"{mean(rewards[half:]):.3g}, while outcomes fell, from {mean(outcomes[:half]):.3g} to "
            f"{mean(outcomes[half:]):.3g}: the policy learns to please the PRM. Look at responses "
            "(implicit-prm score, then view), lower process_weight or process_gamma, or train the PRM on "
            "more (prm_train_on='all', prm_replay_steps)"
        )

    def state_dict(self) -> list[list[float]]:
        """The steps in the window, as JSON can hold them."""
        return [list(step) for step in self._seen]

    def load_state_dict(self, steps: Iterable[Sequence[float]]) -> None:
        """Go on where another alarm was."""
        self._seen = deque(((reward, outcome) for reward, outcome in steps), WINDOW)


def _rise(values: Sequence[float]) -> float:
    """By how many standard errors the later half's mean is above the earlier half's (Welch)."""
    half = len(values) // 2
    early, late = values[:half], values[half:]
    error = sqrt((variance(early) + variance(late)) / half)
    gap = mean(late) - mean(early)
    return gap / error if error else inf if gap > 0 else -inf if gap < 0 else 0.0
