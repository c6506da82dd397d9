"""The `lmlab` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lmlab import tables
from tenfold.errors import TenfoldError, UsageError

app = typer.Typer(
    name="lmlab",
    help="Pre-train, evaluate and compare small language models on real text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

corpus = typer.Typer(help="The texts that can be asked for by name.", no_args_is_help=True)
app.add_typer(corpus, name="corpus")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 140, highlight=False)


def _tell(message: str) -> None:
    if _is_first_process():
        _console(stderr=True).print(message, markup=False, soft_wrap=True)


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _show(value: Any, as_json: bool, table: Callable[[Any], Any]) -> None:
    if not _is_first_process():
        return
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        _console().print(table(value))


@corpus.command("list")
def list_corpora(as_json: AsJson = False) -> None:
    """List the corpora: name, splits, what it is."""
    from lmlab.corpora import CORPORA

    rows = [
        {"name": found.name, "splits": list(found.splits), "description": found.description}
        for found in CORPORA.values()
    ]
    _show(rows, as_json, tables.corpora)


@corpus.command("stats")
def corpus_statistics(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads it at run time
        typer.Argument(help="Corpora; those that this machine has if none is named.", metavar="[NAME]..."),
    ] = None,
    sources: Annotated[bool, typer.Option("--sources", help="A row also for each library or book.")] = False,
    vocab_size: Annotated[int, typer.Option(help="Of the tokenizer that counts the tokens.")] = 2048,
    as_json: AsJson = False,
) -> None:
    """Show sizes by split: documents, bytes, tokens.

    The tokenizer is trained on the corpus's own training text, or on docs where there is none.
    """
    from lmlab.corpora import CORPORA, find_corpus, stats
    from lmlab.errors import SettingsError
    from lmlab.tokenizers import tokenizer_for

    rows = []
    for name in names or CORPORA:
        try:
            trained_on = name if "train" in find_corpus(name).splits else "docs"
            found = stats(name, tokenizer_for(trained_on, vocab_size))
        except TenfoldError as error:
            if names or isinstance(error, SettingsError):
                raise
            _tell(f"{name}: {error}")
            continue
        rows += [{"corpus": name} | asdict(row) for row in found if sources or not row.source]
    _show(rows, as_json, tables.statistics)


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="The run's TOML file (see the README).")],
    output: Annotated[Path, typer.Option("--out", "-o", help="The folder to write model and metrics to.")],
    apply: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="module:function that changes the model; its options are apply.options.*"),
    ] = None,
    assignments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Change a config value: key=value, dots for tables; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train a model as a file says, measure it and save it."""
    from lmlab.train import run_file

    try:
        with _progress_bar("training, then measuring") as on_progress:
            metrics = run_file(
                config,
                output,
                apply=apply,
                assignments=assignments or (),
                resume=resume,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        _tell("\nInterrupted. The same command goes on from the last checkpoint.")
        raise typer.Exit(130) from None
    _show(metrics, as_json, tables.training)
    _tell(f"Results: {output}")


@contextmanager
def _progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    shown = console.is_terminal and _is_first_process()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@app.command("eval")
def evaluate_model(
    folder: Annotated[Path, typer.Argument(help="A saved model with its tokenizer.", metavar="MODEL_DIR")],
    corpus: Annotated[str, typer.Option(help="The text (see `lmlab corpus list`).")] = "docs",
    splits: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--split", help="Repeatable; valid and heldout, where there are, if none is given."),
    ] = None,
    context_length: Annotated[int, typer.Option(help="Tokens in a block.", min=2)] = 128,
    lengths: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--length", help="A context length for the perplexity by length; repeatable."),
    ] = None,
    passkey_lengths: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--passkey", help="A length in tokens to hide a passkey in; repeatable."),
    ] = None,
    max_blocks: Annotated[int, typer.Option(help="Blocks of each split, 0 for all.", min=0)] = 0,
    modules: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--import", help="A module that makes the model readable, such as lpa; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a saved model: perplexity, bits per byte, perplexity by length, passkey retrieval."""
    from lmlab.battery import EvaluationConfig, evaluate, load_model
    from lmlab.corpora import find_corpus
    from lmlab.packing import pack

    for module in modules or ():
        _import(module)
    wanted = splits or [split for split in find_corpus(corpus).splits if split != "train"]
    model, tokenizer = load_model(folder)
    blocks = {split: pack(corpus, split, tokenizer, context_length) for split in wanted}
    config = EvaluationConfig(
        max_blocks=max_blocks, lengths=tuple(lengths or ()), passkey_lengths=tuple(passkey_lengths or ())
    )
    with _progress_bar("measuring") as on_progress:
        measured = evaluate(model, tokenizer, blocks, config, on_progress)
    _show(measured, as_json, tables.evaluation)


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"--import {module}: {error}") from error


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lmlab {version('lmlab')}")
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
        _tell(f"lmlab: {error}")
        sys.exit(error.exit_code)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "lmlab":  # a mistake of ours
            raise
        _tell(f"lmlab: {error}")  # says itself what it needs
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        _tell(f"lmlab: {error}")
        sys.exit(1)
