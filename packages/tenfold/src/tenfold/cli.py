"""The `tenfold` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from tenfold.errors import TenfoldError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

# What a verb needs it imports itself: help and list are asked for often, and must not wait for the rest.

app = typer.Typer(
    name="tenfold",
    help="A paper's claims as checks that run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="The named outside data sets.", no_args_is_help=True)
app.add_typer(data, name="data")

Results = Annotated[Path, typer.Option("--results", help="The folder of all results.")]


def _console(stderr: bool = False) -> Console:
    """A console for texts that others wrote: square brackets in them are no mark-up."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 140, highlight=False, markup=False)


def _tell(message: str) -> None:
    _console(stderr=True).print(message, soft_wrap=True)


@app.command("list")
def list_experiments(
    paper: Annotated[Optional[str], typer.Argument(help="Show this one's claims and scales.")] = None,  # noqa: UP045
) -> None:
    """List the installed papers, or one's claims and their rules."""
    from tenfold.experiments import find_experiment
    from tenfold.tables import experiment_table, experiments_table

    _console().print(experiments_table() if paper is None else experiment_table(find_experiment(paper)))


@app.command()
def run(
    paper: Annotated[str, typer.Argument(help="The experiment's name (see `tenfold list`).")],
    scale: Annotated[str, typer.Option(help="quick, laptop or paper.")] = "quick",
    quick: Annotated[bool, typer.Option("--quick", hidden=True)] = False,
    laptop: Annotated[bool, typer.Option("--laptop", hidden=True)] = False,
    assignments: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads it at run time
        typer.Option("--set", help="Change a config value: key=value, dots for tables; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run.")] = False,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="The most trials side by side (default: one a core)."),
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", "--out", "-o", help="The folder of all results.")
    ] = Path("results"),
    gate: Annotated[
        bool,
        typer.Option(
            "--assert", help="Exit 1 if a claim did not hold; if some are gating, unless they held."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print claims.json instead of the table.")] = False,
) -> None:
    """Run a paper's experiment and say which of its claims hold."""
    from tenfold.experiments import find_experiment

    if quick and laptop:
        raise UsageError("--quick and --laptop: choose one")
    scale = "quick" if quick else "laptop" if laptop else scale
    experiment = find_experiment(paper)
    claims, table = experiment.reproduce(
        scale, assignments or (), results, resume=resume, jobs=jobs, tell=_tell
    )
    if as_json:
        typer.echo(json.dumps(claims, indent=2, ensure_ascii=False))
    else:
        _console().print(table)
        _console().print(f"Results: {results / paper / scale}", soft_wrap=True)
    if failed := experiment.failures(claims, gate=gate):
        _tell(f"{paper}: not held: {', '.join(failed)}")
        raise typer.Exit(1)


def reproduce(paper: str, context: Any) -> None:
    """Be the verb `reproduce` of a paper's own command: `tenfold run PAPER` with the arguments in `context`.

    The command hands them on as they are, so that all papers have the same options, and those only here.
    """
    group: Any = typer.main.get_command(app)
    verb = group.commands["run"]
    verb.params = [parameter for parameter in verb.params if parameter.name != "paper"]
    verb.help = context.command.help
    with verb.make_context(context.info_name, [*context.args], parent=context.parent) as own:
        own.params["paper"] = paper
        verb.invoke(own)


@app.command()
def report(
    results: Results = Path("results"),
    show: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser, where there is one.")
    ] = False,
) -> None:
    """Build one page of all results, results/index.html."""
    from tenfold.report import open_page, write_report

    page = write_report(results, _tell)
    _console().print(f"Report: {page}", soft_wrap=True)
    if show:
        open_page(page)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder, results/PAPER/SCALE.")],
    second: Annotated[Path, typer.Argument(help="Another run's folder.")],
) -> None:
    """Show claims and metrics of two runs side by side."""
    from tenfold.comparison import compare_runs
    from tenfold.tables import comparison_tables

    for table in comparison_tables(compare_runs(first, second, _tell)):
        _console().print(table)


@data.command("list")
def list_data() -> None:
    """List the named data sets and whether they can be had here."""
    from tenfold.tables import datasets_table

    _console().print(datasets_table())


@data.command("get")
def get_data(name: Annotated[str, typer.Argument(help="The data set's name.")]) -> None:
    """Fetch a data set and print where it is."""
    from tenfold.data import get

    typer.echo(get(name))


@data.command("path")
def data_path(name: Annotated[str, typer.Argument(help="The data set's name.")]) -> None:
    """Print where a data set is, without fetching it."""
    from tenfold.data import path

    found = path(name)
    if found is None:
        raise TenfoldError(f"data {name} is not on this machine; tenfold data get {name} fetches it")
    typer.echo(found)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tenfold {version('tenfold')}")
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
    except TenfoldError as error:
        _tell(f"tenfold: {error}")
        sys.exit(error.exit_code)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "tenfold":  # a mistake of ours
            raise
        _tell(f"tenfold: {error}")  # says itself what it needs
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        _tell(f"tenfold: {error} (a run that was interrupted by this goes on with --resume)")
        sys.exit(1)
