"""The `proteus-omics` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from proteus_omics import cli_serving, cli_verbs
from proteus_omics.cli_verbs import (
    ApiKey,
    BaseUrl,
    Batch,
    Condition,
    Covariates,
    Event,
    Model,
    Out,
    Quantity,
    Reference,
    Sample,
    Scale,
    Seed,
    Subject,
    Time,
    design_of,
    show_run,
)
from proteus_omics.errors import BudgetError, DesignError, EndpointError, MissingExtraError, ProteusError

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
MaxRequests = Annotated[int, typer.Option(help="At most so many requests to the language model.")]
MaxSteps = Annotated[int, typer.Option(help="At most so many steps in this sitting.")]
Timeout = Annotated[float, typer.Option("--request-timeout", help="Seconds a request may take.")]
Cassette = Annotated[Optional[Path], typer.Option(help="A record of the model's answers.")]  # noqa: UP045
CassetteMode = Annotated[str, typer.Option(help="record, replay, auto or off.")]


@app.command()
def run(
    input: Input,
    out: Out,
    metadata: Metadata = None,
    sample_id: SampleId = None,
    panel: Panel = None,
    quantity: Quantity = "auto",
    scale: Scale = None,
    normalization: Annotated[
        str, typer.Option(help="auto, none, median, quantile, mad or reference.")
    ] = "auto",
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
    max_steps: MaxSteps = 80,
    request_timeout: Timeout = 120,
    cassette: Cassette = None,
    cassette_mode: CassetteMode = "auto",
    explore: Annotated[bool, typer.Option(help="Also look for groups that nobody named.")] = False,
    test: Annotated[
        bool, typer.Option(help="--no-test: fold changes only, where a group has one sample.")
    ] = True,
    seed: Seed = 0,
) -> None:
    """Analyse a table; a run that was killed goes on when the command is repeated."""
    from proteus_omics import api
    from proteus_omics.io import read
    from proteus_omics.models import Budget

    cli_verbs.one_of("--normalization", normalization, cli_verbs.NORMALIZATIONS)
    cli_verbs.one_of("--cassette-mode", cassette_mode, ("record", "replay", "auto", "off"))
    adata = read(input, metadata=metadata, sample_id=sample_id, quantity=quantity, panel=panel)
    found = api.run(
        adata,
        design=design_of(condition, reference, batch, subject, sample, time, event, covariate),
        out=out,
        planner=cli_verbs.planner_of(planner, base_url, model, api_key_env),
        knowledge=knowledge,
        budget=Budget(max_requests=max_requests, max_steps=max_steps, request_timeout=request_timeout),
        seed=seed,
        scale=scale,
        normalization=normalization,  # type: ignore[arg-type]
        explore=explore,
        test=test,
        cassette=None if cassette is None else (cassette, cassette_mode),  # type: ignore[arg-type]
    )
    show_run(found)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    max_requests: MaxRequests = 200,
    max_steps: MaxSteps = 80,
    request_timeout: Timeout = 120,
    base_url: BaseUrl = None,
    model: Model = None,
    api_key_env: ApiKey = "OPENAI_API_KEY",
) -> None:
    """Go on with a run whose budget was spent, or that was killed."""
    from proteus_omics import api
    from proteus_omics.models import Budget

    named = base_url is not None or model is not None
    planner = cli_verbs.planner_of("llm", base_url, model, api_key_env) if named else None
    budget = Budget(max_requests=max_requests, max_steps=max_steps, request_timeout=request_timeout)
    show_run(api.resume(run, budget=budget, planner=planner if not isinstance(planner, str) else None))


@app.command()
def demo(out: Out = Path("proteus-demo"), seed: Seed = 0) -> None:
    """Run on a small made data set whose truth is known."""
    from proteus_omics import api
    from proteus_omics.demo import demo_data
    from proteus_omics.design import Design

    show_run(api.run(demo_data(seed), design=Design(condition="treatment"), out=out, seed=seed))


def main() -> None:
    """Run the command; a mistake of the user is its message alone. Exit codes: see the README."""
    warnings.showwarning = lambda message, *_: typer.echo(f"proteus-omics: {message}", err=True)
    _ended(lambda: app(standalone_mode=True))


def _ended(call: Callable[[], Any]) -> None:
    try:
        call()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ProteusError, MissingExtraError, ValueError) as error:
        typer.echo(f"proteus-omics: {error}", err=True)
        codes = ((DesignError, 3), (BudgetError, 4), (EndpointError, 5))
        sys.exit(next((code for kind, code in codes if isinstance(error, kind)), 2))
