"""The vector environment for Stable-Baselines3: train PPO or DQN on thousands of worlds at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from omnirl.envs.vector import AnyMDPVectorEnv
from omnirl.errors import MissingExtraError, OmniRLError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise MissingExtraError(
        "SB3VecEnv needs Stable-Baselines3; install it with: pip install 'omnirl-icrl[rl]'"
    ) from error

Indices = None | int | Iterable[int]


class SB3VecEnv(VecEnv):
    """An `AnyMDPVectorEnv` as a Stable-Baselines3 `VecEnv`.

    Stable-Baselines3 expects the reset within the step, so the environment must be made with
    `autoreset_mode=AutoresetMode.SAME_STEP`. `infos[i]` has "terminal_observation" and "TimeLimit.truncated"
    where an episode ended, and "episode" with its return "r" and length "l", which Stable-Baselines3 logs.

    Raises `OmniRLError` for an environment of another mode.
    """

    def __init__(self, env: AnyMDPVectorEnv) -> None:
        if env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise OmniRLError(
                f"the environment resets in the mode {env.autoreset_mode.name}; Stable-Baselines3 needs "
                f"AnyMDPVectorEnv(..., autoreset_mode=AutoresetMode.SAME_STEP)"
            )
        self.env = env
        self._actions: NDArray[np.int64] = np.zeros(env.num_envs, np.int64)
        self._return = np.zeros(env.num_envs)
        self._length = np.zeros(env.num_envs, np.int64)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> NDArray[np.int64]:
        """Begin an episode in all environments; the first observations (E,) int64."""
        # Stable-Baselines3 counts one seed an environment up from the first; ours share one stream.
        observation, _ = self.env.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._return[:], self._length[:] = 0.0, 0
        return observation

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take the actions (E,); `step_wait` gives what follows."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Observations (E,) int64, rewards (E,) float32, ends (E,) bool, infos."""
        observation, reward, terminated, truncated, found = self.env.step(self._actions)
        self._return += reward
        self._length += 1
        over = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(over):
            infos[i] = {
                "terminal_observation": np.int64(found["final_obs"][i]),
                "TimeLimit.truncated": bool(truncated[i]),
                "episode": {"r": float(self._return[i]), "l": int(self._length[i])},
            }
        self._return[over], self._length[over] = 0.0, 0
        return observation, reward.astype(np.float32), over, infos

    def close(self) -> None:
        """Nothing is held."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The attribute of the whole vector environment, once an index."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Refused: the environments are one object."""
        raise OmniRLError(
            f"{attr_name!r} cannot be set for single environments: they are one vector environment"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: the environments are one object."""
        raise OmniRLError(f"{method_name!r} cannot be called on single environments: call it on `.env`")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """True for Monitor, whose statistics of episodes are given; nothing is wrapped in truth."""
        return [wrapper_class.__name__ == "Monitor" for _ in self._get_indices(indices)]
