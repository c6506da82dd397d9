"""The paper's pre-training runs by name: tiny, small, base, and the transformers they are compared with."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from lmlab.train import RunConfig
from memoryformer.errors import MemoryFormerError
from tenfold.configs import make_config, merged

TASKS = ("piqa", "winogrande", "wsc", "arc_easy", "arc_challenge", "logiqa")
"""The six zero-shot tasks of Table 1, as lm-evaluation-harness names them. WSC carries no signal."""


def paper_config(name: str, assignments: Iterable[str] = ()) -> RunConfig:
    """The run of that name, with `key=value` changes applied; configs/paper/pretraining.toml holds its parts.

    Raises `MemoryFormerError`, which lists the names there are, for another one, `UsageError` (of tenfold)
    for mistakes in the assignments.
    """
    tables = _tables()
    if name not in tables["named"]:
        raise MemoryFormerError(
            f"{name!r} is neither a .toml file nor a run of the paper. Those are {', '.join(paper_names())}"
        )
    values = merged(tables["run"], tables["named"][name])
    return make_config(values, RunConfig, assignments, f"the run {name}")


def paper_names() -> list[str]:
    """The names of all runs."""
    return list(_tables()["named"])


@cache
def _tables() -> Mapping[str, Any]:
    file = resources.files("memoryformer.reproduce.configs") / "paper" / "pretraining.toml"
    return tomllib.loads(file.read_text("utf-8"))
