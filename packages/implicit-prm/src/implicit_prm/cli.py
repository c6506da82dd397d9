"""The `implicit-prm` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from implicit_prm import cli_judging, cli_options, cli_policy, terminal
from implicit_prm.errors import ImplicitPRMError

if TYPE_CHECKING:
    from implicit_prm.jobs import Row

app = typer.Typer(
    name="implicit-prm",
    help="Implicit process reward models: train on response labels, get a reward for every step and token.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

NO_REFERENCE = "none"


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="The run's TOML file: [model], [data], [training], [lora].")],
    settings: cli_options.Settings = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest whole checkpoint in output_dir, or start anew.")
    ] = True,
) -> None:
    """Train an implicit PRM on labels of responses.

    On several GPUs: accelerate launch -m implicit_prm train --config run.toml
    """
    from implicit_prm.recipe import read_recipe

    recipe = read_recipe(config, cli_options.assignments("--set", settings))
    from implicit_prm.training_run import train_recipe

    cli_options.quiet_bars()
    with cli_options.interruptible("the same command goes on from the last checkpoint"):
        folder = train_recipe(recipe, resume=resume)
    terminal.tell(f"implicit-prm: the model is in {folder}, what was measured in {folder}/all_results.json")


@app.command()
def score(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="JSON lines with prompt and completion; see implicit_prm.records."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON lines: each row with its rewards.")],
    model: cli_options.Model,
    ref: Annotated[
        str,
        typer.Option(
            help="The reference, the model that training began from; base for an adapter's own base model; "
            "none to do without."
        ),
    ],
    beta: Annotated[float, typer.Option(help="The scale of the rewards, as in training.")] = 0.05,
    steps: cli_options.Steps = "paragraph",
    backend: cli_options.Backend = "hf",
    options: cli_options.Options = None,
    batch_size: Annotated[int, typer.Option(help="Responses in one forward pass (hf).", min=1)] = 8,
    add_eos: Annotated[
        bool, typer.Option("--add-eos", help="Append the EOS token to completions that were not cut off.")
    ] = False,
    max_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Most tokens of prompt and completion; by default the models' own limit.", min=1),
    ] = None,
    truncate: Annotated[
        str, typer.Option(help="Longer ones are an error, or are cut at the right and marked as truncated.")
    ] = "error",
    render: Annotated[
        str, typer.Option(help="original, or official: the text that the paper's script scores.")
    ] = "original",
    shard: cli_options.ShardOf = "1/1",
) -> None:
    """Reward every token, every step and the whole of responses.

    An interrupted run is gone on from by the same command: rows that are in OUT are skipped.
    """
    from implicit_prm.jobs import LineJob, Shard
    from implicit_prm.records import read_responses

    cli_options.check_steps(steps)
    given = cli_options.assignments("--option", options)
    how = {"add_eos": add_eos, "max_length": max_length, "truncate": truncate, "render": render}
    how |= {"steps": steps, "batch_size": batch_size}
    fixed = {"model": model, "ref": ref, "beta": beta, "backend": backend, "options": given, **how}
    job = LineJob(source, out, read_responses, fixed, Shard.parse(shard))
    if job.complete:
        terminal.tell(f"implicit-prm: all {job.n_rows} rows are in {out} already")
        return
    from implicit_prm.backends.loading import load_prm

    cli_options.quiet_bars()
    prm = load_prm(model, None if ref == NO_REFERENCE else ref, beta, backend, given)
    n_tokens = 0

    def work(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
        nonlocal n_tokens
        for row, scored in zip(rows, prm.score(rows, **how), strict=True):  # type: ignore[arg-type]
            n_tokens += len(scored.token_ids)
            yield {**row, **scored.to_dict()}

    started = perf_counter()
    with cli_options.interruptible(), terminal.progress("scoring") as on_progress:
        done = job.run(work, on_progress)
    seconds = perf_counter() - started
    terminal.tell(
        f"implicit-prm: {done.n_new} of {done.n_rows} responses scored now; {n_tokens:,} tokens in "
        f"{seconds:,.1f} s, {n_tokens / seconds:,.0f} a second"
    )


app.command()(cli_policy.sample)
app.command()(cli_policy.flops)
app.command(cls=cli_judging.ManySizes)(cli_judging.bon)
app.command()(cli_judging.vote)
app.command()(cli_judging.processbench)
app.command()(cli_judging.view)


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run implicit-prm`."""
    from implicit_prm.reproduce import verb

    verb.reproduce("implicit-prm", context)


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {
    "accelerate": "train",
    "datasets": "train",
    "gguf": "gguf",
    "matplotlib": "analysis",
    "openai": "openai",
    "pandas": "analysis",
    "peft": "peft",
    "sklearn": "analysis",
    "trl": "trl",
    "vllm": "vllm",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"implicit-prm {version('implicit-prm')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: terminal.tell(f"implicit-prm: {message}")
    try:
        app(arguments)
    except ImplicitPRMError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "implicit_prm":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'implicit-prm[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:  # a full disk, a folder that may not be written
        _end(f"{error}; mend it, then the same command goes on where it stopped", 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    terminal.tell(f"implicit-prm: {message}")
    sys.exit(code)
