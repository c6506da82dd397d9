"""Tasks to and from the dictionaries of xenoverse 0.1.14, and the pickles that hold them."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from omnirl.errors import OmniRLError
from omnirl.tasks.task import Task


def task_from_xenoverse(task: dict[str, Any]) -> Task:
    """Return the `Task` of a dictionary from `AnyMDPTaskSampler` or `GarnetTaskSampler`.

    xenoverse's `max_steps` is a float that the step count has to reach: ours is its ceiling.
    """
    kind = task.get("task_type", "MDP")  # xenoverse's Garnet tasks lack it
    if kind != "MDP":
        raise OmniRLError(
            f"this xenoverse task is of the type {kind}; a Task is fully observed (MDP), and "
            "omnirl.envs.PartiallyObserved.from_xenoverse takes a POMDP"
        )
    needed = {"ns", "na", "max_steps", "state_mapping", "transition", "reward", "reward_noise"}
    missing = sorted((needed | {"s_0", "s_0_prob", "s_e"}) - task.keys())
    if missing:
        raise OmniRLError(f"this is no xenoverse task: it lacks {', '.join(missing)}")
    transition = np.asarray(task["transition"], np.float64)
    shape = transition.shape
    bandit = shape[0] == 1  # there every step ends the episode, without a terminal state in the dictionary
    return Task(
        transition=transition,
        reward=np.broadcast_to(np.asarray(task["reward"], np.float64), shape),
        reward_noise=np.broadcast_to(np.asarray(task["reward_noise"], np.float64), shape),
        start_states=np.asarray(task["s_0"], np.int64),
        start_probs=np.asarray(task["s_0_prob"], np.float64),
        terminal_states=np.zeros(1, np.int64) if bandit else np.asarray(task["s_e"], np.int64),
        state_mapping=np.asarray(task["state_mapping"], np.int64),
        num_observations=task["ns"],
        num_actions=task["na"],
        max_steps=math.ceil(task["max_steps"]),
        goal_terminates=bool(task.get("final_goal_terminate", False)),
        family="bandit" if bandit else "xenoverse",
    )


def task_to_xenoverse(task: Task) -> dict[str, Any]:
    """Return the dictionary that `xenoverse.anymdp.AnyMDPEnv.set_task` takes, with arrays of its own."""
    bandit = task.num_states == 1
    return {
        "ns": task.num_observations,
        "na": task.num_actions,
        "max_steps": float(task.max_steps),
        "state_mapping": task.state_mapping.copy(),
        "task_type": "MDP",
        "transition": task.transition.copy(),
        "reward": task.reward.copy(),
        "reward_noise": task.reward_noise.copy(),
        "s_0": task.start_states.copy(),
        "s_0_prob": task.start_probs.copy(),
        "s_e": np.zeros(0, np.int64) if bandit else task.terminal_states.copy(),
        "final_goal_terminate": task.goal_terminates,
    }


class _NumbersOnly(pickle.Unpickler):
    """Reads arrays, numbers, texts and containers of them."""

    _ALLOWED = frozenset(
        (module, name)
        for module, names in {
            "numpy": ("dtype", "ndarray"),
            "numpy._core.multiarray": ("_reconstruct", "scalar"),
            "numpy.core.multiarray": ("_reconstruct", "scalar"),
            "numpy._core.numeric": ("_frombuffer",),
            "numpy.core.numeric": ("_frombuffer",),
            "_codecs": ("encode",),
        }.items()
        for name in names
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a task")
        return super().find_class(module, name)


def load_xenoverse_tasks(path: str | Path) -> list[Task]:
    """Return the tasks of a pickle with one xenoverse task dictionary or a list of them: `read_xenoverse`."""
    return [task_from_xenoverse(task) for task in read_xenoverse(path)]


def read_xenoverse(path: str | Path) -> list[dict[str, Any]]:
    """Return the dictionaries of a pickle with one xenoverse task dictionary, or a list of them.

    Nothing else is read: a pickle that names any class or function but NumPy's arrays could run code, and is
    refused. Raises `OmniRLError` if the file is missing or holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            loaded = _NumbersOnly(file).load()
    except FileNotFoundError:
        raise OmniRLError(f"{path}: there is no such file") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        raise OmniRLError(f"{path} cannot be read as a pickle of tasks: {error}") from error
    found = [loaded] if isinstance(loaded, dict) else loaded
    if not isinstance(found, list | tuple) or not all(isinstance(task, dict) for task in found):
        raise OmniRLError(
            f"{path} holds {type(loaded).__name__}; needed: a task dictionary or a list of them"
        )
    return list(found)
