"""The `implicit-prime` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from implicit_prime.errors import PrimeError
from implicit_prm import ImplicitPRMError, cli_shared, screen

app = typer.Typer(
    name="implicit-prime",
    help="PRIME: reinforcement learning of language models with implicit process rewards, learned online.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _verbs() -> None:
    """Verbs stay verbs, however few there are."""


@app.command()
def reproduce(
    quick: Annotated[bool, typer.Option("--quick", help="The same as --scale quick.")] = False,
    scale: Annotated[str, typer.Option(help="quick (minutes), laptop (an hour) or paper (GPUs).")] = "quick",
    settings: cli_shared.Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run.")] = False,
    results: Annotated[Path, typer.Option(help="The folder of all results.")] = Path("results"),
    as_json: cli_shared.AsJson = False,
) -> None:
    """Run the paper's claims as checks, as `tenfold run` does."""
    from implicit_prime.reproduce.verb import reproduce_claims

    scale = "quick" if quick else scale
    claims, table = reproduce_claims(scale, settings or (), results, resume=resume, tell=screen.tell)
    screen.show(claims, as_json, lambda: table)


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {"math_verify": "math", "peft": "peft", "tensorboard": "tensorboard", "trl": "trl", "vllm": "vllm"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: screen.tell(f"implicit-prime: {message}")
    try:
        app(arguments)
    except (PrimeError, ImplicitPRMError) as error:
        _end(str(error), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("implicit_prime", "implicit_prm", ""):
            raise
        extra = EXTRAS.get(package, "reproduce")
        _end(f"this needs {package}, which is not installed: pip install 'implicit-prime[{extra}]'", 2)
    except OSError as error:  # a full disk, a folder that may not be written
        _end(f"{error}; mend it, then the same command goes on where it stopped", 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    screen.tell(f"implicit-prime: {message}")
    sys.exit(code)
