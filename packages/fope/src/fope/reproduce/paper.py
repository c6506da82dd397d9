"""The paper's pre-training runs by name: SIZE-CORPUS-LENGTH-POSITION, for instance 60M-c4-512-fope."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from fope.errors import FopeError
from lmlab.train import RunConfig
from tenfold.configs import make_config, merged

PARTS = ("size", "corpus", "length", "position")
MODIFY = "fope.reproduce.training:modify"


def paper_config(name: str, assignments: Iterable[str] = ()) -> RunConfig:
    """The run of that name, with `key=value` changes applied; configs/paper/pretraining.toml holds its parts.

    Raises `FopeError`, which lists the parts there are, for another name, `UsageError` (of tenfold) for
    mistakes in the assignments.
    """
    tables, names = _tables(), name.split("-")
    if name not in paper_names():
        parts = "; ".join(f"{part}: {', '.join(tables[part])}" for part in PARTS)
        raise FopeError(
            f"{name!r} is neither a .toml file nor a run of the paper. Those are {'-'.join(PARTS).upper()} "
            f"with {parts}"
        )
    chosen = dict(zip(PARTS, names, strict=True))
    values: dict[str, Any] = {"apply": {"function": MODIFY}}
    for table in (
        tables["run"],
        *(tables[part][choice] for part, choice in chosen.items()),
        tables["pair"][chosen["size"]].get(chosen["position"], {}),
    ):
        values = merged(values, table)
    return make_config(values, RunConfig, assignments, f"the run {name}")


def paper_names() -> list[str]:
    """The names of all runs."""
    return ["-".join(names) for names in itertools.product(*(_tables()[part] for part in PARTS))]


@cache
def _tables() -> Mapping[str, Any]:
    file = resources.files("fope.reproduce.configs") / "paper" / "pretraining.toml"
    return tomllib.loads(file.read_text("utf-8"))
