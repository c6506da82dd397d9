"""The verbs that make, read and convert files: sample, solve, synth, info, convert; and bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer

from omnirl import terminal
from omnirl.errors import OmniRLError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(help="Of everything random.", min=0)]
Tasks = Annotated[Path, typer.Argument(metavar="TASKS", help="A file that `omnirl sample` wrote.")]
Workers = Annotated[int, typer.Option(help="Processes.", min=1)]


def sample(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file, .npz.")],
    num_tasks: Annotated[int, typer.Option("--num-tasks", "-n")] = 4096,
    num_states: Annotated[int, typer.Option(help="1 (bandits) or at least 8.")] = 16,
    num_actions: Annotated[int, typer.Option()] = 5,
    min_states: Annotated[Optional[int], typer.Option(help="States are uniform from there.")] = None,  # noqa: UP045
    family: Annotated[str, typer.Option(help="anymdp, anymdp-v1, garnet or bandit.")] = "anymdp",
    strict_paper: Annotated[bool, typer.Option("--strict-paper", help="The bounds of the text too.")] = False,
    first: Annotated[int, typer.Option(help="The first task's number: parts of one set.")] = 0,
    workers: Workers = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Sample worlds."""
    from omnirl.tasks.sampling import sample_tasks

    tasks = sample_tasks(
        num_tasks,
        num_states,
        num_actions,
        min_states=min_states,
        family=family,
        seed=seed,
        strict_paper=strict_paper,
        first=first,
        workers=workers,
    )
    tasks.save(out)
    value = {
        "out": str(out),
        "tasks": len(tasks),
        "family": tasks.family,
        "goals": float(tasks.goal_terminates.mean()),
    }
    terminal.show(value, as_json, [(key, str(entry)) for key, entry in value.items()])


def solve(
    tasks: Tasks,
    gamma: Annotated[float, typer.Option(help="The discount.")] = 0.994,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Write Q (tasks, states, actions), .npy."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Solve every task exactly; what the oracle and the random policy earn in an episode."""
    from omnirl.tasks.batch import TaskBatch
    from omnirl.tasks.solver import policy_value
    from omnirl.tasks.solver import solve as solve_tasks

    batch = TaskBatch.load(tasks)
    q = np.asarray(solve_tasks(batch, gamma))
    oracle, random = policy_value(batch, q.argmax(-1)), policy_value(batch, "uniform")
    if out is not None:
        np.save(out, q)
    value = {
        "tasks": len(batch),
        "gamma": gamma,
        "oracle_return": float(np.mean(oracle)),
        "random_return": float(np.mean(random)),
    }
    terminal.show(value, as_json, [(key, f"{entry:.6g}") for key, entry in value.items()])


def synth(
    tasks: Tasks,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder; shards that are there are kept.")],
    steps: Annotated[int, typer.Option(help="Of a sequence.")] = 8000,
    num_sequences: Annotated[Optional[int], typer.Option(help="By default one a task.")] = None,  # noqa: UP045
    method: Annotated[str, typer.Option(help="dpd, dpt, ad or ad_eps.")] = "dpd",
    mix: Annotated[Optional[str], typer.Option(help="For dpd: paper or explore.")] = None,  # noqa: UP045
    noise_time_scale: Annotated[float, typer.Option(help="Below 1 for short sequences.")] = 1.0,
    workers: Workers = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Synthesise data: behaviour policies act, the oracle labels. The same command resumes."""
    from omnirl.data.synthesis import synthesize
    from omnirl.tasks.batch import TaskBatch

    data = synthesize(
        TaskBatch.load(tasks),
        steps,
        method=method,
        num_sequences=num_sequences,
        seed=seed,
        out=out,
        workers=workers,
        mix=mix,
        noise_time_scale=noise_time_scale,
    )
    value = {"out": str(out), "sequences": len(data), "steps": data.steps}
    terminal.show(value, as_json, [(key, str(entry)) for key, entry in value.items()])


def bench(
    num_states: Annotated[int, typer.Option(help="1 (bandits) or at least 8.")] = 16,
    num_actions: Annotated[int, typer.Option()] = 5,
    num_tasks: Annotated[int, typer.Option("--num-tasks", "-n", min=1)] = 256,
    steps: Annotated[int, typer.Option(help="Of a synthesised sequence.", min=1)] = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine samples, solves, steps and synthesises, by the processor's clock."""
    from omnirl.speed import measured_speed

    value = measured_speed(num_states, num_actions, num_tasks=num_tasks, steps=steps, seed=seed)
    terminal.show(value, as_json, [(key, f"{rate:,.0f}") for key, rate in value.items()])


def info(
    path: Annotated[Path, typer.Argument(help="Tasks (.npz), a data set's folder, or a model's folder.")],
    as_json: AsJson = False,
) -> None:
    """Say what a file or folder holds."""
    value = _about(path)
    terminal.show(value, as_json, [(key, str(entry)) for key, entry in value.items()])


def _about(path: Path) -> dict[str, Any]:
    from omnirl.data.shards import load_dataset
    from omnirl.model.config import read_model_config
    from omnirl.tasks.batch import TaskBatch

    if path.is_file():
        tasks = TaskBatch.load(path)
        sizes = tasks.num_states
        return {
            "kind": "tasks",
            "tasks": len(tasks),
            "family": tasks.family,
            "states": f"{sizes.min()} to {sizes.max()}",
            "actions": tasks.num_actions,
            "goals": round(float(tasks.goal_terminates.mean()), 4),
        }
    if (path / "config.json").is_file():
        config = read_model_config(path).to_dict()
        size = (path / "model.safetensors").stat().st_size if (path / "model.safetensors").is_file() else 0
        return {"kind": "model", "bytes": size, **config}
    if not path.exists():
        raise OmniRLError(f"{path}: there is no such file or folder")
    data = load_dataset(path)
    kept = ("method", "label", "seed", "tag_mask", "noise_time_scale")
    return {
        "kind": "data set",
        "sequences": len(data),
        "steps": data.steps,
        "observations": data.num_observations,
        "actions": data.num_actions,
        **{key: data.settings[key] for key in kept if key in data.settings},
    }


FORMATS = ("xenoverse", "airsoul", "minari", "omnirl")


def convert(
    source: Annotated[
        str, typer.Argument(help="A file, a folder, or a Minari data set's name; a checkpoint of airsoul.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="What is written.")],
    from_format: Annotated[
        str,
        typer.Option("--from", help="xenoverse (a pickle of tasks), airsoul, minari or omnirl."),
    ],
    to_format: Annotated[
        str, typer.Option("--to", help="omnirl, airsoul or minari; tasks are always omnirl's .npz.")
    ] = "omnirl",
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out damaged records with a warning.")
    ] = False,
    num_heads: Annotated[int, typer.Option(help="Of a checkpoint: nhead of its config.", min=1)] = 8,
    layout: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of a checkpoint: its rsa_type; by default from its tokens."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert xenoverse's tasks, official checkpoints, and data sets (official, Minari's, ours)."""
    for option, name in (("--from", from_format), ("--to", to_format)):
        if name not in FORMATS:
            raise OmniRLError(f"{option} {name}: it may be {', '.join(FORMATS)}")
    if to_format == "xenoverse" or (from_format == "xenoverse" and to_format != "omnirl"):
        raise OmniRLError("tasks are read from xenoverse and written as omnirl's .npz, nothing else")
    if from_format == "airsoul" and Path(source).is_file():
        if to_format != "omnirl":
            raise OmniRLError("a checkpoint becomes a model of omnirl, nothing else")
        from omnirl.model.airsoul_checkpoint import convert_airsoul_checkpoint

        config = convert_airsoul_checkpoint(source, out, num_heads=num_heads, layout=layout)
        model = {"out": out, **config.to_dict()}
        terminal.show(model, as_json, [(key, str(entry)) for key, entry in model.items()])
        return
    number = (
        _convert_tasks(source, out)
        if from_format == "xenoverse"
        else _convert_data(source, out, from_format, to_format, keep_going)
    )
    value = {"out": out, "tasks" if from_format == "xenoverse" else "sequences": number}
    terminal.show(value, as_json, [(key, str(entry)) for key, entry in value.items()])


def _convert_tasks(source: str, out: str) -> int:
    from omnirl.data import load_xenoverse_tasks
    from omnirl.tasks.batch import TaskBatch

    tasks = TaskBatch.stack(load_xenoverse_tasks(source))
    tasks.save(out)
    return len(tasks)


def _convert_data(source: str, out: str, from_format: str, to_format: str, keep_going: bool) -> int:
    from omnirl import data

    if from_format == "airsoul":
        read = data.read_airsoul(source, keep_going=keep_going)
    elif from_format == "minari":
        read = data.from_minari(source)
    else:
        read = data.load_dataset(source, keep_going=keep_going)
    if to_format == "airsoul":
        data.write_airsoul(read, out)
    elif to_format == "minari":
        data.to_minari(read, out)
    else:
        data.save_dataset(read, out)
    return len(read)
