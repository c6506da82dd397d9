"""The shapes of a language model's answers, bounded so that a server can enforce them (section 2.10).

Their names are fixed. Tools, kinds and artifacts are enumerations made for the call, so that a server with
guided decoding cannot name what is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model

from proteus_omics.models import HypothesisKind, Modality

Short: TypeAlias = Annotated[str, Field(max_length=120)]
Line: TypeAlias = Annotated[str, Field(max_length=300)]
Value: TypeAlias = Short | float | bool | Annotated[list[Short], Field(max_length=20)]
MAX_OBJECTIVES = 8
MAX_STEPS = 12
MAX_DRAFTS = 6

KINDS: dict[str, tuple[tuple[Modality, ...], str]] = {
    "quality": (("bulk", "single_cell", "cytometry"), "identifications, missing values, batches"),
    "populations": (("single_cell", "cytometry"), "which cell populations there are"),
    "differential": (("bulk",), "proteins that differ between the levels of the condition"),
    "state_de": (("single_cell", "cytometry"), "markers that change within populations, per sample"),
    "survival": (("bulk",), "proteins associated with time to an event"),
    "effect_consistency": (("bulk",), "whether differences hold without single samples"),
    "pathways": (("bulk",), "gene sets that shift together"),
    "composition": (("single_cell", "cytometry"), "shares of populations that differ"),
    "modules": (("bulk",), "proteins that vary together, and with what"),
    "traits": (("bulk",), "proteins that go with numeric columns of the sample sheet"),
    "network": (("bulk",), "whether hits interact more than chance"),
    "marker_correlation": (("cytometry",), "markers that go together within populations"),
    "subgroups": (("bulk",), "groups of samples that the sample sheet does not name"),
    "trajectory": (("single_cell", "cytometry"), "an order of cells; only where the design has a root"),
}
"""Kinds of objectives: their modalities, and what they ask (section 2.3)."""


class Answer(BaseModel):
    """What a language model may answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Setting(Answer):
    """A parameter of a tool and its value."""

    name: Short
    value: Value


class Input(Answer):
    """An input of a tool: `input`, an artifact's name, or `<step>.<output>` of an earlier step."""

    name: Short
    artifact: Short


class ProposedStep(Answer):
    """A tool with its inputs and the settings that differ from its defaults."""

    name: Short
    tool: str
    inputs: list[Input] = Field(max_length=4)
    settings: list[Setting] = Field(max_length=8)


class ProposedObjective(Answer):
    """A question to the data."""

    kind: str
    title: Short
    question: Line
    focus: Short
    reason: Line


class ObjectiveProposal(Answer):
    """Questions to the data, the most important first."""

    objectives: list[ProposedObjective] = Field(max_length=MAX_OBJECTIVES)


class WorkflowProposal(Answer):
    """The steps that answer an objective, in order."""

    steps: list[ProposedStep] = Field(min_length=1, max_length=MAX_STEPS)


class StepDecision(Answer):
    """Go on, put other steps in place of the rest, or leave the rest out."""

    action: Literal["continue", "revise_rest", "stop"]
    steps: list[ProposedStep] = Field(max_length=MAX_STEPS)
    reason: Line


class StepRepair(Answer):
    """Other settings for the step that failed; `give_up` leaves it out."""

    give_up: bool
    settings: list[Setting] = Field(max_length=8)
    reason: Line


class Prediction(Answer):
    """What another cohort would have to show."""

    entity: Short
    direction: Literal["up", "down", "positive", "negative"]
    contrast: Short
    assay: Short


class HypothesisDraft(Answer):
    """A claim whose numbers are references in double braces."""

    kind: HypothesisKind
    title: Short
    text: Annotated[str, Field(max_length=800)]
    entities: list[Short] = Field(max_length=12)
    predictions: list[Prediction] = Field(max_length=3)
    caveats: list[Line] = Field(max_length=4)


class HypothesisDrafts(Answer):
    """What the results say; none where they say nothing."""

    hypotheses: list[HypothesisDraft] = Field(max_length=MAX_DRAFTS)


class JudgeScore(Answer):
    """The five scores of one hypothesis, 1 (poor) to 5 (excellent)."""

    reliability: int = Field(ge=1, le=5)
    coherence: int = Field(ge=1, le=5)
    literature: int = Field(ge=1, le=5)
    novelty: int = Field(ge=1, le=5)
    evaluability: int = Field(ge=1, le=5)
    comment: Line


def kinds_for(modality: Modality) -> list[str]:
    """The kinds of objectives that fit a modality, by priority."""
    return [kind for kind, (modalities, _) in KINDS.items() if modality in modalities]


def objective_proposal(kinds: Iterable[str]) -> type[ObjectiveProposal]:
    """`ObjectiveProposal` with the kinds that there are as an enumeration."""
    item = create_model("ProposedObjective", __base__=ProposedObjective, kind=(_enumeration(kinds), ...))
    return create_model(
        "ObjectiveProposal",
        __base__=ObjectiveProposal,
        objectives=(_list(item), Field(max_length=MAX_OBJECTIVES)),
    )


def workflow_proposal(tools: Sequence[str]) -> type[WorkflowProposal]:
    """`WorkflowProposal` with the tools that there are as an enumeration."""
    return create_model(
        "WorkflowProposal",
        __base__=WorkflowProposal,
        steps=(_list(_step(tools)), Field(min_length=1, max_length=MAX_STEPS)),
    )


def step_decision(tools: Sequence[str]) -> type[StepDecision]:
    """`StepDecision` with the tools that there are as an enumeration."""
    return create_model(
        "StepDecision",
        __base__=StepDecision,
        steps=(_list(_step(tools)), Field(max_length=MAX_STEPS)),
    )


def _step(tools: Sequence[str]) -> type[ProposedStep]:
    return create_model("ProposedStep", __base__=ProposedStep, tool=(_enumeration(tools), ...))


def _list(item: type[Answer]) -> Any:
    return list[item]  # type: ignore[valid-type]


def _enumeration(values: Iterable[str]) -> Any:
    return Literal[tuple(values)]
