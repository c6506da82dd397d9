"""The `toedit` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from toedit import cli_studies, screen
from toedit.config import EditConfig
from toedit.errors import ToEditError

if TYPE_CHECKING:
    from toedit.editor import Editor
    from toedit.statistics import EditStats

app = typer.Typer(
    name="toedit",
    help="Edit the tokens of a corpus that a language model finds too easy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SMALL_PRIOR = "smollm2-135m"

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="IN...",
        help="Files (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow), folders, patterns, or URLs such as "
        "hf://datasets/OWNER/NAME.",
    ),
]
Model = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time
    typer.Option(
        help="The prior: a hub id, a folder, a GGUF file. By default SmolLM2-135M: the data set smollm2-135m "
        "where toedit[reproduce] is installed, else that of the hub."
    ),
]
Backend = Annotated[str, typer.Option(help="transformers, vllm or llama_cpp.")]
Options = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--option", help="For the backend: key=value, such as tensor_parallel_size=4; repeatable."),
]
Preset = Annotated[str, typer.Option(help="official, paper, low_drop or filter; other flags go on top.")]
Threshold = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="A token with at least this probability is drawn anew."),
]
TopK = Annotated[Optional[int], typer.Option(help="How many tokens it is drawn from.")]  # noqa: UP045
Temperature = Annotated[Optional[float], typer.Option(help="The temperature of the draw.")]  # noqa: UP045
Seed = Annotated[Optional[int], typer.Option(help="With the document's id it fixes every draw.")]  # noqa: UP045
Window = Annotated[Optional[int], typer.Option(help="Tokens of a window of a long document.")]  # noqa: UP045
Overlap = Annotated[Optional[int], typer.Option(help="Tokens that windows share.")]  # noqa: UP045
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Any other setting of EditConfig: key=value; repeatable."),
]
TextColumn = Annotated[str, typer.Option(help="The column with the text.")]
IdColumn = Annotated[str, typer.Option(help="The column with the documents' ids.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def edit(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of results.")],
    model: Model = None,
    backend: Backend = "transformers",
    options: Options = None,
    preset: Preset = "official",
    threshold: Threshold = None,
    top_k: TopK = None,
    temperature: Temperature = None,
    seed: Seed = None,
    window: Window = None,
    overlap: Overlap = None,
    settings: Settings = None,
    layout: Annotated[
        str, typer.Option(help="text, messages, prompt-completion or alpaca; of the last three the answers.")
    ] = "text",
    text_column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The column with the text or the messages, where it is not called so."),
    ] = None,
    id_column: IdColumn = "id",
    id_from: Annotated[
        str, typer.Option(help="column, or hash: ids are made of the content, and equal texts edited alike.")
    ] = "column",
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Add columns with the counts and every edit.")
    ] = False,
    shard_rows: Annotated[int, typer.Option(help="Rows of a file of results.")] = 10_000,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted job.")] = False,
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
    config = _config(preset, {**flags, "window": window, "overlap": overlap}, settings)
    job_settings = JobSettings(
        config,
        model or _default_model(),
        backend,
        _assignments("--option", options),
        layout_named(layout, text_column),
        None if id_from == "hash" else id_column,
        provenance,
        shard_rows,
    )
    job = EditJob(inputs, out, job_settings, resume)
    if job.complete:
        screen.tell(f"toedit: {out} is complete already")
    editor: Any = None if job.complete else _editor(job_settings.model, config, backend, options)
    try:
        with screen.progress("editing") as on_progress:
            done = job.run(editor, on_progress)
    except KeyboardInterrupt:
        screen.tell("toedit: interrupted; the same command with --resume goes on where it stopped")
        raise typer.Exit(130) from None
    if done.n_tokens_now:
        speed = done.n_tokens_now / done.seconds
        screen.tell(f"toedit: {done.n_tokens_now:,} tokens in {done.seconds:,.0f} s, {speed:,.0f} a second")
    _show_stats(done.stats, done.n_quarantined, as_json)
    if done.n_quarantined:
        screen.tell(f"toedit: {done.n_quarantined} rows were left out; see {out / 'quarantine.jsonl'}")
        raise typer.Exit(1)


@app.command()
def score(
    inputs: Inputs,
    model: Model = None,
    backend: Backend = "transformers",
    options: Options = None,
    window: Window = None,
    overlap: Overlap = None,
    text_column: TextColumn = "text",
    id_column: IdColumn = "id",
    tokens: Annotated[bool, typer.Option("--tokens", help="Also log P of every token.")] = False,
) -> None:
    """Print a line of JSON for each document: its tokens and its perplexity under the prior."""
    from toedit.config import OFF
    from toedit.editor import BUFFER
    from toedit.texts import document_score, read_texts, text_batches

    config = _config("official", {"threshold": OFF, "window": window, "overlap": overlap}, None)
    editor = _editor(model, config, backend, options)
    for batch in text_batches(read_texts(inputs, text_column, id_column), BUFFER):
        for (doc_id, _), scored in zip(batch, editor.score([text for _, text in batch]), strict=True):
            typer.echo(json.dumps({"id": doc_id, **document_score(scored.log_p, tokens)}))


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
            screen.tell(f"toedit: {folder} is not complete: {len(state.shards)} shards so far")
    merged = EditStats().merge(*(state.stats for state in states))
    _show_stats(merged, sum(state.n_quarantined for state in states), as_json)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="A corpus: a file, a folder, a pattern, a URL.")],
    new: Annotated[str, typer.Argument(metavar="B", help="Another, or a folder of results.")],
    text_column: TextColumn = "text",
    id_column: IdColumn = "id",
    limit: Annotated[int, typer.Option(help="Documents that are shown.", min=1)] = 20,
) -> None:
    """Show word by word what changed in the documents that have the same id."""
    from toedit.diffing import CorpusDiff, word_changes
    from toedit.texts import read_texts

    shown = screen.console()
    found = CorpusDiff(*(read_texts([corpus], text_column, id_column) for corpus in (old, new)))
    for document in found.documents:
        if found.n_changed <= limit:
            shown.print(document.doc_id, style="bold")
            for change in word_changes(document.old, document.new):
                shown.print(screen.change_line(change), soft_wrap=True)
    counts = f"{found.n_changed} changed, {found.n_same} the same"
    screen.tell(f"toedit: {counts}, {found.n_gone} only in A, {found.n_new} only in B")


@app.command()
def calibrate(
    inputs: Inputs,
    target_rate: Annotated[float, typer.Option(help="Wanted share of the tokens, such as 0.005.")],
    of: Annotated[str, typer.Option(help="changes (expected), or candidates.")] = "changes",
    sample: Annotated[
        int, typer.Option(help="Documents that are scored, from the whole corpus.", min=1)
    ] = 200,
    model: Model = None,
    backend: Backend = "transformers",
    options: Options = None,
    preset: Preset = "official",
    top_k: TopK = None,
    temperature: Temperature = None,
    window: Window = None,
    overlap: Overlap = None,
    settings: Settings = None,
    text_column: TextColumn = "text",
    as_json: AsJson = False,
) -> None:
    """Find the threshold for a rate of edits, without drawing: a sample is scored once."""
    from toedit.calibration import THRESHOLDS, Sample
    from toedit.texts import sample_texts

    flags = {"top_k": top_k, "temperature": temperature, "window": window, "overlap": overlap}
    config = _config(preset, flags, settings)
    texts = sample_texts(inputs, sample, text_column)
    scored = Sample(_editor(model, config, backend, options), texts)
    found = scored.calibrate(target_rate, of)  # type: ignore[arg-type]  # it refuses other words
    rates = [scored.rates(threshold) for threshold in THRESHOLDS]
    report = {**asdict(found.rates), "n_tokens": found.n_tokens, "curve": [asdict(rate) for rate in rates]}
    rows = [
        (f"{rate.threshold:.10g}", f"{rate.candidate_rate:.4%}", f"{rate.change_rate:.4%}")
        for rate in (*rates, found.rates)
    ]
    head = ("threshold", "candidates", "expected changes")
    screen.show(report, as_json, lambda: screen.table(head, rows))
    screen.tell(f"toedit: --threshold {found.rates.threshold!r} (from {found.n_tokens:,} tokens)")


app.command()(cli_studies.analyze)
app.command()(cli_studies.theory)
app.command()(cli_studies.mix)


@app.command()
def reproduce(
    quick: Annotated[bool, typer.Option("--quick", help="The same as --scale quick.")] = False,
    scale: Annotated[str, typer.Option(help="quick (minutes), laptop (an hour) or paper (GPUs).")] = "quick",
    assignments: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run.")] = False,
    results: Annotated[Path, typer.Option(help="The folder of all results.")] = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Run the paper's claims as checks; the same as `tenfold run toedit`."""
    from toedit.reproduce.experiment import EXPERIMENT

    scale = "quick" if quick else scale
    claims, table = EXPERIMENT.reproduce(scale, assignments or (), results, resume=resume, tell=screen.tell)
    screen.show(claims, as_json, lambda: table)


def _config(preset: str, flags: dict[str, Any], settings: Sequence[str] | None) -> EditConfig:
    given = {name: value for name, value in flags.items() if value is not None}
    return EditConfig.preset(preset).replace(**given, **_assignments("--set", settings))


def _assignments(option: str, entries: Sequence[str] | None) -> dict[str, Any]:
    """key=value, the value as JSON or else as it is."""
    found: dict[str, Any] = {}
    for entry in entries or ():
        key, sign, value = entry.partition("=")
        if not sign:
            raise ToEditError(f"{option} {entry}: write key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _default_model() -> str:
    from importlib.util import find_spec

    from toedit.editor import DEFAULT_PRIOR

    return SMALL_PRIOR if find_spec("tenfold") and find_spec("lmlab") else DEFAULT_PRIOR


def _editor(model: str | None, config: EditConfig, backend: str, options: Sequence[str] | None) -> Editor:
    from toedit.editor import Editor

    if not sys.stderr.isatty():  # bars of others, which do not look whether there is a terminal
        os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported
    name = model or _default_model()
    if name == SMALL_PRIOR:
        from toedit.reproduce.verb import small_prior

        name = small_prior()
    return Editor.from_pretrained(name, config, backend, **_assignments("--option", options))


def _show_stats(stats: EditStats, n_quarantined: int, as_json: bool) -> None:
    from toedit.job_report import summary_rows

    head = ("", "", "")
    value = {**stats.to_dict(), "n_quarantined": n_quarantined}
    # JSON has no NaN and no infinity.
    value["perplexity"] = stats.perplexity if isfinite(stats.perplexity) else None
    value["expected_changes"] = stats.expected_changes
    screen.show(value, as_json, lambda: screen.table(head, summary_rows(stats, n_quarantined)))


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
    warnings.showwarning = lambda message, *_, **__: screen.tell(f"toedit: {message}")
    try:
        app(arguments)
    except ToEditError as error:
        _end(str(error), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("toedit", ""):
            raise
        extra = EXTRAS.get(package, "reproduce")
        _end(f"this needs {package}, which is not installed: pip install 'toedit[{extra}]'", 2)
    except OSError as error:  # a full disk, a folder that may not be written
        _end(f"{error}; mend it, then the same command with --resume goes on where it stopped", 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    screen.tell(f"toedit: {message}")
    sys.exit(code)
