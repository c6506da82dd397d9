"""The `medxpertqa` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Optional

import typer

from medxpertqa import cli_construct, cli_eval, cli_options, cli_results
from medxpertqa.errors import MedXpertQAError
from medxpertqa.parsing import PARSERS, parse_answer

app = typer.Typer(
    name="medxpertqa",
    help="MedXpertQA: expert-level medical questions, evaluated and built.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def info(
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    allow_revision: cli_options.AllowRevision = False,
) -> None:
    """Say what there is: sets, protocols, parsers, extras; with a set or a file, what its questions are."""
    from medxpertqa.reporting.inventory import installation_tables, statistics_tables
    from medxpertqa.reporting.terminal import show_tables

    if subset is None and data is None:
        show_tables(installation_tables())
        return
    from medxpertqa.attributes import dataset_statistics
    from medxpertqa.hub import load_questions

    questions = load_questions(subset or "text", data, allow_revision=allow_revision)
    show_tables(statistics_tables(dataset_statistics(questions)))


@app.command()
def download(
    subsets: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads it at run time
        typer.Option("--subset", help="text, mm, text/dev or mm/dev; repeatable; by default all four."),
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="The images of mm too, 517 MB.")] = False,
    allow_revision: cli_options.AllowRevision = False,
) -> None:
    """Fetch the questions from the hub into its cache, and check that they are the pinned revision's."""
    from medxpertqa.hub import load_questions

    for name in subsets or ("text", "mm", "text/dev", "mm/dev"):
        n = len(load_questions(name, allow_revision=allow_revision))
        typer.echo(f"{name:<9}{n:>6,} questions")
    if images:
        from medxpertqa.images import ImageStore

        typer.echo(f"images   {len(ImageStore.from_hub()):>6,} images")


app.command("eval")(cli_eval.eval_)
app.command()(cli_results.score)
app.command()(cli_results.compare)
app.command()(cli_results.report)
app.command()(cli_results.share)
app.add_typer(cli_eval.batch, name="batch")
app.add_typer(cli_construct.app, name="build")


@app.command("paper-check")
def paper_check(
    hub: Annotated[bool, typer.Option("--hub", help="Count the questions of the hub, too.")] = False,
    data: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Count the questions of a file (Text or MM), too; repeatable."),
    ] = None,
    as_json: cli_options.AsJson = False,
    out: cli_options.JsonFile = None,
) -> None:
    """Check the paper's tables and statements: whole counts behind every row, and what they can show."""
    from medxpertqa.hub import load_questions
    from medxpertqa.paper import check_claims, check_questions_of, check_tables
    from medxpertqa.paper.showing import paper_as_json, paper_tables
    from medxpertqa.reporting.terminal import show_tables

    sets = [load_questions(name) for name in ("text", "mm")] if hub else []
    sets += [load_questions(path=path) for path in data or ()]
    rows, verdicts = check_tables(), check_claims()
    counts = [number for questions in sets for number in check_questions_of(questions)]
    found = paper_as_json(rows, verdicts, counts)
    cli_options.show(found, as_json, out, lambda: show_tables(paper_tables(rows, verdicts, counts)))


@app.command()
def leakage(
    questions: Annotated[Path, typer.Argument(help="A file of questions, with label_rationale if known.")],
    model: Annotated[str, typer.Option(help="A model of transformers: a hub id or a folder.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="JSON lines, a question each; the same again goes on.")
    ],
    rewritten: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The same questions rewritten: is the model less certain of them?"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Of the model's own answer.", min=1)] = 256,
    stem: Annotated[bool, typer.Option("--stem", help="ROUGE-L of stems, as BenBench.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
) -> None:
    """Look for questions that a model has seen: its certainty, and how it continues their texts."""
    from medxpertqa.hub import load_questions
    from medxpertqa.memory import CausalMemory, audit_questions
    from medxpertqa.reporting.inventory import leakage_tables
    from medxpertqa.reporting.terminal import show_tables

    first = load_questions(path=questions)
    second = load_questions(path=rewritten) if rewritten else None
    memory = CausalMemory.from_pretrained(model, device)
    with cli_options.interruptible():
        audit = audit_questions(memory, first, out, rewritten=second, max_tokens=max_tokens, stemmed=stem)
    show_tables(leakage_tables(audit))


@app.command("lm-eval-path")
def lm_eval_path() -> None:
    """Print the folder of the tasks for lm-eval, for its --include_path."""
    from medxpertqa.adapters.lm_eval import task_folder

    typer.echo(task_folder())


@app.command()
def parse(
    reply: Annotated[str, typer.Argument(help="A model's last reply.")],
    options: Annotated[int, typer.Option(help="How many options the question has.")] = 10,
) -> None:
    """Print the letter that each parser reads out of a reply."""
    for parser in PARSERS:
        answer = parse_answer(reply, options, parser)
        typer.echo(f"{parser:<14}{answer.letter or '-'}  {answer.rule}")


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run medxpertqa`."""
    from medxpertqa.reproduce import verb

    verb.reproduce("medxpertqa", context)


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {
    "filelock": "eval",
    "inspect_ai": "eval",
    "jinja2": "report",
    "matplotlib": "report",
    "openai": "eval",
    "PIL": "images",
    "pyarrow": "data",
    "sklearn": "embed",
    "torch": "leakage",
    "transformers": "leakage",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medxpertqa {version('medxpertqa')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: cli_options.tell(f"medxpertqa: {message}")
    words = sys.argv[1:] if arguments is None else arguments
    # `--json -` says by its dash what `--json` says without it: to standard output.
    kept = [word for before, word in pairwise(["", *words]) if (before, word) != ("--json", "-")]
    try:
        app(kept)
    except MedXpertQAError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "medxpertqa":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'medxpertqa[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:
        _end_of_os(error)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end_of_os(error: OSError) -> None:
    """A path that is wrong is the user's mistake; a full disk stops the work, which can go on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        _end(f"{error}; mend it, then the same command goes on where it stopped", 1)
    _end(str(error), 2)


def _end(message: str, code: int) -> None:
    cli_options.tell(f"medxpertqa: {message}")
    sys.exit(code)
