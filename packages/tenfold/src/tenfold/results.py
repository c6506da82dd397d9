"""What a run leaves in results/<paper>/<scale>/: the files, their schemas, and how to read them back."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field

from tenfold.claims import Claim, Verdict
from tenfold.context import CHECKPOINTS, METRICS_FILE
from tenfold.estimates import Estimate
from tenfold.storage import Stored, Tell, read_json, report_damage, write_atomically, write_json


class EstimateRecord(Stored):
    """An estimate with its interval; `samples` holds one number a seed."""

    mean: float
    low: float | None
    high: float | None
    samples: list[float] = Field(min_length=1)

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateRecord:
        """Return the record of an estimate."""
        return cls(mean=estimate.mean, low=estimate.low, high=estimate.high, samples=list(estimate.samples))

    def estimate(self) -> Estimate:
        """Return the estimate; the samples are what counts."""
        return Estimate(tuple(self.samples))


class MetricsFile(Stored):
    """metrics.json: every metric that the experiment returned."""

    metrics: dict[str, EstimateRecord]

    def estimates(self) -> dict[str, Estimate]:
        """Return the metrics as estimates."""
        return {name: record.estimate() for name, record in self.metrics.items()}


class ClaimResult(Stored):
    """One claim with its verdict and the numbers that the verdict rests on."""

    id: str
    statement: str
    source: str
    metric: str
    condition: str
    paper_value: float | None
    paper_text: str
    unit: str
    note: str
    ours: EstimateRecord | None
    compared_with: dict[str, EstimateRecord]
    verdict: Verdict
    reason: str

    @classmethod
    def of(cls, claim: Claim, metrics: Mapping[str, Estimate], verdict: Verdict, reason: str) -> ClaimResult:
        """Return the record of a judged claim."""
        known = {name: EstimateRecord.of(estimate) for name, estimate in metrics.items()}
        return cls(
            id=claim.id,
            statement=claim.statement,
            source=claim.source,
            metric=claim.metric,
            condition=claim.condition,
            paper_value=claim.paper_value,
            paper_text=claim.paper_text,
            unit=claim.unit,
            note=claim.note,
            ours=known.get(claim.metric),
            compared_with={name: known[name] for name in claim.criterion.references() if name in known},
            verdict=verdict,
            reason=reason,
        )

    @property
    def outcome(self) -> str:
        """The verdict for people: where the claim is not tested, with the reason."""
        return self.reason or self.verdict.value


class ClaimsFile(Stored):
    """claims.json: the paper, and every claim with its verdict."""

    experiment: str
    title: str
    paper: str
    url: str
    summary: str
    scale: str
    finished: datetime
    claims: list[ClaimResult]


class FigureRecord(Stored):
    """One figure: its file inside figures/, and its caption."""

    file: str
    caption: str


class FiguresFile(Stored):
    """figures/figures.json: the figures in the order in which they are shown."""

    figures: list[FigureRecord]


class GitState(Stored):
    """The commit that the experiment's source came from, and whether it had uncommitted changes."""

    commit: str
    dirty: bool


class Environment(Stored):
    """environment.json: where and with what the run was made."""

    started: datetime
    command: list[str]
    config_sha256: str
    python: str
    platform: str
    packages: dict[str, str]
    cpu: str
    physical_cores: int | None
    logical_cores: int
    memory_bytes: int
    gpus: list[str]
    git: GitState | None
    seeds: list[int]
    assignments: list[str] = Field(default_factory=list)  # what --set changed; older files do not say
    changed_on_resume: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. `read_*` return None for what is missing, and move aside what is damaged."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The config as resolved, TOML."""
        return self.path / "config.toml"

    @property
    def environment_file(self) -> Path:
        """See `Environment`."""
        return self.path / "environment.json"

    @property
    def records_file(self) -> Path:
        """See `tenfold.records`."""
        return self.path / METRICS_FILE

    @property
    def metrics_file(self) -> Path:
        """See `MetricsFile`."""
        return self.path / "metrics.json"

    @property
    def claims_file(self) -> Path:
        """See `ClaimsFile`."""
        return self.path / "claims.json"

    @property
    def log_file(self) -> Path:
        """What happened when, what the trials printed, and tracebacks."""
        return self.path / "log.txt"

    @property
    def figures(self) -> Path:
        """The folder of the figures, with figures.json."""
        return self.path / "figures"

    @property
    def checkpoints(self) -> Path:
        """The folder of the unfinished trials' checkpoints."""
        return self.path / CHECKPOINTS

    def read_config(self, tell: Tell) -> dict[str, Any] | None:
        """Return config.toml."""
        try:
            return tomllib.loads(self.config_file.read_bytes().decode())
        except FileNotFoundError:
            return None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            report_damage(self.config_file, str(error), tell)
            return None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.toml."""
        write_atomically(self.config_file, tomli_w.dumps(config))

    def read_environment(self, tell: Tell) -> Environment | None:
        """Return environment.json."""
        return read_json(self.environment_file, Environment, tell)

    def read_metrics(self, tell: Tell) -> MetricsFile | None:
        """Return metrics.json."""
        return read_json(self.metrics_file, MetricsFile, tell)

    def read_claims(self, tell: Tell) -> ClaimsFile | None:
        """Return claims.json."""
        return read_json(self.claims_file, ClaimsFile, tell)

    def read_figures(self, tell: Tell) -> FiguresFile | None:
        """Return figures/figures.json."""
        return read_json(self.figures / "figures.json", FiguresFile, tell)

    def write_metrics(self, metrics: Mapping[str, Estimate]) -> None:
        """Write metrics.json."""
        records = {name: EstimateRecord.of(estimate) for name, estimate in metrics.items()}
        write_json(self.metrics_file, MetricsFile(metrics=records))
