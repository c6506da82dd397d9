"""The `new-paper` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from new_paper.descent import gradient_descent, heavy_ball
from new_paper.errors import NewPaperError

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


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run new-paper`."""
    from new_paper.reproduce import verb

    verb.reproduce("new-paper", context)


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
    except NewPaperError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "new_paper":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            _end(f"this needs {package}, which is not installed: pip install 'new-paper[reproduce]'", 2)
        _end(str(error), 2)  # says itself what it needs
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
