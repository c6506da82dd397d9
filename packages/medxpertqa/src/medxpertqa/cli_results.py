"""The verbs over runs that have been made, by whichever harness: score, compare, report, share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from medxpertqa import cli_eval, cli_options
from medxpertqa.errors import DataError, MedXpertQAError

_Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A folder of logs or of a batch, a file of results, or what the official code, lm-eval, "
        "EvalScope or OpenCompass wrote.",
    ),
]
_Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="As for `score`.")]


def score(
    run: _Run,
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    images: cli_options.ImagesFrom = None,
    parser: Annotated[
        Optional[str],  # noqa: UP045  # typer reads it at run time
        typer.Option(help="The parser that counts; by default the protocol's. Both are always shown."),
    ] = None,
    errors: cli_options.ErrorsAs = "wrong",
    as_json: cli_options.AsJson = False,
    out: cli_options.JsonFile = None,
) -> None:
    """Show a run's accuracy with intervals, by cell and by parser, and everything that went wrong.

    With the questions (--subset, --data) replies are parsed anew. Exits with 1 if the run is not complete.
    """
    from medxpertqa.reporting.json_forms import summary_as_json
    from medxpertqa.reporting.tables import report_tables
    from medxpertqa.reporting.terminal import show
    from medxpertqa.summaries import summarize

    results = cli_options.load_run(run, subset, data, images)
    summary = summarize(results, parser, errors=errors)
    cli_options.show(
        summary_as_json(summary), as_json, out, lambda: show(*report_tables([results], [summary]))
    )
    if not summary.complete:
        cli_eval.tell_errors(results)
        raise typer.Exit(1)


def compare(
    runs: _Runs,
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    errors: cli_options.ErrorsAs = "wrong",
    as_json: cli_options.AsJson = False,
    out: cli_options.JsonFile = None,
) -> None:
    """Compare runs on the questions they share: paired differences, McNemar's test, adjusted by Holm."""
    from medxpertqa.reporting.json_forms import comparison_as_json
    from medxpertqa.reporting.tables import comparison_table, difference_tables
    from medxpertqa.reporting.terminal import show
    from medxpertqa.summaries import compare_all

    if len(runs) < 2:
        raise MedXpertQAError("give at least two runs to compare")
    pairs = compare_all([cli_options.load_run(run, subset, data) for run in runs], errors=errors)
    if not pairs:
        raise MedXpertQAError("no two of the runs share a question; `report` shows them side by side")
    found = [comparison_as_json(pair, adjusted) for pair, adjusted in pairs]
    detail = difference_tables(pairs[0][0]) if len(pairs) == 1 else []
    cli_options.show(found, as_json, out, lambda: show([comparison_table(pairs), *detail]))


def report(
    runs: _Runs,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its heading.")] = "MedXpertQA",
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    errors: cli_options.ErrorsAs = "wrong",
) -> None:
    """Write one page of HTML over runs: tables and plots, without text of questions; it needs no network."""
    from medxpertqa.reporting.document import report as write_report

    loaded = [cli_options.load_run(run, subset, data) for run in runs]
    typer.echo(write_report(loaded, out, title=title, errors=errors))


def share(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="As for `score`; with --scan a file or folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle.")] = Path("shared.jsonl"),
    scan: Annotated[
        bool, typer.Option("--scan", help="Write nothing; search RUN for text of the questions.")
    ] = False,
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
) -> None:
    """Write what of a run may be published: ids, attributes and letters; no text and no labels.

    With --scan: search a file, a folder or a wheel for text of the questions (--subset, --data) before it is
    published; exits with 1 if there is any.
    """
    from medxpertqa.sharing import find_leaks
    from medxpertqa.sharing import share as write_bundle

    if not scan:
        typer.echo(write_bundle(cli_options.load_run(run, subset, data), out))
        return
    if subset is None and data is None:
        raise DataError("--scan needs the questions to search for; give --subset or --data")
    from medxpertqa.hub import load_questions

    leaks = find_leaks(run, load_questions(subset or "text", data))
    for leak in leaks:
        typer.echo(f"{leak.file}: {leak.id}")
    cli_options.tell(
        f"medxpertqa: {len(leaks)} places with text of a question"
        if leaks
        else "medxpertqa: no text of a question found"
    )
    if leaks:
        raise typer.Exit(1)
