"""The `medxpertqa` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medxpertqa.descent import gradient_descent, heavy_ball

app = typer.Typer(
    help="MedXpertQA: expert-level medical questions, evaluated and built.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _app() -> None:
    """Keep `rates` a verb: with only one command typer would drop its name."""


@app.command()
def rates(condition_number: Annotated[float, typer.Argument(help="L/μ, at least 1.")]) -> None:
    """Print by how much one step shrinks the error, without momentum and with it."""
    for method in (gradient_descent, heavy_ball):
        typer.echo(f"{method.__name__:<18}{method(1.0, condition_number).contraction:.4f}")


def main() -> None:
    """Run the command; a mistake of the user is shown as its message alone."""
    try:
        app()
    except ValueError as error:
        typer.echo(f"medxpertqa: {error}", err=True)
        sys.exit(2)
