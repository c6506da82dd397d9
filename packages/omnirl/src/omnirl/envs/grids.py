"""Continuous environments made discrete: grids over observations, levels for actions (2.8).

Pendulum-v1      12 angles over [0, 2 pi) x 5 speeds over [-8, 8]; torques -2, -1, 0, 1, 2
MountainCar-v0   12 positions over [-1.2, 0.6] x 5 velocities over [-0.07, 0.07]
others           a grid given by the user, or a uniform one of at most 128 cells
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import ArrayLike, NDArray

from omnirl.errors import OmniRLError

Features = Callable[[NDArray[np.floating]], NDArray[np.floating]]
"""From observations (..., d) to the quantities (..., k) that a grid counts."""


@dataclass(frozen=True)
class Grid:
    """A grid over k quantities: `bins[i]` equal bins from `low[i]` to `high[i]`; what is beyond is in the
    first or the last.

    The id of a cell counts the first quantity slowest: of (i, j) it is i * bins[1] + j. Raises `OmniRLError`
    for limits that are not finite or in order, and for fewer than one bin.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    bins: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.bins) > 0:
            raise OmniRLError(f"low, high and bins of a grid have one length; theirs: {self._lengths()}")
        for i, (low, high, bins) in enumerate(zip(self.low, self.high, self.bins, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high and bins >= 1):
                raise OmniRLError(
                    f"quantity {i} of the grid has {bins} bins from {low} to {high}; it needs at least one "
                    f"bin and finite limits, the lower first"
                )

    def _lengths(self) -> tuple[int, int, int]:
        return len(self.low), len(self.high), len(self.bins)

    @property
    def size(self) -> int:
        """The number of cells."""
        return math.prod(self.bins)

    def __call__(self, values: ArrayLike) -> NDArray[np.int64]:
        """Ids of the cells (...) int64 of quantities (..., k)."""
        low, high, bins = np.array(self.low), np.array(self.high), np.array(self.bins)
        scaled = (np.asarray(values, np.float64) - low) / (high - low) * bins
        index = np.floor(scaled).clip(0, bins - 1).astype(np.int64)
        found: NDArray[np.int64] = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), self.bins)
        return found


class GridObservation(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Shows the cell of a grid instead of the observation: ids in 0..grid.size-1.

    `features` gives the grid's quantities of an observation; None: the observation itself.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], grid: Grid, features: Features | None = None) -> None:
        RecordConstructorArgs.__init__(self, grid=grid, features=features)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.grid = grid
        self.features = features
        self.observation_space = Discrete(grid.size)

    def observation(self, observation: NDArray[np.floating]) -> np.int64:
        """The id of the cell that the observation (d,) lies in."""
        values = np.asarray(observation) if self.features is None else self.features(np.asarray(observation))
        return np.int64(self.grid(values))


class ActionLevels(gymnasium.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Offers `levels` evenly spaced values of a single continuous action, the lowest first.

    Raises `OmniRLError` for more than one continuous action, and for fewer than two levels.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], levels: int = 5) -> None:
        RecordConstructorArgs.__init__(self, levels=levels)
        gymnasium.ActionWrapper.__init__(self, env)
        space = env.action_space
        if not isinstance(space, Box) or space.shape != (1,) or levels < 2:
            raise OmniRLError(
                f"{levels} levels for the actions {space}: it takes at least 2, of a single continuous action"
            )
        self.values = np.linspace(space.low[0], space.high[0], levels, dtype=space.dtype)
        self.action_space = Discrete(levels)

    def action(self, action: int) -> NDArray[np.floating]:
        """The continuous action (1,) of the level."""
        return self.values[[action]]


def pendulum_features(observation: NDArray[np.floating]) -> NDArray[np.floating]:
    """(angle in [0, 2 pi), speed) of Pendulum's (cosine, sine, speed); shapes (..., 3) to (..., 2)."""
    cosine, sine, speed = np.moveaxis(np.asarray(observation, np.float64), -1, 0)
    return np.stack([np.arctan2(sine, cosine) % (2 * math.pi), speed], axis=-1)


PENDULUM = Grid(low=(0.0, -8.0), high=(2 * math.pi, 8.0), bins=(12, 5))
MOUNTAIN_CAR = Grid(low=(-1.2, -0.07), high=(0.6, 0.07), bins=(12, 5))
# The two velocities of CartPole have no limits of their own; these hold all but a fall. 81 cells.
CART_POLE = Grid(low=(-2.4, -3.0, -0.2095, -3.5), high=(2.4, 3.0, 0.2095, 3.5), bins=(3, 3, 3, 3))

_GRIDS: dict[str, tuple[Grid, Features | None]] = {
    "pendulum": (PENDULUM, pendulum_features),
    "mountaincar": (MOUNTAIN_CAR, None),
    "cartpole": (CART_POLE, None),
}


def discretize(
    env: gymnasium.Env[Any, Any],
    how: str | Grid | Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]] | None = None,
    *,
    num_states: int = 128,
) -> gymnasium.Env[Any, Any]:
    """The environment with discrete observations and actions; one that has both comes back as it is.

    Args:
        env: with observations in a Box of finite limits, or of a kind named below.
        how: "pendulum", "mountaincar", "cartpole": the grid of that name; "uniform": equally many bins a
            quantity, as many as `num_states` cells allow; a `Grid`; a function that wraps the environment;
            None: by the environment's own name, else "uniform".
        num_states: the most cells that "uniform" may have.

    A single continuous action becomes five levels. Raises `OmniRLError` for an unknown name, a grid that does
    not fit and limits that are not finite.
    """
    if callable(how) and not isinstance(how, Grid):
        return how(env)
    if isinstance(env.observation_space, Box):
        grid, features = _grid_of(env, how, num_states)
        env = GridObservation(env, grid, features)
    if isinstance(env.action_space, Box):
        env = ActionLevels(env)
    return env


def _grid_of(
    env: gymnasium.Env[Any, Any], how: str | Grid | None, num_states: int
) -> tuple[Grid, Features | None]:
    space = env.observation_space
    name = how if isinstance(how, str) else _own_name(env)
    if isinstance(how, Grid):
        grid, features = how, None
    elif name in _GRIDS:
        grid, features = _GRIDS[name]
    elif name == "uniform":
        return uniform_grid(space, num_states), None
    else:
        raise OmniRLError(f"discretize={how!r}: the grids are {', '.join(_GRIDS)} and uniform")
    wanted = 3 if features is pendulum_features else len(grid.bins)
    if space.shape != (wanted,):
        raise OmniRLError(
            f"the grid is for observations of {wanted} numbers; those of this environment have the shape "
            f"{space.shape}"
        )
    return grid, features


def _own_name(env: gymnasium.Env[Any, Any]) -> str:
    """The grid that an environment made by its registered name has; else "uniform"."""
    own = (env.spec.id if env.spec else "").lower().replace("_", "")
    return next((name for name in _GRIDS if own.startswith(name)), "uniform")


def uniform_grid(space: gymnasium.Space[Any], num_states: int = 128) -> Grid:
    """Equally many bins for each of the k numbers of a Box: the most that make at most `num_states` cells.

    Raises `OmniRLError` where the limits are not finite or not even two bins a number are possible.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise OmniRLError(f"a grid needs observations that are one row of numbers, not {space}")
    count = space.shape[0]
    bins = int(num_states ** (1 / count) + 1e-9)
    if bins < 2:
        raise OmniRLError(
            f"{count} numbers an observation with two bins each are {2**count} cells, more than "
            f"{num_states}; choose the quantities that matter with GridObservation(env, grid, features)"
        )
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise OmniRLError(
            f"the observations {space} have no finite limits: give a Grid(low, high, bins) of your own"
        )
    return Grid(tuple(space.low.tolist()), tuple(space.high.tolist()), (bins,) * count)
