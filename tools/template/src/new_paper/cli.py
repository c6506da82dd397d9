"""The `new-paper` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Optional

import typer

from new_paper.descent import gradient_descent, heavy_ball

app = typer.Typer(
    name="new-paper",
    help="A New Paper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def rates(
    condition_number: Annotated[float, typer.Argument(help="L/μ, at least 1.")], as_json: AsJson = False
) -> None:
    """Print by how much one step shrinks the error, without momentum and with it."""
    found = {
        method.__name__: method(1.0, condition_number).contraction
        for method in (gradient_descent, heavy_ball)
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo("\n".join(f"{name:<18}{rate:.4f}" for name, rate in found.items()))


@app.command()
def reproduce(
    scale: Annotated[str, typer.Option(help="quick (minutes).")] = "quick",
    assignments: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads it at run time
        typer.Option("--set", help="Change a config value: key=value, dots for tables; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run.")] = False,
    results: Annotated[Path, typer.Option(help="The folder of all results.")] = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Run the paper's claims as checks; the same as `tenfold run new-paper`."""
    from new_paper.reproduce.experiment import EXPERIMENT

    claims, table = EXPERIMENT.reproduce(scale, assignments or (), results, resume=resume, tell=_tell)
    if as_json:
        typer.echo(json.dumps(claims, indent=2))
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)


def _tell(message: str) -> None:
    typer.echo(message, err=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"new-paper {version('new-paper')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    try:
        app(arguments)
    except ValueError as error:  # an error class of the package's own is better: see the other papers
        _end(str(error), 2)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("new_paper", ""):
            raise
        _end(f"this needs {error.name}, which is not installed: pip install 'new-paper[reproduce]'", 2)
    except OSError as error:  # a full disk, a folder that may not be written
        _end(str(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    _tell(f"new-paper: {message}")
    sys.exit(code)
