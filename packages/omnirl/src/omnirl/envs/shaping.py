"""The rewards that the model sees in Gymnasium's tasks (2.8); scores always count the environment's own.

    FrozenLake     goal 1, hole -1, else 0 where it is slippery and -0.05 where it is not
    CliffWalking   goal 1, the cliff -1 and the end of the episode, else -0.03
    Pendulum       max(r / 30 + 0.1, -0.1)
    MountainCar    -0.01 + 10 (v^2 + 0.66 trace), the goal 1; trace <- v^2 + 0.66 trace

A shaping is called with arrays of many environments as well as with the numbers of one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import ArrayLike, NDArray

from omnirl.errors import OmniRLError


class RawStep(NamedTuple):
    """What an environment gave, numbers or arrays (E,) and (E, ...)."""

    observation: ArrayLike
    action: ArrayLike
    reward: ArrayLike
    next_observation: ArrayLike
    terminated: ArrayLike
    truncated: ArrayLike


class Shaping:
    """From raw steps to rewards for the model; called once a step, in order."""

    def __call__(self, step: RawStep) -> NDArray[np.float64]:
        """The shaped reward, of the shape of `step.reward`."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the episodes so far, if any of them matters."""

    def truncates(self, step: RawStep) -> NDArray[np.bool_]:
        """Whether the step is to end the episode, beside the environment's own ends."""
        return np.zeros(np.shape(step.reward), bool)


class FrozenLakeShaping(Shaping):
    """Goal 1, hole -1, else `otherwise`."""

    def __init__(self, otherwise: float) -> None:
        self.otherwise = otherwise

    def __call__(self, step: RawStep) -> NDArray[np.float64]:
        """The shaped reward."""
        ended = np.where(np.asarray(step.reward) > 0, 1.0, -1.0)
        return np.where(step.terminated, ended, self.otherwise)


class CliffWalkingShaping(Shaping):
    """Goal 1, the cliff -1 and the end, else -0.03."""

    def __call__(self, step: RawStep) -> NDArray[np.float64]:
        """The shaped reward."""
        return np.where(step.terminated, 1.0, np.where(self.truncates(step), -1.0, -0.03))

    def truncates(self, step: RawStep) -> NDArray[np.bool_]:
        """The cliff ends the episode: Gymnasium's environment goes on from the start, with -100."""
        return np.asarray(step.reward) <= -100


class PendulumShaping(Shaping):
    """max(r / 30 + 0.1, -0.1)."""

    def __call__(self, step: RawStep) -> NDArray[np.float64]:
        """The shaped reward."""
        return np.maximum(np.asarray(step.reward, np.float64) / 30 + 0.1, -0.1)


class MountainCarShaping(Shaping):
    """-0.01 + 10 (v^2 + 0.66 trace), the goal 1; from the environment's continuous observations."""

    def __init__(self) -> None:
        self._trace: NDArray[np.float64] = np.zeros(())

    def reset(self) -> None:
        """Forget the trace; it is also forgotten where an episode ends."""
        self._trace = np.zeros(())

    def __call__(self, step: RawStep) -> NDArray[np.float64]:
        """The shaped reward."""
        velocity = np.asarray(step.next_observation, np.float64)[..., 1]
        trace = velocity**2 + 0.66 * self._trace
        self._trace = np.where(np.logical_or(step.terminated, step.truncated), 0.0, trace)
        return np.where(step.terminated, 1.0, -0.01 + 10 * trace)


class ScaledShaping(Shaping):
    """Another shaping times a factor, such as 4 for rewards of the size that AnyMDP's are."""

    def __init__(self, shaping: Shaping, factor: float) -> None:
        self.shaping, self.factor = shaping, factor

    def __call__(self, step: RawStep) -> NDArray[np.float64]:
        """The scaled reward."""
        return self.factor * self.shaping(step)

    def reset(self) -> None:
        """Forget as the other does."""
        self.shaping.reset()

    def truncates(self, step: RawStep) -> NDArray[np.bool_]:
        """Whether the other ends the episode."""
        return self.shaping.truncates(step)


_MAKERS: dict[str, Callable[[Any], Shaping]] = {
    "frozenlake": lambda env: FrozenLakeShaping(0.0 if _is_slippery(env) else -0.05),
    "cliffwalking": lambda env: CliffWalkingShaping(),
    "pendulum": lambda env: PendulumShaping(),
    "mountaincar": lambda env: MountainCarShaping(),
}


def named_shaping(name: str, env: gymnasium.Env[Any, Any]) -> Shaping:
    """A new shaping by name, "frozenlake", "cliffwalking", "pendulum" or "mountaincar", for this environment.

    Raises `OmniRLError` for another name.
    """
    if name not in _MAKERS:
        near = difflib.get_close_matches(name, _MAKERS, 1)
        hint = f"; do you mean {near[0]!r}?" if near else ""
        raise OmniRLError(f"shaping={name!r} is not known; there are {', '.join(_MAKERS)}{hint}")
    return _MAKERS[name](env)


def _is_slippery(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether some action of the environment's table has more than one outcome."""
    table = getattr(env.unwrapped, "P", None)
    if not table:
        raise OmniRLError("shaping='frozenlake' needs an environment with a transition table `P`")
    return any(len({row[1] for row in rows}) > 1 for actions in table.values() for rows in actions.values())


class ShapedReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The environment with the shaped reward; `info["raw_reward"]` is its own.

    `shaping` is a name, or a function of a `RawStep`. It goes inside a discretisation, so that it sees the
    environment's own observations.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], shaping: str | Shaping | Callable[[RawStep], ArrayLike]
    ) -> None:
        RecordConstructorArgs.__init__(self, shaping=shaping)
        gymnasium.Wrapper.__init__(self, env)
        self.shaping = named_shaping(shaping, env) if isinstance(shaping, str) else shaping
        self._observation: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        if isinstance(self.shaping, Shaping):
            self.shaping.reset()
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; the reward is the shaped one."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        step = RawStep(self._observation, action, float(reward), observation, terminated, truncated)
        if isinstance(self.shaping, Shaping):
            truncated = bool(truncated or self.shaping.truncates(step))
        self._observation = observation
        shaped = float(np.asarray(self.shaping(step)))
        return observation, shaped, terminated, truncated, {**info, "raw_reward": float(reward)}
