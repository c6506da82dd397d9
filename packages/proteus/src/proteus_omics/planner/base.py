"""What plans a run: six calls, each with what it may know (section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from proteus_omics.models import DatasetProfile, HypothesisDraft, Model, Objective, Step, Workflow

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
