"""The `toedit` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from toedit import cli_studies, terminal
from toedit.cli_options import (
    Agree,
    AsJson,
    Backend,
    ConfigFile,
    IdColumn,
    Inputs,
    LayoutColumn,
    LayoutName,
    Model,
    Options,
    Overlap,
    Preset,
    Seed,
    Settings,
    Temperature,
    Threshold,
    TopK,
    Window,
    assignments,
    check_new_file,
    edit_config,
)
from toedit.cli_priors import default_model, load_editor
from toedit.errors import ToEditError

if TYPE_CHECKING:
    from toedit.statistics import EditStats

app = typer.Typer(
    name="toedit",
    help="Edit the tokens of a corpus that a language model finds too easy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def edit(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of results.")],
    model: Model = None,
    agree: Agree = None,
    backend: Backend = "transformers",
    options: Options = None,
    preset: Preset = None,
    config_file: ConfigFile = None,
    threshold: Threshold = None,
    top_k: TopK = None,
    temperature: Temperature = None,
    seed: Seed = None,
    window: Window = None,
    overlap: Overlap = None,
    settings: Settings = None,
    layout: LayoutName = "text",
    text_column: LayoutColumn = None,
    id_column: IdColumn = "id",
    id_from: Annotated[
        str, typer.Option(help="column, or hash: ids are made of the content, and equal texts edited alike.")
    ] = "column",
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Add columns with the counts and every edit.")
    ] = False,
    shard_rows: Annotated[int, typer.Option(help="Rows of a file of results.")] = 10_000,
    resume: Annotated[
        bool, typer.Option(help="Go on with an interrupted job, or remove its results and start anew.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Edit a corpus into a folder: files of the same kinds and columns, a manifest and a report.

    Exits with 1 if rows were left out: they are in quarantine.jsonl, with reasons.
    """
    from toedit.job import EditJob, JobSettings
    from toedit.layouts import layout_named

    if id_from not in ("column", "hash"):
        raise ToEditError(f"--id-from {id_from}: it may be column or hash")
    flags = {"threshold": threshold, "top_k": top_k, "temperature": temperature, "seed": seed}
    config = edit_config(preset, config_file, {**flags, "window": window, "overlap": overlap}, settings)
    job_settings = JobSettings(
        config,
        model or default_model(),
        backend,
        assignments("--option", options),
        layout_named(layout, text_column),
        None if id_from == "hash" else id_column,
        provenance,
        shard_rows,
        agree,
    )
    with _resumable():
        job = EditJob(inputs, out, job_settings, resume)
        if job.complete:
            terminal.tell(f"toedit: {out} is complete already")
        editor: Any = None
        if not job.complete:
            editor = load_editor(job_settings.model, config, backend, options, agree)
        with terminal.progress("editing") as on_progress:
            done = job.run(editor, on_progress)
    if done.n_tokens_now:
        speed = done.n_tokens_now / done.seconds
        terminal.tell(f"toedit: {done.n_tokens_now:,} tokens in {done.seconds:,.0f} s, {speed:,.0f} a second")
    _show_stats(done.stats, done.n_quarantined, as_json)
    if not done.stats.n_documents + done.n_quarantined:
        terminal.tell("toedit: there is no document in the inputs")
    if done.n_quarantined:
        terminal.tell(f"toedit: {done.n_quarantined} rows were left out; see {out / 'quarantine.jsonl'}")
        raise typer.Exit(1)


@contextmanager
def _resumable() -> Iterator[None]:
    """How a job ends that Ctrl-C or the system stopped: what was edited is kept."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.tell("toedit: interrupted; the same command goes on where it stopped")
        raise typer.Exit(130) from None
    except OSError as error:  # a full disk, a folder that may not be written, a network that is gone
        terminal.tell(f"toedit: {error}; mend it, then the same command goes on where it stopped")
        raise typer.Exit(1) from None


@app.command()
def score(
    inputs: Inputs,
    model: Model = None,
    backend: Backend = "transformers",
    options: Options = None,
    window: Window = None,
    overlap: Overlap = None,
    layout: LayoutName = "text",
    text_column: LayoutColumn = None,
    id_column: IdColumn = "id",
    tokens: Annotated[bool, typer.Option("--tokens", help="Also log P of every token.")] = False,
) -> None:
    """Print a line of JSON for each document: its tokens and its perplexity under the prior.

    With a layout of answers also the perplexity of the answers alone, after their prompts.
    """
    from toedit.config import OFF
    from toedit.editor import BUFFER
    from toedit.layouts import layout_named
    from toedit.texts import corpus_rows, document_score, row_batches

    found = layout_named(layout, text_column)
    config = edit_config(None, None, {"threshold": OFF, "window": window, "overlap": overlap}, None)
    editor = load_editor(model, config, backend, options)
    for batch in row_batches(corpus_rows(inputs, found, id_column), BUFFER):
        documents = [row.document(found, editor.tokenizer.base) for row in batch]
        for row, scored in zip(batch, editor.score(documents), strict=True):
            typer.echo(json.dumps({"id": row.doc_id, **document_score(scored, tokens)}))


@app.command()
def stats(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of results.")],
    as_json: AsJson = False,
) -> None:
    """Print what jobs did, all together; candidates and changes are counted apart."""
    from toedit.manifest import read_manifest
    from toedit.statistics import EditStats

    states = [read_manifest(folder) for folder in folders]
    for folder, state in zip(folders, states, strict=True):
        if not state.complete:
            terminal.tell(f"toedit: {folder} is not complete: {len(state.shards)} shards so far")
    merged = EditStats().merge(*(state.stats for state in states))
    _show_stats(merged, sum(state.n_quarantined for state in states), as_json)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="A corpus: a file, a folder, a pattern, a URL.")],
    new: Annotated[str, typer.Argument(metavar="B", help="Another, or a folder of results.")],
    layout: LayoutName = "text",
    text_column: LayoutColumn = None,
    id_column: IdColumn = "id",
    limit: Annotated[int, typer.Option(help="Documents that are shown.", min=1)] = 20,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Write the changes to this file of JSON lines; none is shown."),
    ] = None,
    context: Annotated[int, typer.Option(help="Words on both sides of a change.", min=0)] = 6,
) -> None:
    """Show word by word what changed in the documents that have the same id; of chats in the answers.

    With --out the changes are a data set: rows of before, old, new, after and count, equal ones once.
    """
    from toedit.diffing import Change, CorpusDiff, word_changes, write_changes
    from toedit.layouts import layout_named
    from toedit.texts import read_texts

    if out is not None:
        check_new_file(out)
    shown = terminal.console()
    columns = layout_named(layout, text_column)
    found = CorpusDiff(*(read_texts([corpus], columns, id_column) for corpus in (old, new)))
    distinct: Counter[Change] = Counter()
    for document in found.documents:
        if out is None and found.n_changed > limit:
            continue  # it is counted; to compare its words takes longest
        changes = word_changes(document.old, document.new, context)
        if out is not None:
            distinct.update(changes)
        else:
            shown.print(document.doc_id, style="bold")
            for change in changes:
                shown.print(terminal.change_line(change), soft_wrap=True)
    if out is not None:
        write_changes(out, distinct)
        terminal.tell(f"toedit: {distinct.total()} changes, {len(distinct)} of them different, in {out}")
    counts = f"{found.n_changed} changed, {found.n_same} the same"
    terminal.tell(f"toedit: {counts}, {found.n_gone} only in A, {found.n_new} only in B")


@app.command()
def calibrate(
    inputs: Inputs,
    target_rate: Annotated[float, typer.Option(help="Wanted share of the tokens, such as 0.005.")],
    of: Annotated[str, typer.Option(help="changes (expected), or candidates.")] = "changes",
    sample: Annotated[
        int, typer.Option(help="Documents that are scored, from the whole corpus.", min=1)
    ] = 200,
    model: Model = None,
    agree: Agree = None,
    backend: Backend = "transformers",
    options: Options = None,
    preset: Preset = None,
    config_file: ConfigFile = None,
    top_k: TopK = None,
    temperature: Temperature = None,
    window: Window = None,
    overlap: Overlap = None,
    settings: Settings = None,
    layout: LayoutName = "text",
    text_column: LayoutColumn = None,
    as_json: AsJson = False,
) -> None:
    """Find the threshold for a rate of edits, without drawing: a sample is scored once."""
    from toedit.calibration import THRESHOLDS, Sample, check_target
    from toedit.layouts import layout_named
    from toedit.texts import sample_rows

    check_target(target_rate, of)
    flags = {"top_k": top_k, "temperature": temperature, "window": window, "overlap": overlap}
    config = edit_config(preset, config_file, flags, settings)
    columns = layout_named(layout, text_column)
    rows = sample_rows(inputs, sample, columns)
    editor = load_editor(model, config, backend, options, agree)
    scored = Sample(editor, [row.document(columns, editor.tokenizer.base) for row in rows])
    found = scored.calibrate(target_rate, of)  # type: ignore[arg-type]  # it refuses other words
    rates = [scored.rates(threshold) for threshold in THRESHOLDS]
    report = {**asdict(found.rates), "n_tokens": found.n_tokens, "curve": [asdict(rate) for rate in rates]}
    lines = [
        (f"{rate.threshold:.10g}", f"{rate.candidate_rate:.4%}", f"{rate.change_rate:.4%}")
        for rate in (*rates, found.rates)
    ]
    head = ("threshold", "candidates", "expected changes")
    terminal.show(report, as_json, lambda: terminal.table(head, lines))
    terminal.tell(f"toedit: --threshold {found.rates.threshold!r} (from {found.n_tokens:,} tokens)")


app.command()(cli_studies.analyze)
app.command()(cli_studies.theory)
app.command()(cli_studies.mix)


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run toedit`."""
    from toedit.reproduce import verb

    verb.reproduce("toedit", context)


def _show_stats(stats: EditStats, n_quarantined: int, as_json: bool) -> None:
    from toedit.job_report import summary_rows

    head = ("", "", "")
    value = {**stats.to_dict(), "n_quarantined": n_quarantined}
    # JSON has no NaN and no infinity.
    value["perplexity"] = stats.perplexity if isfinite(stats.perplexity) else None
    value["expected_changes"] = stats.expected_changes
    terminal.show(value, as_json, lambda: terminal.table(head, summary_rows(stats, n_quarantined)))


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {
    "datasets": "datasets",
    "pyarrow": "datasets",
    "zstandard": "datasets",
    "datatrove": "datatrove",
    "gguf": "gguf",
    "accelerate": "gguf",
    "llama_cpp": "llama-cpp",
    "matplotlib": "analysis",
    "ray": "ray",
    "sklearn": "analysis",
    "vllm": "vllm",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toedit {version('toedit')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: terminal.tell(f"toedit: {message}")
    try:
        app(arguments)
    except ToEditError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "toedit":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'toedit[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:  # a full disk, a file that may not be read or written
        _end(str(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    terminal.tell(f"toedit: {message}")
    sys.exit(code)
