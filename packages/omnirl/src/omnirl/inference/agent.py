"""An agent that learns inside its memory: its model's parameters never change (section 2.8)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from omnirl.data.sequences import UNKNOWN
from omnirl.errors import OmniRLError, OmniRLWarning
from omnirl.inference.demonstrations import Demonstrations, tag_id
from omnirl.model.memory import Memory, fork, join, put_rows, select_rows
from omnirl.model.modeling import OmniRL, check_ids

Ints = NDArray[np.int64]
Autoreset = Literal["next_step", "same_step", "none"]

_AUTORESETS = ("next_step", "same_step", "none")
_LARGE_REWARD = 10.0  # where φ clips; a pit of AnyMDP may be deeper, the mean of a run's rewards is not
_FEW_REWARDS = 20  # say nothing of their scale yet
_SEGMENT = 1024  # steps of a demonstration read at once: what their activations need stays small


class ICRLAgent:
    """N runs side by side of one model.

        agent.reset(num_envs)
        action = agent.act(obs)                                        # (N,); commits nothing
        agent.observe(action, reward, next_obs, terminated, truncated)

    `observe` adds (obs, `unknown_tag`, action, reward) to the memory.
    `num_actions`: the environment's; the model's action a acts as a mod `num_actions`, so it may be smaller
    than the model's (None: the model's). `temperature` of the softmax that actions are drawn from: a number,
    or a function of the number of steps since `reset` (`TemperatureSchedule`); 0 takes the likeliest action.

    `autoreset` of `reset` says how the environments begin the next episode. "next_step" is Gymnasium's: the
    call of `observe` after an end is the reset, and is remembered as the filler step. With "same_step" and
    "none", `next_obs` of an end is the episode's last observation and the filler step is added at once.
    """

    def __init__(
        self,
        model: OmniRL,
        num_actions: int | None = None,
        temperature: float | Callable[[int], float] = 0.5,
        unknown_tag: int = UNKNOWN,
        device: str | torch.device | None = None,
    ) -> None:
        self.model = model if device is None else model.to(device)
        self.model.eval()
        known = model.config.num_actions
        if num_actions is not None and not 1 <= num_actions <= known:
            raise OmniRLError(
                f"the environment has {num_actions} actions and the model {known}; it needs a model with more"
                if num_actions > known
                else f"num_actions is {num_actions}; it must be at least 1"
            )
        self.num_actions = known if num_actions is None else num_actions
        self.num_states = model.config.num_states
        if not callable(temperature):
            _check_temperature(temperature)
        self.temperature = temperature
        self.unknown_tag = tag_id(unknown_tag)
        self._warned = False
        self.reset()

    def reset(self, num_envs: int = 1, autoreset: Autoreset = "next_step", *, seed: int = 0) -> None:
        """Empty the memory and begin `num_envs` runs; `seed` draws their actions."""
        if autoreset not in _AUTORESETS:
            raise OmniRLError(f"autoreset is {autoreset!r}; it may be {', '.join(_AUTORESETS)}")
        self.num_envs, self.autoreset = num_envs, autoreset
        self._rng = np.random.default_rng(seed)
        self._steps = 0
        self._reward_sum, self._reward_count = 0.0, 0
        self.memory = self.model.empty_memory(num_envs)

    @property
    def memory(self) -> Memory:
        """What the N runs have seen; keep it, save it with `torch.save`, set it to go on from there."""
        return fork(self._memory)

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._memory = fork(memory)
        self.num_envs = len(memory["tokens"])
        self._ended = np.zeros(self.num_envs, bool)
        self._open: Memory | None = None
        self._chosen = np.full(self.num_envs, -1)

    def forget(self, rows: ArrayLike) -> None:
        """Empty the memory of `rows` (N,) bool; the others keep theirs."""
        self._memory = self.model.reset_rows(self._memory, torch.as_tensor(rows, device=self.model.device))
        self._open = None

    def policy(self, obs: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (N, A) of the model's actions at observations (N,); commits nothing.

        Raises `OmniRLError` for an observation that the model does not know, and where the temperature's
        function gives none.
        """
        temperature = self.temperature(self._steps) if callable(self.temperature) else self.temperature
        _check_temperature(temperature)
        logits = self._logits(obs)
        if temperature == 0:
            return np.eye(logits.shape[-1])[logits.argmax(-1)]
        weights = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
        return weights / weights.sum(-1, keepdims=True)

    def act(self, obs: ArrayLike, greedy: bool = False) -> Ints:
        """Actions (N,) int64 for observations (N,): drawn from `policy`, or its largest; commits nothing."""
        if greedy:
            self._chosen = self._logits(obs).argmax(-1)
        else:
            cdf = self.policy(obs).cumsum(-1)
            self._chosen = (self._rng.random((len(cdf), 1)) * cdf[:, -1:] >= cdf).sum(-1)
        return self._chosen % self.num_actions

    def observe(
        self,
        action: ArrayLike,
        reward: ArrayLike,
        next_obs: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
    ) -> None:
        """Remember the step that the last `act` began; all of shape (N,).

        Raises `OmniRLError` without an `act` before it, and for actions or shapes that do not fit.
        """
        if self._open is None:
            raise OmniRLError("observe needs the state that was acted in: call act(obs) first")
        actions = self._check_actions(self._row_array(action, "action", np.int64))
        rewards = self._check_rewards(self._row_array(reward, "reward", np.float32))
        ended = self._row_array(terminated, "terminated", bool) | self._row_array(
            truncated, "truncated", bool
        )
        tags = np.full(self.num_envs, self.unknown_tag)
        if self.autoreset == "next_step":
            filler = self._ended
            actions = np.where(filler, self.model.config.num_actions, actions)
            rewards = np.where(filler, np.float32(0), rewards)
            tags = np.where(filler, UNKNOWN, tags)
            ended &= ~filler
        self._memory = self.model.commit(self._open, *self._tensors(tags, actions, rewards))
        self._open, self._steps = None, self._steps + 1
        if self.autoreset == "next_step":
            self._ended = ended
        elif ended.any():
            self._add_fillers(np.flatnonzero(ended), self._row_array(next_obs, "next_obs", np.int64)[ended])

    def commit(self, obs: ArrayLike, tags: ArrayLike, actions: ArrayLike, rewards: ArrayLike) -> None:
        """Add steps as they are, (N,) or (N, T); `actions` are the model's, A is the filler's.

        Raises `OmniRLError` for ids that the model does not know, on a GPU too.
        """
        columns = [np.asarray(column) for column in (obs, tags, actions, rewards)]
        limits = (self.num_states, UNKNOWN + 1, self.model.config.num_actions + 1)
        for name, ids, limit in zip(("observations", "tags", "actions"), columns[:3], limits, strict=True):
            check_ids(name, torch.as_tensor(ids), limit)
        if columns[0].ndim == 1:
            columns = [column[:, None] for column in columns]
        for first in range(0, columns[0].shape[1], _SEGMENT):
            part = [column[:, first : first + _SEGMENT] for column in columns]
            with torch.no_grad():
                out = self.model(*self._tensors(*part), memory=self._memory)
            self._memory = out.memory
        self._open = None

    def load_demonstrations(self, episodes: Demonstrations | Sequence[Any], tag: str | int = "opt3") -> None:
        """Add demonstrations to the memory: the same for all runs, or one list of episodes a run.

        `episodes`: mappings of observations (n+1), actions (n), rewards (n) and perhaps tags (n), or objects
        with these attributes; `tag` is the tag of those that have none. Raises `OmniRLError` for another
        number of runs or actions, and ids that the model does not know.
        """
        known = self.model.config.num_actions
        if not isinstance(episodes, Demonstrations):
            episodes = Demonstrations.from_episodes(episodes, known, num_envs=self.num_envs, tag=tag)
        if episodes.num_actions != known or len(episodes) != self.num_envs:
            raise OmniRLError(
                f"demonstrations for {len(episodes)} runs of {episodes.num_actions} actions do not fit an "
                f"agent with {self.num_envs} runs and a model of {known} actions"
            )
        episodes.check_ids(self.num_states, known, "the model")
        self._check_rewards(episodes.rewards)
        grouped, before = [], self._memory
        lengths = np.unique(episodes.lengths)
        for length in lengths:
            rows = np.flatnonzero(episodes.lengths == length)
            self._memory = select_rows(before, rows.tolist())
            columns = (episodes.observations, episodes.tags, episodes.actions, episodes.rewards)
            self.commit(*(column[rows, :length] for column in columns))
            grouped.append((rows, self._memory))
        self._memory = _in_order(grouped)
        self._ended[:] = False

    def predict(
        self,
        observation: ArrayLike,
        state: Any = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[Ints, Any]:
        """Actions for observations from the memory as it is, as stable-baselines3's policies give them.

        It is told no rewards here, so it learns nothing. A memory of one run serves any number of
        observations.
        """
        obs = np.asarray(observation, np.int64)
        rows = obs.reshape(-1)
        own = self._memory
        if len(rows) != self.num_envs and self.num_envs == 1:
            self.memory = select_rows(own, [0] * len(rows))
        action = self.act(rows, greedy=deterministic)
        if self._memory is not own:
            self.memory = own
        return action.reshape(obs.shape), state

    def _logits(self, obs: ArrayLike) -> NDArray[np.float64]:
        rows = self._check_obs(self._row_array(obs, "observation", np.int64))
        logits, self._open = self.model.policy(self._tensors(rows)[0], self._memory)
        return logits.double().cpu().numpy()

    def _check_obs(self, rows: Ints) -> Ints:
        if rows.min() < 0 or rows.max() >= self.num_states:
            raise OmniRLError(
                f"observations {rows.min()}..{rows.max()} do not fit a model of {self.num_states} states: "
                "discretise them (discretize=) or take a model with more states"
            )
        return rows

    def _add_fillers(self, rows: Ints, last_obs: Ints) -> None:
        """Remember the filler step in these `rows` alone, after the observations `last_obs` (one a row)."""
        memory = select_rows(self._memory, rows.tolist())
        _, memory = self.model.policy(self._tensors(self._check_obs(last_obs))[0], memory)
        size = len(rows)
        filler = (
            np.full(size, UNKNOWN),
            np.full(size, self.model.config.num_actions),
            np.zeros(size, np.float32),
        )
        memory = self.model.commit(memory, *self._tensors(*filler))
        self._memory = put_rows(self._memory, rows.tolist(), memory)

    def _check_actions(self, action: Ints) -> Ints:
        """The model's actions: the ones that `act` chose where they act as `action`, else `action` itself."""
        live = ~self._ended
        if live.any() and (action[live].min() < 0 or action[live].max() >= self.num_actions):
            raise OmniRLError(
                f"actions {action[live].min()}..{action[live].max()} are out of range; the environment's go "
                f"from 0 to {self.num_actions - 1}"
            )
        same = (self._chosen >= 0) & (self._chosen % self.num_actions == action)
        return np.where(same, self._chosen, action)

    def _check_rewards(self, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(rewards).all():
            raise OmniRLError(f"a reward is {rewards[~np.isfinite(rewards)][0]}; rewards must be finite")
        self._reward_sum += float(np.abs(rewards).sum())
        self._reward_count += rewards.size
        scale = self._reward_sum / self._reward_count
        if scale > _LARGE_REWARD and self._reward_count >= _FEW_REWARDS and not self._warned:
            self._warned = True
            warnings.warn(
                f"rewards have a mean size of {scale:.3g}, those of training are about 0.1 to 1 and seldom "
                f"beyond {_LARGE_REWARD:g}: scale them (shaping=)",
                OmniRLWarning,
                stacklevel=3,
            )
        return rewards

    def _row_array(self, values: ArrayLike, name: str, dtype: type) -> NDArray[Any]:
        array: NDArray[Any] = np.asarray(values, dtype).reshape(-1)
        if len(array) != self.num_envs:
            raise OmniRLError(
                f"{name} has {len(array)} entries for {self.num_envs} runs: reset(num_envs) says how many"
            )
        return array

    def _tensors(self, *arrays: NDArray[Any]) -> list[Tensor]:
        device = self.model.device
        return [
            torch.as_tensor(
                array, dtype=torch.float32 if array.dtype.kind == "f" else torch.int64, device=device
            )
            for array in arrays
        ]


def _check_temperature(temperature: float) -> None:
    if not (np.isfinite(temperature) and temperature >= 0):
        raise OmniRLError(f"temperature is {temperature}; it is a finite number, 0 (the likeliest) or more")


def _in_order(parts: Sequence[tuple[Ints, Memory]]) -> Memory:
    """One memory of the parts, each with the rows that it holds, in the order of the rows."""
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return select_rows(join([memory for _, memory in parts]), order.tolist())
