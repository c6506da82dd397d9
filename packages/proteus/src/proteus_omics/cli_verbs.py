"""Verbs of the command that look at runs, tools and knowledge, and what verbs share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast, get_args

import typer

from proteus_omics.design import Design

if TYPE_CHECKING:
    from proteus_omics.api import Run
    from proteus_omics.models import Budget
    from proteus_omics.planner.base import Cassette

Text = Optional[str]  # noqa: UP045  # typer reads it at run time
Out = Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")]
Quantity = Annotated[str, typer.Option(help="auto: LFQ or MaxLFQ, then iBAQ, then raw intensity.")]
Scale = Annotated[Text, typer.Option(help="linear, log2 or ratio, where the guess is wrong.")]
Condition = Annotated[Text, typer.Option(help="The column whose levels are compared.")]
Reference = Annotated[Text, typer.Option(help="The level that all are compared with.")]
Batch = Annotated[Text, typer.Option(help="A column of batches; it goes into the model.")]
Subject = Annotated[Text, typer.Option(help="A column of subjects; paired samples are compared within them.")]
Sample = Annotated[Text, typer.Option(help="Of cells: the column of their sample.")]
Time = Annotated[Text, typer.Option(help="A column of times of follow-up.")]
Event = Annotated[Text, typer.Option(help="A column of events, 0 or 1.")]
Covariates = Annotated[Optional[list[str]], typer.Option(help="A column to adjust for; repeatable.")]  # noqa: UP045
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
BaseUrl = Annotated[Text, typer.Option(help="An OpenAI-compatible endpoint, ending in /v1.")]
Model = Annotated[Text, typer.Option(help="Its model.")]
ApiKey = Annotated[str, typer.Option("--api-key-env", help="The environment variable that holds the key.")]
MaxRequests = Annotated[int, typer.Option(help="At most so many requests to the model, in all sittings.")]
MaxTokens = Annotated[int, typer.Option(help="At most so many tokens read and written, in all sittings.")]
MaxCost = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        help="At most so many US dollars in all sittings (say it again to resume), where the price is known."
    ),
]
MaxObjectives = Annotated[int, typer.Option(help="At most so many questions, in all sittings.")]
MaxSteps = Annotated[int, typer.Option(help="At most so many steps in this sitting.")]
MaxSeconds = Annotated[Optional[float], typer.Option(help="At most so many seconds in this sitting.")]  # noqa: UP045
Timeout = Annotated[float, typer.Option("--request-timeout", help="Seconds a request may take.")]
CassetteFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--cassette", help="A record of the model's answers."),
]
CassetteModeName = Annotated[str, typer.Option("--cassette-mode", help="record, replay, auto or off.")]
MinFrac = Annotated[
    float, typer.Option(min=0, max=1, help="The share of values that a protein needs in one group.")
]
NORMALIZATIONS = ("auto", "none", "median", "quantile", "mad")
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]

knowledge_app = typer.Typer(
    help="Gene sets and interactions, fetched to a folder of yours.", no_args_is_help=True
)


def design_of(
    condition: str | None,
    reference: str | None,
    batch: str | None,
    subject: str | None,
    sample: str | None,
    time: str | None,
    event: str | None,
    covariates: list[str] | None,
) -> Design:
    """The design of the options."""
    return Design(
        condition=condition,
        reference=reference,
        batch=batch,
        subject=subject,
        sample=sample,
        time=time,
        event=event,
        covariates=tuple(covariates or ()),
    )


def one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that an option does not have."""
    if value not in allowed:
        raise typer.BadParameter(f"{option} is {value!r}; it is one of {', '.join(allowed)}")


def budget_of(**limits: float | None) -> Budget:
    """The budget of the options. Raises `typer.BadParameter` naming one that cannot be."""
    from pydantic import ValidationError

    from proteus_omics.models import Budget

    try:
        return Budget.model_validate(limits)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise typer.BadParameter(f"{option} is {first['input']:g}: {first['msg'].lower()}") from None


def cassette_of(path: Path | None, mode: str) -> Cassette | None:
    """The cassette of the options."""
    from proteus_omics.planner.base import CassetteMode

    one_of("--cassette-mode", mode, get_args(CassetteMode))
    return None if path is None else (path, cast(CassetteMode, mode))


def planner_of(name: str, base_url: str | None, model: str | None, api_key_env: str) -> Any:
    """The planner of that name; a language model falls back to the rules."""
    if name == "rules":
        if base_url is not None or model is not None:
            raise typer.BadParameter("--base-url and --model are for --planner llm")
        return "rules"
    if name != "llm":
        raise typer.BadParameter(f"--planner is {name!r}; it is rules or llm")
    if base_url is None or model is None:
        raise typer.BadParameter("--planner llm needs --base-url and --model")
    from proteus_omics.planner.llm import LLMPlanner
    from proteus_omics.planner.rules import RulesPlanner

    return LLMPlanner(base_url, model, fallback=RulesPlanner(), api_key_env=api_key_env)


def show_run(run: Run) -> None:
    """The first hypotheses, what could not be asked, and where the page is; exits with the run's code."""
    from proteus_omics.report.page import unseen

    ranked = [one for one in run.hypotheses if one.rank is not None]
    for hypothesis in ranked[:10]:
        typer.echo(f"{hypothesis.rank:>3}. {hypothesis.statement}")
    for asked in run.objectives:
        if asked.reason:
            how = "answered in part" if asked.status == "done" else "not answered"
            typer.echo(f"{how}: {asked.title.lower()}: {asked.reason}", err=True)
    for one in unseen(run):
        typer.echo(
            f"no protein differs in {one['contrast'].replace('_vs_', ' compared with ')}: {one['n']} tested; "
            f"a log2 fold change of {one['effect']} would have been seen in a typical one (power 0.8)"
        )
    could_be = run.profile.candidates.get("condition")
    if could_be and "condition" not in run.profile.design:
        typer.echo(f"nothing was compared: no --condition was given ({', '.join(could_be)}?)", err=True)
    flagged = len(run.hypotheses) - len(ranked)
    typer.echo(f"{len(ranked)} verified hypotheses, {flagged} flagged; {run.report}")
    if run.exit_code:
        typer.echo(f"proteus-omics: {run.record['stopped']}", err=True)
        sys.exit(run.exit_code)


def verify(run: RunFolder) -> None:
    """Hash every file, check every statement and look up every reference again."""
    from proteus_omics.checking import verify as verify_run

    found = verify_run(run)
    typer.echo(
        f"{found.files} files, {found.statements} statements, {found.references} references: all as recorded"
    )


def report(run: RunFolder) -> None:
    """Write the page of a run anew."""
    from proteus_omics.api import Run as RunOf
    from proteus_omics.report import write_report

    write_report(RunOf(run))
    typer.echo(str(run / "report.html"))


def score(
    run: RunFolder,
    base_url: BaseUrl = None,
    model: Model = None,
    api_key_env: ApiKey = "OPENAI_API_KEY",
    max_requests: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="At most so many requests; without it, twice what three passes ask."),
    ] = None,
    max_tokens: MaxTokens = 2_000_000,
    max_cost: MaxCost = None,
    request_timeout: Timeout = 120,
    cassette: CassetteFile = None,
    cassette_mode: CassetteModeName = "auto",
) -> None:
    """Let a language model judge the hypotheses of a run: five metrics, three passes."""
    from proteus_omics.api import Run as RunOf
    from proteus_omics.hypotheses.llm_judge import PASSES, judge_run

    if base_url is None or model is None:
        raise typer.BadParameter("score needs --base-url and --model")
    found = RunOf(run)
    budget = budget_of(
        max_requests=2 * PASSES * len(found.hypotheses) if max_requests is None else max_requests,
        max_tokens=max_tokens, max_cost=max_cost, request_timeout=request_timeout,
    )  # fmt: skip
    recorded = cassette_of(cassette, cassette_mode)
    typer.echo(
        str(judge_run(found, base_url, model, api_key_env=api_key_env, budget=budget, cassette=recorded))
    )


def inspect_input(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="A table of proteins, AnnData, or cells.")],
    metadata: Annotated[Optional[Path], typer.Option(help="The sample sheet.")] = None,  # noqa: UP045
    sample_id: Annotated[Text, typer.Option(help="Its column that names the samples.")] = None,
    panel: Annotated[Optional[Path], typer.Option(help="Of cells: the markers.")] = None,  # noqa: UP045
    quantity: Quantity = "auto",
    condition: Condition = None,
    reference: Reference = None,
    batch: Batch = None,
    subject: Subject = None,
    sample: Sample = None,
) -> None:
    """Describe a table and audit a design, without any statistics."""
    from proteus_omics.io import read
    from proteus_omics.profiling import profile_dataset

    adata = read(input, metadata=metadata, sample_id=sample_id, quantity=quantity, panel=panel)
    design = design_of(condition, reference, batch, subject, sample, None, None, None)
    typer.echo(profile_dataset(adata, design).model_dump_json(indent=1))


def tools(name: Annotated[Text, typer.Argument(help="One of them, with its parameters.")] = None) -> None:
    """List the tools that a planner chooses among."""
    from proteus_omics.tools.registry import all_tools, get_tool

    if name is None:
        for one in all_tools().values():
            typer.echo(f"{one.name:<24}{one.description}")
        return
    one = get_tool(name)
    typer.echo(f"{one.name}: {one.description}\nby {one.library}; {one.citation}")
    for field, info in one.params.model_fields.items():
        typer.echo(f"  {field} = {info.default!r}")
    typer.echo("inputs: " + ", ".join(f"{key} ({kind})" for key, kind in one.inputs.items()))
    typer.echo("outputs: " + ", ".join(f"{key} ({output.kind})" for key, output in one.outputs.items()))


def batch(
    manifest: Annotated[
        Path, typer.Argument(help="A CSV, a row a run: input, out, metadata, condition, ...")
    ],
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
) -> None:
    """Run many data sets; each is a folder of its own that is gone on with."""
    from proteus_omics.batches import run_batch

    failed = 0
    for row in run_batch(manifest, workers):
        failed += row["exit_code"] != 0
        typer.echo(f"{row['exit_code']}  {row['out']}  {row['message']}")
    if failed:
        sys.exit(1)


@knowledge_app.command("list")
def knowledge_list(
    folder: Annotated[Path, typer.Argument(help="The folder; also what could be installed is told.")] = Path(
        "knowledge"
    ),
) -> None:
    """What a folder has, and what can be installed, with licences."""
    from proteus_omics.knowledge.formats import is_knowledge
    from proteus_omics.knowledge.sources import SOURCES, installed

    fetched = installed(folder)
    for file, entry in fetched.items():
        typer.echo(f"{file}  {entry['licence']}  sha256 {entry['sha256'][:12]}")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and is_knowledge(path) and path.name not in fetched:
            typer.echo(f"{path.name}  put there by you")
    for name, source in SOURCES.items():
        typer.echo(f"{name}: {', '.join(source.files)}  {source.licence}")


@knowledge_app.command("install")
def knowledge_install(
    source: Annotated[str, typer.Argument(help="A name of `knowledge list`.")],
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path("knowledge"),
) -> None:
    """Fetch gene sets or interactions from their official place."""
    from proteus_omics.knowledge.sources import install

    for file, digest in install(source, folder).items():
        typer.echo(f"{folder / file}  sha256 {digest}")
