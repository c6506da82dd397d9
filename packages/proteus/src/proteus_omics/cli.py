"""The `proteus-omics` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Optional

import typer

from proteus_omics import cli_serving, cli_verbs
from proteus_omics.cli_options import (
    NORMALIZATIONS,
    ApiKey,
    BaseUrl,
    Batch,
    CassetteFile,
    CassetteModeName,
    Condition,
    Covariates,
    Event,
    MaxCost,
    MaxObjectives,
    MaxRequests,
    MaxSeconds,
    MaxSteps,
    MaxTokens,
    MinFrac,
    Modality,
    Model,
    Out,
    Quantity,
    Reference,
    Sample,
    Scale,
    Seed,
    Subject,
    Time,
    Timeout,
    budget_of,
    cassette_of,
    design_of,
    one_of,
    planner_of,
)
from proteus_omics.cli_verbs import show_run
from proteus_omics.errors import BudgetError, DesignError, EndpointError, ProteusError

app = typer.Typer(
    name="proteus-omics",
    help="From a proteomics table to hypotheses in which every number is checked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_verbs.knowledge_app, name="knowledge")
for verb in (cli_verbs.verify, cli_verbs.tools, cli_verbs.batch, cli_verbs.report, cli_verbs.score):
    app.command()(verb)
app.command(name="inspect")(cli_verbs.inspect_input)
app.command(name="serve")(cli_serving.serve_input)

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="A table of proteins, AnnData, or cells.")]
Metadata = Annotated[Optional[Path], typer.Option(help="The sample sheet, a row a sample.")]  # noqa: UP045
SampleId = Annotated[Optional[str], typer.Option(help="Its column that names the samples.")]  # noqa: UP045
Panel = Annotated[Optional[Path], typer.Option(help="Of cells: the markers and their classes.")]  # noqa: UP045
Knowledge = Annotated[Optional[Path], typer.Option(help="A folder with gene sets, edges, symbols.")]  # noqa: UP045
PlannerName = Annotated[str, typer.Option("--planner", help="rules, or llm with --base-url and --model.")]


@app.command()
def run(
    input: Input,
    out: Out,
    metadata: Metadata = None,
    sample_id: SampleId = None,
    panel: Panel = None,
    quantity: Quantity = "auto",
    scale: Scale = None,
    modality: Modality = None,
    normalization: Annotated[str, typer.Option(help="auto, none, median, quantile or mad.")] = "auto",
    min_frac: MinFrac = 0.5,
    condition: Condition = None,
    reference: Reference = None,
    batch: Batch = None,
    subject: Subject = None,
    sample: Sample = None,
    time: Time = None,
    event: Event = None,
    covariate: Covariates = None,
    knowledge: Knowledge = None,
    planner: PlannerName = "rules",
    base_url: BaseUrl = None,
    model: Model = None,
    api_key_env: ApiKey = "OPENAI_API_KEY",
    max_requests: MaxRequests = 200,
    max_tokens: MaxTokens = 2_000_000,
    max_cost: MaxCost = None,
    max_objectives: MaxObjectives = 8,
    max_steps: MaxSteps = 80,
    max_seconds: MaxSeconds = None,
    request_timeout: Timeout = 120,
    cassette: CassetteFile = None,
    cassette_mode: CassetteModeName = "auto",
    explore: Annotated[bool, typer.Option(help="Also look for groups that nobody named.")] = False,
    test: Annotated[
        bool, typer.Option(help="--no-test: fold changes only, where a group has one sample.")
    ] = True,
    seed: Seed = 0,
) -> None:
    """Analyse a table; a run that was killed goes on when the command is repeated."""
    from proteus_omics import api
    from proteus_omics.io import read

    one_of("--normalization", normalization, NORMALIZATIONS)
    recorded = cassette_of(cassette, cassette_mode)
    budget = budget_of(
        max_requests=max_requests, max_tokens=max_tokens, max_cost=max_cost, max_objectives=max_objectives,
        max_steps=max_steps, max_seconds=max_seconds, request_timeout=request_timeout,
    )  # fmt: skip
    adata = read(input, metadata=metadata, sample_id=sample_id, quantity=quantity, panel=panel)
    found = api.run(
        adata,
        design=design_of(condition, reference, batch, subject, sample, time, event, covariate),
        out=out,
        planner=planner_of(planner, base_url, model, api_key_env),
        knowledge=knowledge,
        budget=budget,
        seed=seed,
        scale=scale,
        modality=modality,
        normalization=normalization,  # type: ignore[arg-type]
        min_frac=min_frac,
        explore=explore,
        test=test,
        cassette=recorded,
    )
    show_run(found)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    max_requests: MaxRequests = 200,
    max_tokens: MaxTokens = 2_000_000,
    max_cost: MaxCost = None,
    max_objectives: MaxObjectives = 8,
    max_steps: MaxSteps = 80,
    max_seconds: MaxSeconds = None,
    request_timeout: Timeout = 120,
    base_url: BaseUrl = None,
    model: Model = None,
    api_key_env: ApiKey = "OPENAI_API_KEY",
    cassette: CassetteFile = None,
    cassette_mode: CassetteModeName = "auto",
) -> None:
    """Go on with a run whose budget was spent, or that was killed."""
    from proteus_omics import api

    recorded = cassette_of(cassette, cassette_mode)
    budget = budget_of(
        max_requests=max_requests, max_tokens=max_tokens, max_cost=max_cost, max_objectives=max_objectives,
        max_steps=max_steps, max_seconds=max_seconds, request_timeout=request_timeout,
    )  # fmt: skip
    named = base_url is not None or model is not None
    planner = planner_of("llm", base_url, model, api_key_env) if named else None
    show_run(api.resume(run, budget=budget, planner=planner, cassette=recorded))


@app.command()
def demo(out: Out = Path("proteus-demo"), seed: Seed = 0) -> None:
    """Run on a small made data set whose truth is known."""
    from proteus_omics import api
    from proteus_omics.demo import demo_data
    from proteus_omics.design import Design

    show_run(api.run(demo_data(seed), design=Design(condition="treatment"), out=out, seed=seed))


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run proteus`."""
    from proteus_omics.reproduce import verb

    verb.reproduce("proteus", context)


def _tell(message: str) -> None:
    typer.echo(message, err=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"proteus-omics {version('proteus-omics')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone.

    Exit codes: see the README.
    """
    warnings.showwarning = lambda message, *_, **__: _tell(f"proteus-omics: {message}")
    try:
        app(arguments)
    except ProteusError as error:
        codes = ((DesignError, 3), (BudgetError, 4), (EndpointError, 5))
        _end(str(error), next((code for kind, code in codes if isinstance(error, kind)), 2))
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "proteus_omics":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            _end(f"this needs {package}, which is not installed: pip install 'proteus-omics[reproduce]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:  # a full disk, a folder that may not be written
        _end(str(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    _tell(f"proteus-omics: {message}")
    sys.exit(code)
