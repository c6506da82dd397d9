"""To and from Minari's data sets of episodes; tags and reference actions travel in `infos`.

Minari's episodes have an observation after each action. A sequence's last episode is often cut, and its last
action has no successor: it is left out, and comes back as a filler step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from omnirl.data.sequences import IGNORED, UNKNOWN, Dataset, pack_episodes, split_episodes
from omnirl.errors import MissingExtraError, OmniRLError

if TYPE_CHECKING:
    from minari import MinariDataset

    from omnirl.tasks.batch import TaskBatch


def to_minari(dataset: Dataset, dataset_id: str, **metadata: Any) -> MinariDataset:
    """Write a data set as Minari's `dataset_id`, such as "omnirl/anymdp-16x5-v0".

    It lies below $MINARI_DATASETS_PATH. `metadata` (author, author_email, code_permalink, description ...)
    goes to `minari.create_dataset_from_buffers`.

    Each step's info has `tag` and `reference_action` (-100 where there is none), and `sequence` and
    `task_index` that say where the episode comes from. An episode terminated if it ended in a terminal state
    of its task, else it was truncated; where the tasks are not known, every complete episode counts as
    terminated.

    Raises:
        OmniRLError: Minari refuses the name, or a data set of it is there.
        MissingExtraError: Minari is not installed.
    """
    minari = _minari()
    from minari.data_collector import EpisodeBuffer

    ends = None if dataset.tasks is None else _terminal_observations(dataset.tasks)
    buffers = [
        EpisodeBuffer(id=number, **_episode(episode, sequence, index, ends))
        for number, (sequence, index, episode) in enumerate(_episodes(dataset))
    ]
    try:
        return minari.create_dataset_from_buffers(
            dataset_id,
            buffer=buffers,
            observation_space=Discrete(dataset.num_observations),
            action_space=Discrete(dataset.num_actions),
            **{"algorithm_name": str(dataset.settings.get("method", "unknown")), **metadata},
        )
    except (ValueError, AssertionError) as error:
        raise OmniRLError(f"Minari does not take {dataset_id!r}: {error}") from error


def from_minari(dataset: str | MinariDataset) -> Dataset:
    """Read a Minari data set of discrete observations and actions into memory.

    What `to_minari` wrote comes back in its sequences; of any other data set each episode is a sequence,
    without tags and labels where its infos have none. Shorter sequences are filled up with filler steps.

    Raises:
        OmniRLError: there is no such data set here, or its spaces are not discrete.
        MissingExtraError: Minari is not installed.
    """
    minari = _minari()
    if isinstance(dataset, str):
        try:
            dataset = minari.load_dataset(dataset)
        except (FileNotFoundError, ValueError) as error:
            raise OmniRLError(f"{error}; minari.download_dataset fetches those of Farama") from error
    num_observations = _size(dataset.observation_space, "observation")
    num_actions = _size(dataset.action_space, "action")
    sequences: dict[int, list[dict[str, Any]]] = {}
    tasks: dict[int, int] = {}
    for number, episode in enumerate(dataset.iterate_episodes()):
        infos = episode.infos or {}
        key = int(_first(infos.get("sequence"), number))
        tasks[key] = int(_first(infos.get("task_index"), key))
        steps = len(episode.actions)
        sequences.setdefault(key, []).append(
            {
                "observations": episode.observations,
                "actions": episode.actions,
                "rewards": episode.rewards,
                "tags": np.asarray(infos.get("tag", np.full(steps, UNKNOWN)))[:steps],
                "labels": np.asarray(infos.get("reference_action", np.full(steps, IGNORED)))[:steps],
            }
        )
    if not sequences:
        raise OmniRLError("the Minari data set has no episodes")
    length = max(sum(len(e["actions"]) + 1 for e in episodes) for episodes in sequences.values())
    packed = [
        {**pack_episodes(sequences[key], num_actions, pad_to=length), "task_index": tasks[key]}
        for key in sorted(sequences)
    ]
    return Dataset.from_sequences(packed, num_observations, num_actions)


def _episodes(dataset: Dataset) -> Iterator[tuple[int, int, dict[str, Any]]]:
    for number, sequence in enumerate(dataset):
        for episode in split_episodes(sequence, dataset.num_actions):
            yield number, sequence["task_index"], episode


def _episode(
    episode: dict[str, Any], sequence: int, index: int, ends: NDArray[np.bool_] | None
) -> dict[str, Any]:
    steps = len(episode["actions"])
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    ended = episode["complete"] and (ends is None or ends[index, episode["observations"][-1]])
    (terminated if ended else truncated)[-1] = True
    return {
        "observations": episode["observations"],
        "actions": episode["actions"],
        "rewards": episode["rewards"].tolist(),
        "terminations": terminated.tolist(),
        "truncations": truncated.tolist(),
        "infos": {
            "tag": np.append(episode["tags"], UNKNOWN),
            "reference_action": np.append(episode["labels"], IGNORED),
            "sequence": np.full(steps + 1, sequence),
            "task_index": np.full(steps + 1, index),
        },
    }


def _terminal_observations(tasks: TaskBatch) -> NDArray[np.bool_]:
    """(N, n) whether arriving at the observation ends the episode."""
    from omnirl.data.worlds import by_observation

    return by_observation(tasks, tasks.terminal)


def _size(space: Any, what: str) -> int:
    if not (isinstance(space, Discrete) and space.start == 0):
        raise OmniRLError(f"the {what} space is {space}; only Discrete spaces from 0 fit a sequence")
    return int(space.n)


def _first(values: Any, default: int) -> Any:
    return default if values is None else values[0]


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise MissingExtraError("Minari is not installed: pip install 'omnirl-icrl[data]'") from error
    return minari
