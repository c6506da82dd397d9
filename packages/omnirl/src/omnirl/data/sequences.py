"""Sequences of steps (section 2.4), the episodes they are made of, and a data set of many.

Every episode ends in one filler step. Step t of a sequence is (observation, tag, action, reward) with a
label, the reference action. The filler step holds an episode's last observation, the tag 7, the action A (one
more than the last real action), reward 0 and no label; the next episode's first observation follows it. This
is Gymnasium's NEXT_STEP autoreset: the step that resets is the filler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnirl.errors import OmniRLError

if TYPE_CHECKING:
    from omnirl.tasks.batch import TaskBatch

TAGS = {"opt0": 0, "opt1": 1, "opt2": 2, "opt3": 3, "mbrl": 4, "qlearn": 5, "random": 6, "unknown": 7}
"""Which kind of policy made an action: four oracles, two learners, noise, untold (section 2.3)."""
UNKNOWN = TAGS["unknown"]
IGNORED = -100
"""The label of a step that trains nothing."""
COLUMNS = ("observations", "tags", "actions", "rewards", "labels")
STORED = {
    "observations": np.int32,
    "tags": np.int8,
    "actions": np.int16,
    "rewards": np.float32,
    "labels": np.int16,
    "task_index": np.int64,
}
"""The types in memory and on disk: 13 bytes a step."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """N sequences of T steps, in memory or mapped from files.

    `dataset[i]` is a dictionary of `observations`, `tags`, `actions`, `labels` (T,) int64, `rewards` (T,)
    float32 and the int `task_index`. The filler step has action A = `num_actions` and label -100.
    """

    parts: Sequence[Mapping[str, NDArray[Any]]]
    """Columns (n, T) and `task_index` (n,), of the types in `STORED`."""
    num_observations: int
    num_actions: int
    tasks: TaskBatch | None = None
    """What `task_index` counts in; None where it is not known."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the data were made."""

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[Mapping[str, Any]],
        num_observations: int,
        num_actions: int,
        tasks: TaskBatch | None = None,
    ) -> Dataset:
        """A data set in memory of sequences of one length, as `pack_episodes` gives them.

        `task_index` of a sequence is its own key, else its number.

        Raises:
            OmniRLError: columns or sequences of unequal length, ids out of range.
        """
        if not sequences:
            raise OmniRLError("a data set needs at least one sequence")
        lengths = sorted({len(sequence["actions"]) for sequence in sequences})
        if len(lengths) > 1:
            raise OmniRLError(
                f"the sequences have lengths from {lengths[0]} to {lengths[-1]}; "
                "pack_episodes(pad_to=) makes them equal"
            )
        for number, sequence in enumerate(sequences):
            check_sequence(sequence, num_actions, f"sequence {number}")
        part = {name: np.stack([sequence[name] for sequence in sequences]) for name in COLUMNS}
        part["task_index"] = np.array([s.get("task_index", i) for i, s in enumerate(sequences)])
        if part["observations"].size and part["observations"].max() >= num_observations:
            raise OmniRLError(
                f"observation {part['observations'].max()} is out of range; "
                f"allowed: 0..{num_observations - 1} (num_observations = {num_observations})"
            )
        stored = {name: column.astype(STORED[name], copy=False) for name, column in part.items()}
        return cls([stored], num_observations, num_actions, tasks)

    @property
    def steps(self) -> int:
        """T, the length of every sequence."""
        return self.parts[0]["actions"].shape[1] if self.parts else 0

    def __len__(self) -> int:
        return sum(len(part["task_index"]) for part in self.parts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        found = self.batch([index])
        return {**{name: found[name][0] for name in COLUMNS}, "task_index": int(found["task_index"][0])}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def batch(
        self, indices: Sequence[int] | NDArray[np.integer], steps: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """Columns (B, T) and `task_index` (B,) of the sequences `indices`, for the model: int64, rewards
        float32; with `steps` only the first so many.
        """
        wanted = np.arange(len(self))[np.asarray(indices, dtype=np.int64)]
        ends = np.cumsum([len(part["task_index"]) for part in self.parts])
        place = np.searchsorted(ends, wanted, side="right")
        length = min(self.steps, self.steps if steps is None else steps)
        columns: dict[str, NDArray[Any]] = {
            name: np.empty((len(wanted), *(length,) * (self.parts[0][name].ndim - 1)), _model_type(name))
            for name in STORED
        }
        for number in np.unique(place):
            mine = place == number
            rows = wanted[mine] - (ends[number] - len(self.parts[number]["task_index"]))
            for name, column in columns.items():
                values = self.parts[number][name]
                column[mine] = values[rows] if values.ndim == 1 else values[rows, :length]
        return columns


def _model_type(name: str) -> type:
    return np.float32 if name == "rewards" else np.int64


def pack_episodes(
    episodes: Iterable[Mapping[str, Any] | Any], num_actions: int, pad_to: int | None = None
) -> dict[str, NDArray[Any]]:
    """One sequence of episodes laid end to end.

    Args:
        episodes: mappings, or objects with these attributes (Minari's `EpisodeData`): `observations` (n+1),
            `actions` (n), `rewards` (n), and perhaps `tags` (n, else 7) and `labels` (n, else ignored; A or
            -100 is ignored too). An episode of n steps becomes n+1, the last of them the filler step.
        num_actions: A, the real actions 0..A-1.
        pad_to: the length T to fill with further filler steps at observation 0.

    Returns:
        `observations`, `tags`, `actions`, `labels` (T,) int64 and `rewards` (T,) float32.

    Raises:
        OmniRLError: lengths that do not fit, ids out of range, more steps than `pad_to`.
    """
    packed = [_with_filler(_read(episode, where), num_actions) for where, episode in enumerate(episodes)]
    length = sum(len(part["actions"]) for part in packed)
    if pad_to is not None:
        if length > pad_to:
            raise OmniRLError(f"the episodes take {length} steps, more than pad_to = {pad_to}")
        packed.append(filler_steps(pad_to - length, num_actions))
    if not packed:
        packed.append(filler_steps(0, num_actions))
    return {name: np.concatenate([part[name] for part in packed]) for name in COLUMNS}


def split_episodes(sequence: Mapping[str, Any], num_actions: int) -> Iterator[dict[str, Any]]:
    """The episodes of a sequence: the inverse of `pack_episodes`.

    Yields `observations` (n+1), `actions`, `rewards`, `tags`, `labels` (n), and `complete`. The last episode
    of a sequence is often cut (`complete` False): its last step has no successor and is left out. Filler
    steps that follow a filler step (padding) are no episodes.
    """
    actions = np.asarray(sequence["actions"])
    ends = np.flatnonzero(actions == num_actions)
    last = len(actions) - 1
    first = 0
    for end in [*ends.tolist(), *([last] if last not in ends else [])]:
        if end > first:
            episode = {name: np.asarray(sequence[name])[first:end] for name in COLUMNS}
            episode["observations"] = np.asarray(sequence["observations"])[first : end + 1]
            yield {**episode, "complete": bool(actions[end] == num_actions)}
        first = end + 1


def filler_steps(count: int, num_actions: int, observation: int = 0) -> dict[str, NDArray[Any]]:
    """`count` filler steps as the columns of a sequence."""
    return {
        "observations": np.full(count, observation, np.int64),
        "tags": np.full(count, UNKNOWN, np.int64),
        "actions": np.full(count, num_actions, np.int64),
        "rewards": np.zeros(count, np.float32),
        "labels": np.full(count, IGNORED, np.int64),
    }


def check_sequence(sequence: Mapping[str, NDArray[Any]], num_actions: int, where: str) -> None:
    """Refuse columns of unequal shape or of a wrong type, and ids out of range; `where` begins the message.

    Raises:
        OmniRLError: with the shapes of all columns, or the first value that is out of range.
    """
    shapes = {name: np.shape(sequence[name]) for name in COLUMNS}
    if len(set(shapes.values())) > 1:
        raise OmniRLError(f"{where}: the columns differ in shape: " + _listed(shapes))
    for name in ("observations", "tags", "actions", "labels"):
        column = np.asarray(sequence[name])
        if column.size and not np.issubdtype(column.dtype, np.integer):
            raise OmniRLError(f"{where}: {name} must be whole numbers, their type is {column.dtype}")
    rewards = np.asarray(sequence["rewards"])
    if not np.isfinite(rewards).all():
        raise OmniRLError(f"{where}: {int((~np.isfinite(rewards)).sum())} rewards are not finite")
    labels = np.asarray(sequence["labels"])
    _check_range(np.asarray(sequence["observations"]), 0, None, f"{where}: observation")
    _check_range(np.asarray(sequence["tags"]), 0, UNKNOWN, f"{where}: tag")
    _check_range(np.asarray(sequence["actions"]), 0, num_actions, f"{where}: action")
    _check_range(labels[labels != IGNORED], 0, num_actions - 1, f"{where}: label", " (or -100, ignored)")


def _check_range(values: NDArray[Any], low: int, high: int | None, what: str, more: str = "") -> None:
    bad = (values < low) | ((values > high) if high is not None else False)
    if bad.any():
        allowed = f"{low}..{high}" if high is not None else f"at least {low}"
        raise OmniRLError(f"{what} {values[bad].flat[0]} is out of range; allowed: {allowed}{more}")


def _read(episode: Mapping[str, Any] | Any, where: int) -> dict[str, Any]:
    get = episode.get if isinstance(episode, Mapping) else lambda name: getattr(episode, name, None)
    found = {name: get(name) for name in COLUMNS}
    for name in ("observations", "actions", "rewards"):
        if found[name] is None:
            raise OmniRLError(f"episode {where} has no {name!r}")
    columns = {name: np.asarray(values) for name, values in found.items() if values is not None}
    steps = len(columns["actions"])
    wanted = {name: steps + (name == "observations") for name in columns}
    if any(columns[name].shape != (wanted[name],) for name in columns):
        lengths = _listed({name: column.shape for name, column in columns.items()})
        raise OmniRLError(
            f"episode {where}: {steps} actions need {steps + 1} observations and {steps} of all else, but "
            f"the shapes are {lengths}"
        )
    columns.setdefault("tags", np.full(steps, UNKNOWN))
    columns.setdefault("labels", np.full(steps, IGNORED))
    return {**columns, "where": where}


def _with_filler(episode: dict[str, Any], num_actions: int) -> dict[str, NDArray[Any]]:
    where = f"episode {episode['where']}"
    labels = np.where(episode["labels"] == num_actions, IGNORED, episode["labels"])
    steps = {**episode, "observations": episode["observations"][:-1], "labels": labels}
    check_sequence(steps, num_actions, where)
    if (episode["actions"] == num_actions).any():
        raise OmniRLError(
            f"{where}: action {num_actions} is the filler's; real actions are 0..{num_actions - 1}"
        )
    last = episode["observations"][-1:]
    _check_range(last, 0, None, f"{where}: observation")
    end = filler_steps(1, num_actions, int(last[0]))
    return {name: np.concatenate([steps[name].astype(end[name].dtype), end[name]]) for name in COLUMNS}


def _listed(shapes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
