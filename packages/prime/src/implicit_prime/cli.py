"""The `implicit-prime` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from implicit_prime.errors import PrimeError
from implicit_prm import ImplicitPRMError, cli_options, terminal

app = typer.Typer(
    name="implicit-prime",
    help="PRIME: reinforcement learning of language models with implicit process rewards, learned online.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[
    Path, typer.Argument(help="The run's TOML file: [model], [lora], [data], [verifier.*], [training].")
]
RunSettings = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads it at run time
    typer.Option("--set", help="Change a value of the config: table.key=value; repeatable."),
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", "-o", help="Write the responses with their scores here, as JSON lines."),
]


@app.command()
def train(
    config: Config,
    settings: RunSettings = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest checkpoint in output_dir, or start anew.")
    ] = True,
) -> None:
    """Train a policy, and its process reward model with it.

    On GPUs: accelerate launch --mixed_precision bf16 -m implicit_prime train run.toml
    """
    from implicit_prime.recipe import read_recipe

    recipe = read_recipe(config, cli_options.assignments("--set", settings))
    from implicit_prime.training_run import train_recipe

    cli_options.quiet_bars()
    try:
        folder = train_recipe(recipe, resume=resume)
    except KeyboardInterrupt:
        terminal.tell("implicit-prime: interrupted; the same command goes on from the checkpoint")
        raise typer.Exit(130) from None
    if folder.is_dir():
        terminal.tell(f"implicit-prime: policy and PRM are in {folder}, the log in {folder.parent}")
    else:
        terminal.tell(f"implicit-prime: ended before its time; the same command goes on from {folder.parent}")


@app.command("eval")
def evaluate(
    config: Config,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model to measure, such as runs/eurus/final/policy; by default [model] name."),
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Responses to each task.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Of the responses; 0 is greedy.", min=0)] = 0.0,
    out: Out = None,
    settings: RunSettings = None,
    as_json: cli_options.AsJson = False,
) -> None:
    """Measure a model on the config's evaluation sets, [data] eval.

    The paper: greedy; for AIME and AMC also --n 16 --temperature 0.3.
    """
    from implicit_prime.recipe import read_recipe

    recipe = read_recipe(config, cli_options.assignments("--set", settings))
    if not recipe.data.eval:
        raise PrimeError(f'{config} has no evaluation sets: write eval = {{ name = "file" }} under [data]')
    from accelerate import PartialState

    from implicit_prime.training_run import evaluate_recipe

    cli_options.quiet_bars()
    measured, rows = evaluate_recipe(recipe, model, n, temperature)
    if not PartialState().is_main_process:
        return  # every process holds all responses; one of them tells
    if out is not None:
        _write(out, rows)
    terminal.show(
        [asdict(one) for one in measured],
        as_json,
        lambda: terminal.table(
            ("set", "tasks", "accuracy", "± s.e.", f"pass@{n}", "cut off", "judged"),
            (
                (
                    one.name,
                    str(one.tasks),
                    f"{one.accuracy:.1%}",
                    f"{one.standard_error:.1%}",
                    f"{one.pass_at_n:.1%}",
                    f"{one.truncated:.1%}",
                    _counts(one.statuses),
                )
                for one in measured
            ),
        ),
    )


@app.command()
def verify(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines with completion and answer, as eval --out has.")
    ],
    verifiers: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--verifier",
            help="math (the default), code or exact; repeatable: each judges the rows of its ability.",
        ),
    ] = None,
    options: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--option",
            help="Of the verifier: extract=gsm8k, timeout_s=10, sandbox=remote ...; of several by name: "
            "math.extract=gsm8k; repeatable.",
        ),
    ] = None,
    out: Out = None,
    as_json: cli_options.AsJson = False,
) -> None:
    """Judge the responses of a file anew. The mean score is that of the responses that could be judged."""
    from implicit_prime.rescoring import disagreements, mean_score, rescore
    from implicit_prime.tasks import read_lines
    from implicit_prime.verifiers.named import named_verifier

    given = list(read_lines(source))
    names = verifiers or ["math"]
    judge = named_verifier(_verifier_settings(names, cli_options.assignments("--option", options)))
    if others := sorted({str(row["ability"]) for row in given if row.get("ability")} - set(names)):
        raise PrimeError(
            f"{source} has rows of the ability {', '.join(others)}, which is for a verifier of that name: "
            f"give {' '.join(f'--verifier {name}' for name in (*names, *others))}, or take those rows out"
        )
    rows = rescore(given, judge)
    if out is not None:
        _write(out, rows)
    summary: dict[str, Any] = {
        "responses": len(rows),
        "mean_score": mean_score(rows),
        "statuses": dict(Counter(row["status"] for row in rows)),
    }
    if any("score_before" in row for row in rows):
        summary["changed"] = disagreements(rows)
    terminal.show(
        summary,
        as_json,
        lambda: terminal.table(
            ("", ""),
            (
                (key, _counts(value) if isinstance(value, dict) else str(value))
                for key, value in summary.items()
            ),
        ),
    )


@app.command()
def advantages(
    dump: Annotated[
        Path,
        typer.Argument(help="Tensors mask, outcomes, groups, perhaps process and advantages: torch.save's."),
    ],
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", help="Make them anew, as a run with advantage=grpo, process_gamma=0.5 ... does."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Responses that the table shows.", min=1)] = 20,
    as_json: cli_options.AsJson = False,
) -> None:
    """Show the advantages of a batch, response by response.

    A run writes such a file, not-finite-STEP.pt, for an update that it leaves out. Without --set they are the
    file's own, or where it has none those of the paper's settings.
    """
    from implicit_prime.config import PrimeConfig
    from implicit_prime.dumps import inspect_dump

    given = cli_options.assignments("--set", settings)
    found = inspect_dump(dump, PrimeConfig.from_dict({"output_dir": ".", **given}) if given else None)
    heads = ("response", "group", "tokens", "outcome", "process", "first", "last", "least", "greatest")
    terminal.show(
        [asdict(one) for one in found],
        as_json,
        lambda: terminal.table(
            heads, ([_number(getattr(one, head)) for head in heads] for one in found[:limit])
        ),
    )
    bad = [one for one in found if one.not_finite]
    terminal.tell(
        f"implicit-prime: {len(found)} responses, {sum(one.tokens for one in found)} tokens, "
        f"{sum(one.not_finite for one in bad)} of them not finite"
        + (f", first in response {bad[0].response}" if bad else "")
    )


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run prime`."""
    from implicit_prime.reproduce import verb

    verb.reproduce("prime", context)


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {"math_verify": "math", "peft": "peft", "tensorboard": "tensorboard", "trl": "trl", "vllm": "vllm"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"implicit-prime {version('implicit-prime')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: terminal.tell(f"implicit-prime: {message}")
    try:
        app(arguments)
    except (PrimeError, ImplicitPRMError) as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("implicit_prime", "implicit_prm"):  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'implicit-prime[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:  # a full disk, a folder that may not be written
        _end(f"{error}; mend it, then the same command goes on where it stopped", 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    terminal.tell(f"implicit-prime: {message}")
    sys.exit(code)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from implicit_prm.records import write_rows

    write_rows(path, rows)
    terminal.tell(f"implicit-prime: {len(rows)} responses are in {path}")


def _verifier_settings(names: Sequence[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each verifier's options; of several they are given as "name.option"."""
    if len(set(names)) == 1:
        return {names[0]: options}
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        name, _, option = key.partition(".")
        if name not in settings or not option:
            raise PrimeError(
                f"--option {key}: of several verifiers write whose it is, such as {names[0]}.{option or key}"
            )
        settings[name][option] = value
    return settings


def _counts(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(statuses.items()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
