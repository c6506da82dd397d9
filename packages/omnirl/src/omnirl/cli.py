"""The `omnirl` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from omnirl import cli_files, terminal
from omnirl.cli_environments import (
    EnvArgs,
    MaxSteps,
    Scale,
    Shaped,
    assignments,
    environment_options,
    evaluated_options,
    refuse_for_tasks,
)
from omnirl.errors import OmniRLError

if TYPE_CHECKING:
    from omnirl.inference.agent import ICRLAgent

app = typer.Typer(
    name="omnirl",
    help="In-context reinforcement learning, meta-trained on randomised worlds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(help="Of everything random.", min=0)]
Model = Annotated[str, typer.Option(help="mini (shipped), a folder, or a hub id.")]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads it at run time
    typer.Option(
        "--set", help="Another value of the config: key=value, such as model.num_layers=2; repeatable."
    ),
]
Temperature = Annotated[
    float, typer.Option(help="Of the softmax that actions are drawn from; 0 takes the likeliest.", min=0.0)
]

for verb in (
    cli_files.sample,
    cli_files.solve,
    cli_files.synth,
    cli_files.info,
    cli_files.convert,
    cli_files.bench,
):
    app.command()(verb)


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(help="TOML: the keys of omnirl.TrainConfig, tables [model] and [data].")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="The folder, instead of the config's."),
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Instead of the config's.")] = None,  # noqa: UP045
    settings: Settings = None,
    resume: Annotated[bool, typer.Option(help="Go on from the folder's checkpoint.")] = True,
    as_json: AsJson = False,
) -> None:
    """Meta-train a model; an interrupted run goes on with the same command. The model is in OUT/model."""
    from omnirl.training.config import TrainConfig
    from omnirl.training.loop import train as train_model

    changes = assignments("--set", settings)
    changes |= {key: value for key, value in (("out", out), ("seed", seed)) if value is not None}
    chosen = TrainConfig.from_dict(_changed(TrainConfig.from_toml(config).to_dict(), changes))
    with terminal.bar("training", chosen.updates) as moved:
        result = train_model(
            chosen, resume=resume, on_update=lambda now: moved(now.update, f"loss {now.loss:.3f}")
        )
    value = {
        "model": str(result.folder / "model"),
        "parameters": result.model.num_parameters(),
        "updates": result.updates,
        "steps": result.steps,
        "skipped": result.skipped,
        "seconds": round(result.seconds, 1),
    }
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        terminal.show(value, as_json, [(key, str(entry)) for key, entry in value.items()])


@app.command("eval")
def evaluate_model(
    env: Annotated[Optional[str], typer.Option(help="A Gymnasium environment, or Switch2.")] = None,  # noqa: UP045
    tasks: Annotated[Optional[Path], typer.Option(help="Instead: tasks that `omnirl sample` wrote.")] = None,  # noqa: UP045
    model: Model = "mini",
    episodes: Annotated[int, typer.Option(min=1)] = 50,
    runs: Annotated[int, typer.Option(help="Of each task, from an empty memory.", min=1)] = 8,
    start: Annotated[str, typer.Option(help="online, offline or imitation.")] = "online",
    env_args: EnvArgs = None,
    shaping: Shaped = "auto",
    reward_scale: Scale = None,
    max_steps: MaxSteps = None,
    permute: Annotated[
        bool, typer.Option("--permute", help="Other ids of states and actions in every run.")
    ] = False,
    rewards: Annotated[str, typer.Option(help="What the model is told: shown, hidden or flipped.")] = "shown",
    temperature: Temperature = 0.5,
    seed: Seed = 0,
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="Write every episode as CSV.")] = None,  # noqa: UP045
    plot: Annotated[Optional[Path], typer.Option(help="Draw the learning curve (.png, .svg, .pdf).")] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Let the frozen model learn in its context and score its episodes: 0 is random, 1 the oracle."""
    from omnirl.evaluation import evaluate
    from omnirl.evaluation.results import by_task, interval
    from omnirl.tasks.batch import TaskBatch

    if (env is None) == (tasks is None):
        raise OmniRLError("give --env NAME or --tasks FILE, one of them")
    if plot is not None:
        _ends_in("--plot", plot, ".png", ".svg", ".pdf")
    agent = _agent(model, temperature)
    options: dict[str, Any] = {}
    where: Any = env
    if env is None:
        refuse_for_tasks(env_args, shaping, reward_scale, max_steps)
        where = TaskBatch.load(str(tasks))
    else:
        options = evaluated_options(env, env_args, shaping, reward_scale, max_steps)
    found = evaluate(
        agent,
        where,
        episodes=episodes,
        runs=runs,
        start=start,  # type: ignore[arg-type]  # it refuses other words
        permute_states=permute,
        permute_actions=permute,
        rewards=rewards,  # type: ignore[arg-type]
        seed=seed,
        **options,
    )
    known = found.normaliser is not None
    values = found.normalized_score if known else found.raw_returns
    mean, half = values.mean(0), interval(by_task(values, found.task_index))
    value = {
        "what": "normalised score" if known else "return",
        "mean": mean.tolist(),
        "ci95": half.tolist(),
        "steps": found.steps.mean(0).tolist(),
        "skipped": found.skipped,
        "settings": found.settings,
    }
    marks = [*range(0, episodes, max(1, episodes // 10)), episodes - 1]
    rows = [(str(i + 1), f"{mean[i]:.3f}", f"{half[i]:.3f}") for i in dict.fromkeys(marks)]
    terminal.show(value, as_json, rows, ("episode", str(value["what"]), "± 95%"))
    if out is not None:
        found.to_pandas().to_csv(out, index=False)
    if plot is not None:
        found.plot().figure.savefig(plot)  # type: ignore[union-attr]


@app.command()
def play(
    env: Annotated[str, typer.Argument(help="A Gymnasium environment.")] = "FrozenLake-v1",
    model: Model = "mini",
    episodes: Annotated[int, typer.Option(min=1)] = 40,
    env_args: EnvArgs = None,
    shaping: Shaped = "auto",
    reward_scale: Scale = None,
    max_steps: MaxSteps = None,
    temperature: Temperature = 0.5,
    seed: Seed = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out", "-o", help="FrozenLake: a GIF of the first three episodes beside the last three."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON an episode.")] = False,
) -> None:
    """Watch a frozen model learn an environment: its returns, episode by episode, as they come."""
    from omnirl.evaluation.grounds import maker
    from omnirl.inference import animate_lake
    from omnirl.inference import play as play_episodes

    options = environment_options(env, env_args, shaping, reward_scale, max_steps)
    made = maker(env, options["env_kwargs"], options["shaping"], options["discretize"], max_steps)()
    lake = getattr(made.unwrapped, "desc", None)
    if out is not None:
        _ends_in("--out", out, ".gif")
        if lake is None:
            raise OmniRLError(f"--out draws FrozenLake's map; {env} has none")
    agent = _agent(model, temperature, int(getattr(made.action_space, "n", 0)) or None)
    done = []
    for episode in play_episodes(agent, made, episodes=episodes, seed=seed):
        done.append(episode)
        recent = sum(one.raw for one in done[-10:]) / len(done[-10:])
        if as_json:
            line = {"episode": episode.number, "return": episode.raw, "steps": episode.steps}
            typer.echo(json.dumps({**line, "last_ten": recent}))
        else:
            words = f"episode {episode.number + 1:4d}  return {episode.raw:9.3g}  steps {episode.steps:4d}"
            terminal.console().print(f"{words}  mean of the last ten {recent:.3g}")
    made.close()
    if out is not None and lake is not None:
        rows = ["".join(cell.decode() for cell in row) for row in lake]
        terminal.tell(f"{animate_lake(done[:3], done[-3:], out, lake=rows)} is written")


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run omnirl`."""
    from omnirl.reproduce import verb

    verb.reproduce("omnirl", context)


def _ends_in(option: str, path: Path, *suffixes: str) -> None:
    """Refuse a file that could not be drawn before the work for it begins."""
    if path.suffix.lower() not in suffixes:
        raise OmniRLError(f"{option} {path}: the file's name must end in {', '.join(suffixes)}")


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config with `table.key` or `key` of each change set."""
    for key, value in changes.items():
        table, dot, name = key.partition(".")
        if dot:
            if table not in ("model", "data"):
                raise OmniRLError(f"--set {key}: the tables are model and data")
            values.setdefault(table, {})[name] = value
        elif key in ("model", "data"):
            raise OmniRLError(f"--set {key}: it is a table; set its keys, such as model.num_layers=2")
        else:
            values[key] = str(value) if isinstance(value, Path) else value
    return values


def _agent(model: str, temperature: float, num_actions: int | None = None) -> ICRLAgent:
    from omnirl.inference.agent import ICRLAgent
    from omnirl.model.modeling import OmniRL

    name = "omnirl/mini" if model == "mini" else model
    return ICRLAgent(OmniRL.from_pretrained(name), num_actions=num_actions, temperature=temperature)


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {
    "accelerate": "scale",
    "huggingface_hub": "train",
    "matplotlib": "plot",
    "minari": "data",
    "pandas": "plot",
    "PIL": "plot",
    "ray": "scale",
    "safetensors": "train",
    "stable_baselines3": "rl",
    "torch": "train",
    "transformers": "hf",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"omnirl-icrl {version('omnirl-icrl')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    from omnirl.errors import SamplingError, TrainingError

    warnings.showwarning = lambda message, *_, **__: terminal.tell(str(message))
    try:
        app(arguments)
    except (SamplingError, TrainingError) as error:  # the run failed; nobody typed anything wrong
        _end(str(error), 1)
    except OmniRLError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "omnirl":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'omnirl-icrl[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:  # a full disk, a folder that may not be written
        _end(str(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    terminal.tell(message)
    sys.exit(code)
