"""The verbs that ask a model: `medxpertqa eval`, and `medxpertqa batch export|import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medxpertqa import cli_options
from medxpertqa.errors import MedXpertQAError
from medxpertqa.reporting.tables import visible

if TYPE_CHECKING:
    from medxpertqa.engine.batch import BatchState
    from medxpertqa.engine.running import Display, Estimate
    from medxpertqa.results import Results

batch = typer.Typer(
    help="Ask without a server: requests in files, for OpenAI's batch API or `vllm run-batch`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Model = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time
    typer.Option(help="inspect-ai's name: openai/gpt-4o, vllm/ORG/NAME, hf/ORG/NAME, openai-api/local/NAME."),
]
Protocol = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="official-cot, -cot-nosystem, -r1, -qvq, -ao or few-shot; default official-cot."),
]
Demonstrations = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Answered questions for few-shot; by default the dev split."),
]
LogDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="The run's folder; the same command again goes on with what it lacks."),
]
Config = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A TOML file with these settings; options go before it."),
]
Limit = Annotated[Optional[int], typer.Option(help="The first so many questions.")]  # noqa: UP045
SampleIds = Annotated[Optional[str], typer.Option(help="These questions, such as Text-3,Text-7.")]  # noqa: UP045
Shard = Annotated[Optional[str], typer.Option(help="A part of the questions, such as 1/4.")]  # noqa: UP045
Epochs = Annotated[Optional[int], typer.Option(help="Ask everything so many times.")]  # noqa: UP045
Permute = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Ask with the options in so many cyclic orders."),
]
Ablate = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Take away the images or the stem; repeatable."),
]
MaxTokens = Annotated[Optional[int], typer.Option(help="Of a reply, instead of the protocol's.")]  # noqa: UP045
Set = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set", help="Any other setting of inspect-ai: key=value, such as temperature=0.7; repeatable."
    ),
]

_GUESSED = "images not counted"
"""Beside a cost: it is no bound, as tokens are guessed from characters too."""


@batch.callback()
def _batch() -> None:
    pass


def eval_(
    model: Model = None,
    log_dir: LogDir = None,
    config: Config = None,
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    images: cli_options.ImagesFrom = None,
    base_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="The endpoint; its key is in the environment, LOCAL_API_KEY for openai-api/local/NAME."
        ),
    ] = None,
    model_args: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--model-arg", help="For inspect-ai's provider: key=value; repeatable."),
    ] = None,
    protocol: Protocol = None,
    demonstrations: Demonstrations = None,
    max_connections: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Requests at once.", min=1),
    ] = None,
    max_tokens: MaxTokens = None,
    settings: Set = None,
    limit: Limit = None,
    sample_ids: SampleIds = None,
    shard: Shard = None,
    epochs: Epochs = None,
    permute: Permute = None,
    ablate: Ablate = None,
    price: Annotated[
        Optional[tuple[float, float]],  # noqa: UP045
        typer.Option(help="US dollars for a million input and a million output tokens."),
    ] = None,
    cost_limit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Ask nothing more after so many US dollars."),
    ] = None,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Keep the text of the questions in the logs.")
    ] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Take replies from inspect-ai's cache.")] = False,
    allow_revision: cli_options.AllowRevision = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked, and ask nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before money is spent.")] = False,
) -> None:
    """Let a model answer the questions by a protocol, and show how it did.

    Exits with 1 if replies are missing, or more than 5 % of the replies are errors. On Ctrl-C, or when it
    was killed, nothing that was answered is lost: the same command goes on.
    """
    from medxpertqa.engine.run_settings import read_run_settings

    options = _options(locals())
    options |= cli_options.given({"base_url": base_url, "price": price, "cost_limit": cost_limit})
    options |= cli_options.given({"log_text": log_text, "cache": cache})
    options |= cli_options.given({"model_args": cli_options.assignments("--model-arg", model_args)})
    chosen = read_run_settings(config, options)
    display: Display = "rich" if sys.stdout.isatty() else "none"
    run = chosen.run(display)
    estimate = run.estimate()
    cli_options.tell(f"medxpertqa: {_told(estimate)}")
    if dry_run:
        return
    if estimate.cost and not yes and chosen.cost_limit is None:
        _confirm(estimate.cost)
    with cli_options.interruptible():
        results = run.execute()
    complete = show_run(results)
    if chosen.published:
        from medxpertqa.paper import agreement

        found = agreement(results.n_correct, results.n, chosen.published.n_correct, chosen.published.n)
        typer.echo(found.text)
    if not complete:
        raise typer.Exit(1)


@batch.command("export")
def batch_export(
    model: Annotated[str, typer.Option(help="The model's name in the requests.")],
    log_dir: Annotated[Path, typer.Option(help="The batch's folder.")],
    config: Config = None,
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    images: cli_options.ImagesFrom = None,
    form: Annotated[
        str, typer.Option("--format", help="openai, which `vllm run-batch` reads too.")
    ] = "openai",
    protocol: Protocol = None,
    demonstrations: Demonstrations = None,
    max_tokens: MaxTokens = None,
    settings: Set = None,
    limit: Limit = None,
    sample_ids: SampleIds = None,
    shard: Shard = None,
    epochs: Epochs = None,
    permute: Permute = None,
    ablate: Ablate = None,
    allow_revision: cli_options.AllowRevision = False,
) -> None:
    """Write the requests that have no reply yet; after an import, those of the second turn."""
    from medxpertqa.engine.batch import export_batch
    from medxpertqa.engine.run_settings import read_run_settings

    if form != "openai":
        raise MedXpertQAError(f"--format {form}: it may be openai")
    state = export_batch(read_run_settings(config, _options(locals())).run())
    for file in state.files:
        typer.echo(file)
    _tell_state(state)


@batch.command("import")
def batch_import(
    outputs: Annotated[list[Path], typer.Argument(help="What the batch API or `vllm run-batch` wrote.")],
    log_dir: Annotated[Path, typer.Option(help="The batch's folder.")],
    subset: cli_options.Subset = None,
    data: cli_options.Data = None,
    demonstrations: Demonstrations = None,
    allow_revision: cli_options.AllowRevision = False,
) -> None:
    """Read replies; what is complete can then be scored, and what is open exported again."""
    from medxpertqa.engine.batch import import_batch
    from medxpertqa.engine.description import BATCH_FILE, RunDescription
    from medxpertqa.engine.run_settings import demonstrations_of

    subset = subset or "text"
    exported = RunDescription.read(log_dir, BATCH_FILE)
    shown = (
        demonstrations_of(exported.protocol, subset, data, demonstrations, allow_revision) if exported else ()
    )
    state = import_batch(
        log_dir,
        outputs,
        subset,
        data=data,
        demonstrations=shown,
        allow_revision=allow_revision,
    )
    _tell_state(state)
    if state.n_open:
        cli_options.tell(
            f"medxpertqa: `medxpertqa batch export --log-dir {log_dir} ...` writes the open requests"
        )


def show_run(results: Results) -> bool:
    """Show a run's tables and its errors; return whether it is complete."""
    from medxpertqa.reporting.tables import report_tables
    from medxpertqa.reporting.terminal import show
    from medxpertqa.summaries import summarize

    summary = summarize(results)
    show(*report_tables([results], [summary]))
    tell_errors(results)
    return summary.complete


def tell_errors(results: Results) -> None:
    """Name the questions without a reply, and why."""
    failed = [record for record in results.records if record.status == "error"]
    for record in failed[:20]:
        cli_options.tell(f"medxpertqa: {record.id}: {visible(record.error)}")
    if len(failed) > 20:
        cli_options.tell(f"medxpertqa: and {len(failed) - 20} more errors")


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """The options that `eval` and `batch export` share, as far as they were given."""
    names = ("model", "log_dir", "subset", "data", "images", "protocol", "demonstrations", "limit", "shard")
    found = {key: values[key] for key in (*names, "epochs", "permute", "ablate", "allow_revision")}
    found["sample_ids"] = None if values["sample_ids"] is None else _ids(values["sample_ids"])
    inspect = {key: values.get(key) for key in ("max_connections", "max_tokens")}
    found["settings"] = cli_options.given(inspect) | cli_options.assignments("--set", values["settings"])
    return cli_options.given(found)


def _ids(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise MedXpertQAError(f"--sample-ids {text!r} names no question")
    return found


def _told(estimate: Estimate) -> str:
    cost = "cost unknown" if estimate.cost is None else f"about ${estimate.cost:,.2f}, {_GUESSED}"
    done = f", {estimate.n_done} answered already" if estimate.n_done else ""
    return (
        f"{estimate.n_questions} questions{done}; {estimate.n_calls} calls with about "
        f"{estimate.input_tokens:,} tokens and at most {estimate.max_output_tokens:,} of replies, {cost}"
    )


def _confirm(cost: float) -> None:
    if not sys.stdin.isatty():
        raise MedXpertQAError(f"this may cost about ${cost:,.2f}, {_GUESSED}; give --yes, or a --cost-limit")
    typer.confirm(f"This may cost about ${cost:,.2f}, {_GUESSED}. Go on?", abort=True)


def _tell_state(state: BatchState) -> None:
    failed = f", {state.n_failed} failed" if state.n_failed else ""
    cli_options.tell(f"medxpertqa: {state.n_replies} replies{failed}, {state.n_open} requests open")
