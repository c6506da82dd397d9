"""The objects of a run, all JSON: what was asked, done, found and claimed (section 2.1).

Ids are hashes of content, so a repeated run gives the same ids.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Modality = Literal["bulk", "single_cell", "cytometry"]
Scale = Literal["linear", "log2", "ratio", "arcsinh"]
Role = Literal["entity", "contrast", "estimate", "p", "q", "ci_low", "ci_high", "n", "stat"]
HypothesisKind = Literal[
    "differential",
    "detection",
    "pathway",
    "module",
    "trait",
    "survival",
    "network",
    "composition",
    "state",
    "subgroup",
]
Verdict = Literal["verified", "contradicted", "unsupported", "no_claims"]


def content_id(prefix: str, *parts: Any) -> str:
    """`prefix` and the first ten hex digits of the hash of `parts` as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return f"{prefix}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Model(BaseModel):
    """A frozen object that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ObsColumn(Model):
    """A column of the sample sheet, without its values: only the levels of a categorical one are named."""

    name: str
    kind: Literal["categorical", "numeric", "constant", "identifier"]
    levels: dict[str, int] = {}
    n_missing: int = 0


class Missing(Model):
    """Shares of missing values; the slope of missingness on mean log2 intensity, below 0 if left-censored."""

    overall: float
    per_group: dict[str, float] = {}
    mnar_slope: float | None = None


class DatasetProfile(Model):
    """What is known of a data set before any statistics; no sample ids and no values, so it may be shared."""

    n_obs: int
    n_vars: int
    modality: Modality
    scale: Scale
    organism: str | None = None
    id_kind: Literal["uniprot", "symbol", "marker", "other"]
    missing: Missing
    obs_columns: tuple[ObsColumn, ...]
    candidates: dict[str, tuple[str, ...]] = {}
    """Role (condition, batch, subject, time, event, covariates) to the columns that could play it."""
    warnings: tuple[str, ...] = ()
    design: dict[str, Any] = {}
    """Role to the column that the run's design gives it, and the reference level."""
    levels: dict[str, int] = {}
    """Samples (not cells) at each level of the condition."""
    n_samples: int = 0
    """Samples: rows of a bulk table, values of the sample column else."""
    n_events: int | None = None
    has_genes: bool = True
    knowledge: tuple[str, ...] = ()
    """Collections of gene sets, and `interactions`."""
    explore: bool = False
    test: bool = True
    """False: fold changes alone, for groups of one sample."""
    normalization: Literal["none", "median", "quantile", "mad"] = "median"
    min_frac: float = Field(default=0.5, ge=0, le=1)
    """A protein is compared where it has this share of its values in at least one group."""


class Objective(Model):
    """A question to the data (level 1)."""

    id: str
    title: str
    question: str
    kind: str
    params: dict[str, Any] = {}
    parents: tuple[str, ...] = ()
    priority: int = 50
    status: Literal["open", "done", "skipped", "failed"] = "open"
    reason: str = ""


class Step(Model):
    """One tool with its parameters (level 3); `inputs` are names of the tool's inputs to artifact ids."""

    id: str
    tool: str
    params: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    outputs: tuple[str, ...] = ()
    status: Literal["open", "done", "skipped", "failed"] = "open"
    attempt: int = 0
    seconds: float | None = None
    error: str = ""


class Workflow(Model):
    """The steps that answer an objective, in order (level 2)."""

    id: str
    objective_id: str
    revision: int = 0
    steps: tuple[Step, ...]


class Result(Model):
    """A table that a step left: what its columns mean, and where it lies."""

    table_id: str
    kind: str
    key_columns: tuple[str, ...]
    columns: dict[str, Role]
    n_rows: int
    path: str
    sha256: str
    produced_by: str


class Ref(Model):
    """A cell of a result table: `table:row:column`, the row as its key values joined by `|` (section 2.1)."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}:{self.row}:{self.column}"


class Prediction(Model):
    """What another cohort would have to show, and with how many samples a group (power 0.8)."""

    entity: str
    direction: Literal["up", "down", "positive", "negative"]
    contrast: str
    assay: str
    n_needed: int | None = None


class HypothesisDraft(Model):
    """What a planner claims: its text holds references in double braces, not digits (section 2.7)."""

    title: str
    text: str
    kind: HypothesisKind = "differential"
    template: str = "free"
    entities: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    caveats: tuple[str, ...] = ()


class Finding(Model):
    """What the guard says of one claim in a text: `text[start:end]` is the claim."""

    verdict: Literal["verified", "contradicted", "unsupported", "flagged"]
    start: int
    end: int
    claim: str
    message: str
    ref: Ref | None = None


class Hypothesis(Model):
    """A checked claim with its cells, its prediction and its scores."""

    id: str
    objective_id: str
    kind: HypothesisKind
    title: str
    template: str
    statement: str
    entities: tuple[str, ...] = ()
    refs: tuple[Ref, ...] = ()
    prediction: Prediction | None = None
    caveats: tuple[str, ...] = ()
    status: Verdict
    findings: tuple[Finding, ...] = ()
    scores: dict[str, float | None] = {}
    rank: int | None = None


class Budget(Model):
    """How much a run may take; `None` is no limit."""

    max_objectives: int = Field(default=8, ge=1)
    max_steps: int = Field(default=80, ge=1)
    max_requests: int = Field(default=200, ge=0)
    max_tokens: int = Field(default=2_000_000, ge=0)
    max_cost: float | None = Field(default=None, ge=0)
    max_seconds: float | None = Field(default=None, gt=0)
    request_timeout: float = Field(default=120, gt=0)
