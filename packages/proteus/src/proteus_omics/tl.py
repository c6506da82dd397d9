"""Tools as functions of AnnData: `po.tl.de_limma(adata, design)`; every registered tool has one by its name.

    tl.<tool>(data, design=None, *, alpha=0.05, seed=0, knowledge=None, <other inputs>, <parameters>)

`data` is the tool's first input, a matrix or a table. The result is its first declared output;
`proteus_omics.tools.registry.get_tool(name)` gives all.
"""

from __future__ import annotations

from typing import Any

from proteus_omics.design import Design
from proteus_omics.knowledge import Knowledge
from proteus_omics.tools.registry import Tool, ToolContext, all_tools


def as_function(tool: Tool) -> Any:
    """The tool as a function of its first input, a design and keywords."""

    def function(
        data: Any,
        design: Design | None = None,
        *,
        alpha: float = 0.05,
        seed: int = 0,
        knowledge: Knowledge | None = None,
        **named: Any,
    ) -> Any:
        inputs = {next(iter(tool.inputs)): data}
        inputs |= {name: named.pop(name) for name in tool.inputs if name in named}
        context = ToolContext(design or Design(), alpha, seed, knowledge)
        return tool(inputs, tool.parse(named), context)[next(iter(tool.outputs))]

    function.__name__ = function.__qualname__ = tool.name
    function.__doc__ = f"{tool.description}\n\nParameters: {', '.join(tool.params.model_fields) or 'none'}."
    return function


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    tools = all_tools()
    if name not in tools:
        raise AttributeError(f"there is no tool {name!r}; there are {', '.join(tools)}")
    return as_function(tools[name])


def __dir__() -> list[str]:
    return list(all_tools())
