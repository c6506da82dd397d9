"""Demonstrations: what fills an agent's memory before it acts (offline and imitation starts, section 2.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.data.sequences import TAGS, UNKNOWN, pack_episodes
from omnirl.errors import OmniRLError

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """One sequence of steps (section 2.4) for each of N rows, ending in a filler step.

    `observations`, `tags`, `actions` (N, T) int64, `rewards` (N, T) float32; `terminated` (N, T) bool marks
    the real steps that ended an episode otherwise than by its time limit (learners by Bellman's equation
    need it, the model does not); a row is its first `lengths` (N,) steps. `num_actions` is the filler step's
    action.
    """

    observations: Ints
    tags: Ints
    actions: Ints
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    lengths: Ints
    num_actions: int

    def __post_init__(self) -> None:
        shape = self.observations.shape
        arrays = {name: getattr(self, name) for name in ("tags", "actions", "rewards", "terminated")}
        if len(shape) != 2 or any(array.shape != shape for array in arrays.values()):
            shapes = {"observations": shape} | {name: array.shape for name, array in arrays.items()}
            raise OmniRLError(
                f"the arrays of demonstrations must have one shape (rows, steps); they have {shapes}"
            )
        if self.lengths.shape != shape[:1] or (self.lengths > shape[1]).any():
            raise OmniRLError(f"lengths must be one number for each of {shape[0]} rows, at most {shape[1]}")

    @classmethod
    def from_episodes(
        cls,
        episodes: Sequence[Any],
        num_actions: int,
        *,
        num_envs: int = 1,
        tag: str | int = "opt3",
    ) -> Demonstrations:
        """Episodes as `pack_episodes` takes them: one list for all rows, or a list of lists, one a row.

        `tag` (a name or an id) is the tag of episodes that have none of their own. An episode may say
        `terminated` (a bool, or Minari's `terminations`); otherwise it counts as ended by its last step.

        Raises `OmniRLError` for an unknown tag, for as many lists as there are not rows, and as
        `pack_episodes`.
        """
        tag = tag_id(tag)
        per_row = [list(row) for row in episodes] if _is_nested(episodes) else [list(episodes)]
        if len(per_row) not in (1, num_envs):
            raise OmniRLError(f"there are demonstrations for {len(per_row)} rows, and {num_envs} rows")
        packed = [_pack(row, num_actions, tag) for row in per_row] * (num_envs // len(per_row))
        lengths = np.array([len(row["actions"]) for row in packed])
        columns = {
            name: np.stack([np.pad(row[name], (0, lengths.max() - len(row[name]))) for row in packed])
            for name in ("observations", "tags", "actions", "rewards", "terminated")
        }
        return cls(**columns, lengths=lengths, num_actions=num_actions)

    @property
    def real(self) -> NDArray[np.bool_]:
        """(N, T) bool: steps of an environment, neither filler nor padding."""
        return self.inside & (self.actions != self.num_actions)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(N, T) bool: steps of a row, no padding."""
        return np.arange(self.actions.shape[1]) < self.lengths[:, None]

    def check_ids(self, num_states: int, num_actions: int, whose: str) -> None:
        """Raise `OmniRLError` for an observation or a real action beyond `whose` (its name's) numbers."""
        for name, ids, where, limit in (
            ("observation", self.observations, self.inside, num_states),
            ("action", self.actions, self.real, num_actions),
        ):
            wrong = where & ((ids < 0) | (ids >= limit))
            if wrong.any():
                raise OmniRLError(
                    f"a demonstration has the {name} {ids[wrong][0]}; those of {whose} go from 0 to "
                    f"{limit - 1}"
                )

    def reward_rate(self) -> NDArray[np.float64]:
        """Mean reward (N,) of a row's real steps."""
        real = self.real
        return (self.rewards * real).sum(1, dtype=np.float64) / np.maximum(real.sum(1), 1)

    def without_tags(self) -> Demonstrations:
        """The same steps, all of them tagged unknown."""
        return replace(self, tags=np.full_like(self.tags, UNKNOWN))

    def __len__(self) -> int:
        return len(self.actions)


def tag_id(tag: str | int) -> int:
    """The id (0..7) of a tag given by name or id. Raises `OmniRLError` for any other."""
    found = TAGS.get(tag, -1) if isinstance(tag, str) else tag
    if not 0 <= found <= UNKNOWN:
        raise OmniRLError(f"tag is {tag!r}; it may be {', '.join(TAGS)} or an id from 0 to {UNKNOWN}")
    return found


def _is_nested(episodes: Sequence[Any]) -> bool:
    return bool(episodes) and isinstance(episodes[0], (list, tuple))


def _get(episode: Any, name: str) -> Any:
    return episode.get(name) if isinstance(episode, Mapping) else getattr(episode, name, None)


def _pack(episodes: Sequence[Any], num_actions: int, tag: int) -> dict[str, NDArray[Any]]:
    tagged, ends = [], []
    for episode in episodes:
        columns = {name: _get(episode, name) for name in ("observations", "actions", "rewards", "tags")}
        steps = 0 if columns["actions"] is None else len(columns["actions"])
        if columns["tags"] is None:
            columns["tags"] = np.full(steps, tag)
        tagged.append({name: value for name, value in columns.items() if value is not None})
        found = _get(episode, "terminated")
        found = _get(episode, "terminations") if found is None else found
        end = np.zeros(steps + 1, bool)
        end[steps - 1 : steps] = True if found is None else bool(np.any(found))
        ends.append(end)
    packed = pack_episodes(tagged, num_actions)
    return {**packed, "terminated": np.concatenate([*ends, np.zeros(0, bool)])}
