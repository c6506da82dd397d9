"""Steps whose ids follow from what they do, so that the same step in two workflows is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proteus_omics.models import Step, content_id
from proteus_omics.tools.registry import get_tool


def step_of(tool: str, inputs: Mapping[str, str], **params: Any) -> Step:
    """A step with the id that its content gives it; inputs are artifact ids."""
    known = get_tool(tool)
    return Step(
        id=content_id("step", tool, known.version, params, dict(inputs)),
        tool=tool,
        params=params,
        inputs=dict(inputs),
        outputs=tuple(known.outputs),
    )


def output(step: Step, name: str) -> str:
    """The id of an artifact that the step leaves."""
    return f"{step.id}.{name}"
