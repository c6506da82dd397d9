"""What several verbs of the `proteus-omics` command share: options, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast, get_args

import typer

from proteus_omics.design import Design

if TYPE_CHECKING:
    from proteus_omics.models import Budget
    from proteus_omics.planner.base import Cassette

Text = Optional[str]  # noqa: UP045  # typer reads it at run time
Out = Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")]
Quantity = Annotated[str, typer.Option(help="auto: LFQ or MaxLFQ, then iBAQ, then raw intensity.")]
Scale = Annotated[Text, typer.Option(help="linear, log2 or ratio, where the guess is wrong.")]
Modality = Annotated[Text, typer.Option(help="bulk, single_cell or cytometry, where the guess is wrong.")]
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
