"""Verbs of the `proteus-omics` command that look at runs, tools and knowledge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from proteus_omics.cli_options import (
    ApiKey,
    BaseUrl,
    Batch,
    CassetteFile,
    CassetteModeName,
    Condition,
    MaxCost,
    MaxTokens,
    Modality,
    Model,
    Quantity,
    Reference,
    RunFolder,
    Sample,
    Subject,
    Text,
    Timeout,
    budget_of,
    cassette_of,
    design_of,
    one_of,
)

if TYPE_CHECKING:
    from proteus_omics.api import Run

knowledge_app = typer.Typer(
    help="Gene sets and interactions, fetched to a folder of yours.", no_args_is_help=True
)


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
    modality: Modality = None,
    condition: Condition = None,
    reference: Reference = None,
    batch: Batch = None,
    subject: Subject = None,
    sample: Sample = None,
) -> None:
    """Describe a table and audit a design, without any statistics."""
    from proteus_omics.auditing import declared
    from proteus_omics.io import read
    from proteus_omics.profiling import profile_dataset

    adata = read(input, metadata=metadata, sample_id=sample_id, quantity=quantity, panel=panel)
    adata = declared(adata, None, modality)
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
    planner: Annotated[Text, typer.Option(help="rules or llm, for rows that name none.")] = None,
    base_url: BaseUrl = None,
    model: Model = None,
) -> None:
    """Run many data sets; each is a folder of its own that is gone on with.

    --planner, --base-url and --model are for rows that name none of their own.
    """
    from proteus_omics.batches import run_batch

    if planner is not None:
        one_of("--planner", planner, ("rules", "llm"))
    failed = 0
    for row in run_batch(manifest, workers, planner=planner, base_url=base_url, model=model):
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
    from proteus_omics.knowledge.base import installed
    from proteus_omics.knowledge.formats import is_knowledge
    from proteus_omics.knowledge.sources import SOURCES

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
