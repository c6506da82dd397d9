"""Stable-Baselines3's PPO and DQN under the protocol: train, test greedily, train on (section 2.8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from omnirl.envs.vector import AnyMDPVectorEnv
from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.evaluation.grounds import maker
from omnirl.evaluation.normalisers import limited
from omnirl.evaluation.protocol import evaluate
from omnirl.tasks.task import Task

try:
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
except ImportError as error:
    raise MissingExtraError("PPO and DQN need the extra: pip install 'omnirl-icrl[rl]'") from error

from omnirl.envs.sb3 import SB3VecEnv

# PPO's own rollout of 2,048 steps an environment would see no update within the first checkpoints.
_ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any]]] = {
    "ppo": (PPO, {"n_steps": 32, "batch_size": 64}),
    "dqn": (DQN, {"learning_starts": 100, "exploration_fraction": 0.3}),
}


@dataclass(frozen=True)
class LearningCurve:
    """Tests of K moments of one training run."""

    steps: NDArray[np.int64]
    """(K,) environment steps until then, in whole rollouts."""
    returns: NDArray[np.float64]
    """(K, E) the environment's own return of each test episode."""
    scores: NDArray[np.float64] | None
    """(K, E) normalised; None where the oracle is not known."""


def sb3_learning_curve(
    algorithm: str,
    env_or_task: Any,
    *,
    checkpoints: Sequence[int],
    test_episodes: int = 5,
    num_envs: int = 8,
    seed: int,
    shaping: str | Callable[..., Any] | None = None,
    discretize: Any = None,
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int | None = None,
    oracle_return: float | None = None,
    **settings: Any,
) -> LearningCurve:
    """Train "ppo" or "dqn" on one task or environment and test it after each of `checkpoints` steps.

    `env_or_task`, `shaping` (of the training reward), `discretize`, `env_kwargs`, `max_steps` and
    `oracle_return` as in `omnirl.evaluate`; `num_envs` copies train side by side; `settings` go to the
    algorithm's constructor.

    Raises `OmniRLError` for another algorithm and checkpoints that do not rise.
    """
    if algorithm not in _ALGORITHMS:
        raise OmniRLError(f"algorithm is {algorithm!r}; it may be {', '.join(_ALGORITHMS)}")
    if not len(checkpoints) or np.diff([0, *checkpoints]).min() < 1:
        raise OmniRLError(f"checkpoints are {list(checkpoints)}; they must be rising numbers of steps")
    options: dict[str, Any] = (
        {} if isinstance(env_or_task, Task) else {"shaping": shaping, "discretize": discretize}
    )
    options |= {"env_kwargs": env_kwargs, "max_steps": max_steps, "oracle_return": oracle_return}
    if isinstance(env_or_task, Task):
        task, mode = limited(env_or_task, max_steps), AutoresetMode.SAME_STEP
        venv: VecEnv = SB3VecEnv(AnyMDPVectorEnv([task], num_envs, autoreset_mode=mode, seed=seed))
    else:
        make = maker(env_or_task, env_kwargs or {}, shaping, discretize, max_steps)
        venv = DummyVecEnv([make] * num_envs)
    kind, defaults = _ALGORITHMS[algorithm]
    model = kind("MlpPolicy", venv, seed=seed, device="cpu", **(defaults | settings))
    steps: list[int] = []
    returns, scores = [], []

    def test() -> None:
        found = evaluate(model, env_or_task, episodes=test_episodes, seed=seed + len(steps) + 1, **options)
        steps.append(model.num_timesteps)
        returns.append(found.raw_returns[0])
        if found.normaliser is not None:
            scores.append(found.normalized_score[0])

    model.learn(checkpoints[-1], callback=_Tests(checkpoints, test))
    venv.close()
    return LearningCurve(np.array(steps), np.array(returns), np.array(scores) if scores else None)


class _Tests(BaseCallback):
    """Calls `test` after each of `checkpoints` steps, when the rollout that reached it has been learnt from.

    All is one call of `learn`: schedules, DQN's exploration among them, run once from their start to their
    end.
    """

    def __init__(self, checkpoints: Sequence[int], test: Callable[[], None]) -> None:
        super().__init__()
        self.left, self.test = list(checkpoints), test

    def _on_rollout_start(self) -> None:
        while self.left and self.left[0] <= self.model.num_timesteps:
            self.left.pop(0)
            self.test()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._on_rollout_start()
