"""What plans a run: six calls, each with what it may know (section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from proteus_omics.models import (
    Budget,
    DatasetProfile,
    Finding,
    HypothesisDraft,
    Model,
    Objective,
    Step,
    Workflow,
)

if TYPE_CHECKING:
    from proteus_omics.hypotheses.references import Tables
    from proteus_omics.tools.registry import ArtifactKind, Tool


class StepDecision(Model):
    """What to do after a step: go on, put other steps in place of the rest, or leave the rest out."""

    action: Literal["continue", "revise_rest", "stop"] = "continue"
    steps: tuple[Step, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class ArtifactInfo:
    """An artifact as a planner sees it: never its values."""

    id: str
    kind: ArtifactKind
    name: str
    produced_by: str
    """The tool, or `input`."""
    columns: tuple[str, ...] = ()
    n_rows: int = 0


@dataclass(frozen=True)
class Results:
    """What an objective's steps left, and all that the run has."""

    own: Tables
    all: Tables
    alpha: float = 0.05
    """The run's level of significance."""


class Planner(Protocol):
    """Plans a run. None of its calls sees a sample's values or names."""

    name: str

    def propose_objectives(self, profile: DatasetProfile, tools: Mapping[str, Tool]) -> Sequence[Objective]:
        """The first questions to the data (level 1)."""
        ...

    def propose_workflow(
        self,
        objective: Objective,
        profile: DatasetProfile,
        tools: Mapping[str, Tool],
        artifacts: Mapping[str, ArtifactInfo],
    ) -> Workflow:
        """The steps that answer one of them (level 2); inputs are artifact ids, `input` is the data."""
        ...

    def after_step(self, objective: Objective, step: Step, brief: str) -> StepDecision:
        """What to do next, in the light of a step's brief (level 3)."""
        ...

    def repair(self, step: Step, error: str) -> Mapping[str, Any] | None:
        """Other parameters for a step that failed, or None to leave it out."""
        ...

    def interpret(self, objective: Objective, results: Results) -> Sequence[HypothesisDraft]:
        """What the results say, with references in place of digits (section 2.7)."""
        ...

    def follow_up(self, objective: Objective, results: Results) -> Sequence[Objective]:
        """New questions that the results raise."""
        ...


CassetteMode: TypeAlias = Literal["record", "replay", "auto", "off"]
Cassette: TypeAlias = tuple[str | Path, CassetteMode]
"""A file of a language model's answers, and what is done with it."""


@dataclass(frozen=True)
class Spent:
    """What a run has asked of an endpoint."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    """US dollars, of the answers whose price is known."""

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> Spent:
        """The sum over the `llm_response` events of a run."""
        total = cls()
        for event in events:
            if event["event"] == "llm_response":
                cost = Decimal(event.get("cost", 0))  # an older run's answers have none
                total += cls(event["requests"], event["input_tokens"], event["output_tokens"], cost)
        return total

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
        )


@dataclass(frozen=True)
class Connection:
    """What the engine gives a planner that asks an endpoint, before its first call of a session."""

    profile: DatasetProfile
    tools: Mapping[str, Tool]
    budget: Budget
    alpha: float = 0.05
    seed: int = 0
    emit: Callable[[str, Mapping[str, Any]], None] = lambda event, payload: None
    """Writes an event: `llm_request` and `llm_response` are the planner's own."""
    cassette: Cassette | None = None
    spent: Spent = Spent()
    """What earlier sessions of a resumed run asked, from its events."""


@runtime_checkable
class EndpointPlanner(Planner, Protocol):
    """A planner that asks an endpoint. Its calls raise `BudgetError` once the budget is spent,
    `EndpointError` where the endpoint fails and there is no fallback, `CassetteMiss` in replay."""

    @property
    def broken(self) -> str:
        """Why the endpoint is not asked any more in this run, empty while it is: exit code 5."""
        ...

    @property
    def spent(self) -> Spent:
        """What was asked so far, earlier sessions included."""
        ...

    def connect(self, connection: Connection) -> None:
        """Get ready for a run."""
        ...

    def begin(self, artifacts: Mapping[str, ArtifactInfo]) -> None:
        """Get ready for an objective, also one whose workflow is on record, so that nothing is asked."""
        ...

    def note(self, step: Step, brief: str) -> None:
        """Know what a step found, also one of which nothing is asked."""
        ...

    def revise(
        self, objective: Objective, draft: HypothesisDraft, findings: Sequence[Finding], results: Results
    ) -> HypothesisDraft | None:
        """The draft without what the guard found, or None to keep it; asked at most twice (section 2.8)."""
        ...
