"""The environments under Gymnasium's names; `import omnirl` registers them."""

from __future__ import annotations

from typing import Any

import gymnasium

_SINGLE, _VECTOR = "omnirl.envs.single:AnyMDPEnv", "omnirl.envs.vector:AnyMDPVectorEnv"
_ROOM, _ROOMS = "omnirl.envs.darkroom:DarkRoomEnv", "omnirl.envs.darkroom:DarkRoomVectorEnv"

# What the environment is made with unless a task is given: see `sample_tasks`.
ENVIRONMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "omnirl/AnyMDP-v0": (_SINGLE, _VECTOR, {}),
    "omnirl/Garnet-v0": (_SINGLE, _VECTOR, {"family": "garnet"}),
    "omnirl/Bandit-v0": (_SINGLE, _VECTOR, {"family": "bandit"}),
    "omnirl/DarkRoom-v0": (_ROOM, _ROOMS, {}),
}


def register_environments() -> None:
    """Make the environments known to `gymnasium.make` and `gymnasium.make_vec`."""
    for name, (single, vector, settings) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=single, vector_entry_point=vector, kwargs=settings)
