"""What is typed about an environment: its options, and what `evaluate` and `play` make of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Optional

import typer

from omnirl.errors import OmniRLError

EnvArgs = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--env-arg", help="For gymnasium.make: key=value; repeatable. FrozenLake is not slippery by default."
    ),
]
Shaped = Annotated[
    str,
    typer.Option(
        "--shaping", help="What the model sees: auto (the paper's, where there is one), none, or a name."
    ),
]
Scale = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--reward-scale", help="Times the shaped reward; by default 4 for FrozenLake, else 1."),
]
MaxSteps = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Steps of an episode, where the environment has no limit.", min=1),
]

SHAPINGS = {
    "FrozenLake": ("frozenlake", 4.0),
    "CliffWalking": ("cliffwalking", 1.0),
    "Pendulum": ("pendulum", 1.0),
    "MountainCar": ("mountaincar", 1.0),
}


def assignments(option: str, entries: Sequence[str] | None) -> dict[str, Any]:
    """key=value, the value as JSON or else as it is."""
    found: dict[str, Any] = {}
    for entry in entries or ():
        key, sign, value = entry.partition("=")
        if not sign:
            raise OmniRLError(f"{option} {entry}: write key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def evaluated_options(
    env: str, env_args: Sequence[str] | None, shaping: str, scale: float | None, max_steps: int | None
) -> dict[str, Any]:
    """The options of `evaluate` for a named environment, of one agent or of several."""
    from omnirl.evaluation.parallel import SWITCH2

    if env != SWITCH2:
        return environment_options(env, env_args, shaping, scale, max_steps)
    from omnirl.envs.switch2 import Switch2

    if shaping not in ("auto", "none") or scale is not None:
        raise OmniRLError(f"{SWITCH2} shapes its rewards itself: --shaping and --reward-scale do not fit")
    limit = {} if max_steps is None else {"max_steps": max_steps}
    kwargs = assignments("--env-arg", env_args) | limit
    try:
        Switch2(**kwargs)
    except TypeError as error:
        raise OmniRLError(f"the environment {env} cannot be made: {error}") from error
    return {"env_kwargs": kwargs}


def refuse_for_tasks(
    env_args: Sequence[str] | None, shaping: str, scale: float | None, max_steps: int | None
) -> None:
    """Raise `OmniRLError` for an option of environments: sampled tasks have their own limit and rewards."""
    given = {
        "--env-arg": bool(env_args),
        "--shaping": shaping not in ("auto", "none"),
        "--reward-scale": scale is not None,
        "--max-steps": max_steps is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise OmniRLError(f"{option} is for environments (--env); tasks are played as they were sampled")


def environment_options(
    env: str, env_args: Sequence[str] | None, shaping: str, scale: float | None, max_steps: int | None
) -> dict[str, Any]:
    """The options of `evaluate` for a named environment."""
    import gymnasium

    if env == "Switch2":
        raise OmniRLError("Switch2 has two agents; score them with: omnirl eval --env Switch2")
    from omnirl.envs import ScaledShaping, named_shaping

    kwargs = assignments("--env-arg", env_args)
    name, size = next((known for start, known in SHAPINGS.items() if env.startswith(start)), ("none", 1.0))
    if env.startswith("FrozenLake"):
        kwargs.setdefault("is_slippery", False)
    chosen = name if shaping == "auto" else shaping
    shaped = None
    try:
        probe = gymnasium.make(env, **kwargs)
    except (gymnasium.error.Error, TypeError, KeyError) as error:
        raise OmniRLError(f"the environment {env} cannot be made: {error}") from error
    if chosen != "none":
        factor = (size if chosen == name else 1.0) if scale is None else scale
        shaped = ScaledShaping(named_shaping(chosen, probe), factor)
    probe.close()
    return {"env_kwargs": kwargs, "shaping": shaped, "discretize": _as_named, "max_steps": max_steps}


def _as_named(env: Any) -> Any:
    """The environment on the grid of its own name, where it is not discrete already."""
    from omnirl.envs import discretize

    return discretize(env)
