"""From what a language model proposes to objectives and steps, or an error that tells it what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proteus_omics.engine.steps import step_of
from proteus_omics.errors import ToolError
from proteus_omics.models import HypothesisDraft, Objective, Prediction, Step, content_id
from proteus_omics.planner import schemas
from proteus_omics.planner.base import ArtifactInfo
from proteus_omics.planner.rules import PRIORITY
from proteus_omics.tools.registry import Tool


def objectives(proposal: schemas.ObjectiveProposal, parents: Sequence[str] = ()) -> tuple[Objective, ...]:
    """Objectives, one a kind and focus; their priorities are those of section 2.3."""
    found: dict[str, Objective] = {}
    for one in proposal.objectives:
        params = {"focus": one.focus} if one.focus else {}
        id = content_id("objective", one.kind, params)
        found.setdefault(
            id,
            Objective(
                id=id,
                title=one.title,
                question=one.question,
                kind=one.kind,
                params=params,
                parents=tuple(parents),
                priority=PRIORITY[one.kind],
                reason=one.reason,
            ),
        )
    return tuple(found.values())


def steps(
    proposed: Sequence[schemas.ProposedStep],
    tools: Mapping[str, Tool],
    artifacts: Mapping[str, ArtifactInfo],
) -> tuple[Step, ...]:
    """Steps with their ids; inputs are `artifacts` by name, or outputs of earlier steps.

    Raises `ToolError` that names the step, what is wrong and what there is.
    """
    kinds = {key: (info.id, info.kind) for key, info in artifacts.items()}
    made: list[Step] = []
    for one in proposed:
        tool = tools[one.tool]
        inputs = _inputs(one, tool, kinds)
        try:
            step = step_of(tool.name, inputs, **parameters(tool, one.settings))
        except ToolError as error:
            raise ToolError(f"step {one.name!r}: {error}") from error
        made.append(step)
        for output, declared in tool.outputs.items():
            kinds[f"{one.name}.{output}"] = (f"{step.id}.{output}", declared.kind)
    return tuple({step.id: step for step in made}.values())


def parameters(tool: Tool, settings: Sequence[schemas.Setting]) -> dict[str, Any]:
    """The settings that differ from the tool's defaults. Raises `ToolError` for one that is not allowed."""
    given = {one.name: one.value for one in settings}
    parsed = tool.parse(given).model_dump(mode="json")
    default = tool.parse({}).model_dump(mode="json")
    return {key: parsed[key] for key in given if parsed[key] != default[key]}


def draft(answer: schemas.HypothesisDraft) -> HypothesisDraft:
    """The draft as the guard takes it; its references are found where they are filled."""
    return HypothesisDraft(
        title=answer.title,
        text=answer.text,
        kind=answer.kind,
        entities=tuple(answer.entities),
        predictions=tuple(Prediction(**one.model_dump()) for one in answer.predictions),
        caveats=tuple(answer.caveats),
    )


def _inputs(step: schemas.ProposedStep, tool: Tool, there: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    inputs = {}
    for one in step.inputs:
        if one.name not in tool.inputs:
            raise ToolError(
                f"step {step.name!r}: {tool.name} has no input {one.name!r}; it has {', '.join(tool.inputs)}"
            )
        wanted = tool.inputs[one.name]
        if one.artifact not in there or there[one.artifact][1] != wanted:
            fitting = [key for key, (_, kind) in there.items() if kind == wanted]
            raise ToolError(
                f"step {step.name!r}: {one.artifact!r} is no {wanted} that is there before it; "
                f"there are {', '.join(fitting) or 'none'}"
            )
        inputs[one.name] = there[one.artifact][0]
    missing = [key for key in tool.inputs if key not in inputs and key not in tool.optional_inputs]
    if missing:
        raise ToolError(f"step {step.name!r}: {tool.name} needs the input {missing[0]!r}")
    return inputs
