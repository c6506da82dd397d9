"""Figures as functions: `po.pl.volcano(po.tl.de_limma(adata, design))`; each tool `plot_<name>` has one.

They are called as those of `tl`, and give a matplotlib Figure.
"""

from __future__ import annotations

from typing import Any

from proteus_omics.tl import as_function
from proteus_omics.tools.registry import all_tools

PREFIX = "plot_"


def __getattr__(name: str) -> Any:
    tools = all_tools()
    if PREFIX + name not in tools:
        raise AttributeError(f"there is no figure {name!r}; there are {', '.join(__dir__())}")
    return as_function(tools[PREFIX + name])


def __dir__() -> list[str]:
    return [name.removeprefix(PREFIX) for name in all_tools() if name.startswith(PREFIX)]
