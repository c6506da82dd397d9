"""The `medxpertqa` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from medxpertqa import construct_cli
from medxpertqa.parsing import PARSERS, parse_answer

app = typer.Typer(
    help="MedXpertQA: expert-level medical questions, evaluated and built.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(construct_cli.app, name="build")


@app.command()
def parse(
    reply: Annotated[str, typer.Argument(help="A model's last reply.")],
    options: Annotated[int, typer.Option(help="How many options the question has.")] = 10,
) -> None:
    """Print the letter that each parser reads out of a reply."""
    for parser in PARSERS:
        answer = parse_answer(reply, options, parser)
        typer.echo(f"{parser:<14}{answer.letter or '-'}  {answer.rule}")


def main() -> None:
    """Run the command; a mistake of the user is shown as its message alone."""
    try:
        app()
    except ValueError as error:
        typer.echo(f"medxpertqa: {error}", err=True)
        sys.exit(2)
