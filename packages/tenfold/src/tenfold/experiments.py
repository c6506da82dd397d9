"""An experiment: a paper's config, run, claims and figures, found by its entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tenfold.claims import Claim, Verdict
from tenfold.errors import TenfoldError, UsageError
from tenfold.estimates import Estimate

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

    from tenfold.figures import Figure
    from tenfold.records import Records
    from tenfold.runs import Run
    from tenfold.storage import Tell

GROUP = "tenfold.experiments"

RunFunction: TypeAlias = "Callable[[Any, Run], Mapping[str, Estimate | float]]"
FiguresFunction: TypeAlias = "Callable[[Any, Mapping[str, Estimate], Records, Path], Sequence[Figure]]"


@dataclass(frozen=True)
class Experiment:
    """All that `tenfold run` needs to know about a paper.

    `config_model` is a frozen pydantic model that forbids unknown keys; `configs` names the package whose
    files quick.toml, laptop.toml and paper.toml (those that exist) fill it. `run(config, run)` does the
    work and returns the metrics; `figures(config, metrics, records, folder)` writes its files into `folder`
    and returns them with captions. Entry point: group `tenfold.experiments`, name as here.

    `exact` names the claims that are mathematics: where one does not hold the code is wrong. `gating` names
    those that `--assert` asks for, where it is not all.

    Raises `ValueError` if two claims share an id, if `exact` or `gating` names a claim that is not there, or
    if the config model admits unknown keys.
    """

    name: str
    title: str
    paper: str
    url: str
    config_model: type[BaseModel]
    configs: str
    run: RunFunction
    claims: Sequence[Claim]
    figures: FiguresFunction | None = None
    summary: str = ""
    exact: Sequence[str] = ()
    gating: Sequence[str] = ()

    def __post_init__(self) -> None:
        ids = [claim.id for claim in self.claims]
        repeated = {claim for claim in ids if ids.count(claim) > 1}
        if repeated:
            raise ValueError(f"experiment {self.name}: several claims have the id {', '.join(repeated)}")
        if unknown := {*self.exact, *self.gating}.difference(ids):
            raise ValueError(f"experiment {self.name}: no claim has the id {', '.join(sorted(unknown))}")
        settings = self.config_model.model_config
        if settings.get("extra") != "forbid" or not settings.get("frozen"):
            raise ValueError(
                f"experiment {self.name}: {self.config_model.__name__} needs "
                'model_config = ConfigDict(frozen=True, extra="forbid"), or a mistyped key would be ignored'
            )

    @property
    def source(self) -> Path | None:
        """The file that defines `run`, for the git commit."""
        file = getattr(sys.modules.get(self.run.__module__), "__file__", None)
        return Path(file) if file else None

    def reproduce(
        self,
        scale: str,
        assignments: Iterable[str] = (),
        results: Path = Path("results"),
        *,
        resume: bool = False,
        jobs: int | None = None,
        tell: Tell = print,
    ) -> tuple[dict[str, Any], Table]:
        """Run it, for a command: return what claims.json holds, and the same as a table.

        As `tenfold.execution.run_experiment`, with its errors; Ctrl-C is told how to go on, and raised.
        """
        from tenfold.execution import run_experiment
        from tenfold.tables import claims_table

        try:
            outcome = run_experiment(
                self, scale, assignments=assignments, results=results, resume=resume, jobs=jobs, tell=tell
            )
        except KeyboardInterrupt:
            tell("\nInterrupted. What finished is kept; to continue, repeat the command with --resume.")
            raise
        return outcome.claims.model_dump(mode="json"), claims_table(outcome.claims)

    def failures(self, claims: Mapping[str, Any], *, gate: bool) -> list[str]:
        """Return the ids for which a command ends with exit code 1, of what `reproduce` returned.

        Always those of `exact` that did not hold; with `gate` (`--assert`) those of `gating` that were not
        found to hold or, where it names none, all that did not hold.
        """
        verdicts = {claim["id"]: claim["verdict"] for claim in claims["claims"]}
        broken = [name for name, verdict in verdicts.items() if verdict == Verdict.DID_NOT_HOLD]
        failed = [name for name in broken if name in self.exact]
        if gate and self.gating:
            failed += [name for name in self.gating if verdicts.get(name) != Verdict.HELD]
        elif gate:
            failed = broken
        return list(dict.fromkeys(failed))


@dataclass(frozen=True)
class Installed:
    """An installed experiment, as the metadata of its package has it; `summary` is what the package is."""

    name: str
    package: str
    version: str
    summary: str


def installed_experiments() -> list[Installed]:
    """Return the installed experiments by name, from metadata alone: nothing of theirs is imported."""
    found = []
    for entry in metadata.entry_points(group=GROUP):
        assert entry.dist is not None  # as for every entry point that was found in a distribution
        summary = str(entry.dist.metadata.json.get("summary", ""))
        found.append(Installed(entry.name, entry.dist.name, entry.dist.version, summary))
    return sorted(found, key=lambda experiment: experiment.name)


def experiment_names() -> list[str]:
    """Return the names of the installed experiments, sorted; nothing of theirs is imported."""
    return [experiment.name for experiment in installed_experiments()]


def find_experiment(name: str) -> Experiment:
    """Import and return an installed experiment.

    Raises `UsageError` if there is none of that name (listing those there are) or a package that it
    needs is not installed (naming the extra), `TenfoldError` if the entry point is not an experiment.
    """
    found = metadata.entry_points(group=GROUP, name=name)
    if not found:
        names = (
            ", ".join(experiment_names()) or "none is installed (for example: pip install 'lpa[reproduce]')"
        )
        raise UsageError(f"there is no experiment {name!r}; there are: {names}")
    entry = next(iter(found))
    distribution = entry.dist.name if entry.dist is not None else name
    try:
        experiment = entry.load()
    except ImportError as error:
        own = (error.name or "").partition(".")[0] in (entry.module.partition(".")[0], "tenfold")
        if own or not isinstance(error, ModuleNotFoundError):
            raise TenfoldError(
                f"experiment {name!r} ({entry.value} of {distribution}) cannot be imported: {error}"
            ) from error
        raise UsageError(
            f"experiment {name!r} needs {error.name}, which is not installed: "
            f"pip install '{distribution}[reproduce]'"
        ) from error
    if not isinstance(experiment, Experiment) or experiment.name != name:
        raise TenfoldError(f"{entry.value} of {distribution} is not an Experiment with the name {name!r}")
    return experiment
