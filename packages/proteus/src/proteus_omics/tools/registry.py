"""Tools: typed functions that a planner chooses among; no planner writes code (sections 2.5, 2.11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from proteus_omics.errors import ToolError
from proteus_omics.models import Role

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from proteus_omics.design import Design
    from proteus_omics.knowledge import Knowledge

ArtifactKind: TypeAlias = Literal["matrix", "table", "figure"]
Artifact: TypeAlias = "AnnData | pd.DataFrame | Figure"


class ToolParams(BaseModel):
    """Parameters of a tool: typed, bounded, frozen, and never a path."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Output:
    """What a tool leaves: its kind and, of a table, its key columns and the roles of its columns."""

    kind: ArtifactKind
    key_columns: tuple[str, ...] = ()
    columns: Mapping[str, Role] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolContext:
    """What every tool of a run may know beside its inputs."""

    design: Design
    alpha: float = 0.05
    seed: int = 0
    knowledge: Knowledge | None = None


ToolFunction: TypeAlias = Callable[[Mapping[str, Any], Any, ToolContext], Mapping[str, Any]]
"""`function(inputs, params, context) -> outputs`, by the names that the tool declares."""


@dataclass(frozen=True)
class Tool:
    """A function with its typed parameters, declared inputs and outputs, summary, citation and library."""

    name: str
    description: str
    function: ToolFunction
    params: type[ToolParams]
    inputs: Mapping[str, ArtifactKind]
    outputs: Mapping[str, Output]
    summary: Callable[[Mapping[str, Any]], str]
    citation: str
    library: str
    optional_inputs: tuple[str, ...] = ()
    version: str = "1"

    def parse(self, params: Mapping[str, Any]) -> ToolParams:
        """The typed parameters. Raises `ToolError` naming the parameter, its value and what is allowed."""
        try:
            return self.params.model_validate(dict(params))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "parameters"
            raise ToolError(f"{self.name}: {where} = {first['input']!r}: {first['msg']}") from error

    def __call__(
        self, inputs: Mapping[str, Any], params: ToolParams, context: ToolContext
    ) -> Mapping[str, Any]:
        """Run the tool. Raises `ToolError` for a missing input or where the tool cannot do its work."""
        for name in self.inputs:
            if name not in inputs and name not in self.optional_inputs:
                raise ToolError(f"{self.name} needs the input {name!r} ({self.inputs[name]})")
        return self.function(inputs, params, context)


_REGISTERED: dict[str, Tool] = {}


def tool(
    *,
    params: type[ToolParams],
    inputs: Mapping[str, ArtifactKind],
    outputs: Mapping[str, Output],
    summary: Callable[[Mapping[str, Any]], str],
    citation: str,
    library: str,
    optional_inputs: tuple[str, ...] = (),
    version: str = "1",
) -> Callable[[ToolFunction], ToolFunction]:
    """Register the decorated function as a tool under its name; its docstring's first line describes it."""

    def register(function: ToolFunction) -> ToolFunction:
        name = function.__name__
        description = (function.__doc__ or "").strip().splitlines()
        if not description:
            raise ToolError(f"the tool {name} has no docstring to describe it")
        _REGISTERED[name] = Tool(
            name=name,
            description=description[0],
            function=function,
            params=params,
            inputs=inputs,
            outputs=outputs,
            summary=summary,
            citation=citation,
            library=library,
            optional_inputs=optional_inputs,
            version=version,
        )
        return function

    return register


def all_tools() -> dict[str, Tool]:
    """Every tool by name: ours, the user's own, and those of the entry points `proteus_omics.tools`."""
    import proteus_omics.tools  # noqa: F401  # registers ours

    _load_entry_points()
    return dict(sorted(_REGISTERED.items()))


@cache
def _load_entry_points() -> None:
    """Once: finding them reads the metadata of every installed distribution."""
    for point in entry_points(group="proteus_omics.tools"):
        point.load()


def get_tool(name: str) -> Tool:
    """The tool of that name. Raises `ToolError` that lists those there are."""
    tools = all_tools()
    if name not in tools:
        raise ToolError(f"there is no tool {name!r}; there are {', '.join(tools)}")
    return tools[name]
