"""Two runs side by side: configs, claims, metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenfold.configs import differences
from tenfold.errors import UsageError
from tenfold.estimates import Estimate
from tenfold.results import ClaimResult, RunFolder
from tenfold.storage import Tell

Value = TypeVar("Value")


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common and where they differ; a side that lacks a row is None."""

    names: tuple[str, str]
    config: dict[str, tuple[Any, Any]]
    claims: list[tuple[ClaimResult | None, ClaimResult | None]]
    metrics: list[tuple[str, Estimate | None, Estimate | None]]


def compare_runs(first: Path, second: Path, tell: Tell = print) -> Comparison:
    """Return the two runs side by side; of the configs only what differs.

    Raises `UsageError` if a folder holds no finished run; a damaged file is moved aside and named to `tell`.
    """
    folders = [_finished(RunFolder(Path(path)), tell) for path in (first, second)]
    configs = [folder.read_config(tell) or {} for folder, _, _ in folders]
    claims = [{claim.id: claim for claim in judged} for _, judged, _ in folders]
    metrics = [estimates for _, _, estimates in folders]
    return Comparison(
        names=(str(first), str(second)),
        config=differences(*configs),
        claims=[(left, right) for _, left, right in _side_by_side(*claims)],
        metrics=list(_side_by_side(*metrics)),
    )


def _finished(folder: RunFolder, tell: Tell) -> tuple[RunFolder, list[ClaimResult], dict[str, Estimate]]:
    claims, metrics = folder.read_claims(tell), folder.read_metrics(tell)
    if claims is None or metrics is None:
        lacking = folder.claims_file.name if claims is None else folder.metrics_file.name
        raise UsageError(
            f"{folder.path} is no finished run: it has no sound {lacking} "
            "(tenfold run PAPER --scale SCALE --resume finishes a run)"
        )
    return folder, claims.claims, metrics.estimates()


def _side_by_side(
    left: Mapping[str, Value], right: Mapping[str, Value]
) -> Iterable[tuple[str, Value | None, Value | None]]:
    return ((name, left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right]))
