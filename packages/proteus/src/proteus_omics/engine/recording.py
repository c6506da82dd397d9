"""A planner whose answers are events: a resumed run plans as it did, and asks only what is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from proteus_omics.engine.store import EVENTS, Store, readable
from proteus_omics.models import (
    DatasetProfile,
    Finding,
    HypothesisDraft,
    Objective,
    Step,
    Workflow,
    content_id,
)
from proteus_omics.planner.base import ArtifactInfo, EndpointPlanner, Planner, Results, StepDecision

if TYPE_CHECKING:
    from proteus_omics.hypotheses.references import Tables
    from proteus_omics.tools.registry import Tool

_OBJECTIVES = TypeAdapter(tuple[Objective, ...])
_WORKFLOW = TypeAdapter(Workflow)
_DECISION = TypeAdapter(StepDecision)
_PARAMS = TypeAdapter(dict[str, Any] | None)
_DRAFTS = TypeAdapter(tuple[HypothesisDraft, ...])
_DRAFT = TypeAdapter(HypothesisDraft | None)


class RecordedPlanner:
    """Asks another planner, once for each question."""

    def __init__(self, planner: Planner, store: Store) -> None:
        self.planner = planner
        self.name = planner.name
        self.store = store
        with readable(store.folder / EVENTS):
            self._answers = {
                event["question"]: event["answer"]
                for event in store.events()
                if event["event"] == "planner_answer"
            }

    def propose_objectives(self, profile: DatasetProfile, tools: Mapping[str, Tool]) -> Sequence[Objective]:
        """Level 1."""
        return self._asked(
            _OBJECTIVES, lambda: tuple(self.planner.propose_objectives(profile, tools)), "propose_objectives"
        )

    def propose_workflow(
        self,
        objective: Objective,
        profile: DatasetProfile,
        tools: Mapping[str, Tool],
        artifacts: Mapping[str, ArtifactInfo],
    ) -> Workflow:
        """Level 2."""
        if isinstance(self.planner, EndpointPlanner):  # it has a memory, on which later questions rest
            self.planner.begin(artifacts)
        ask = lambda: self.planner.propose_workflow(objective, profile, tools, artifacts)  # noqa: E731
        return self._asked(_WORKFLOW, ask, "propose_workflow", objective.id)

    def after_step(self, objective: Objective, step: Step, brief: str) -> StepDecision:
        """Level 3."""
        if isinstance(self.planner, EndpointPlanner):
            self.planner.note(step, brief)
        ask = lambda: self.planner.after_step(objective, step, brief)  # noqa: E731
        return self._asked(_DECISION, ask, "after_step", objective.id, step.id)

    def repair(self, step: Step, error: str) -> Mapping[str, Any] | None:
        """Other parameters."""
        ask = lambda: self.planner.repair(step, error)  # noqa: E731
        return self._asked(_PARAMS, ask, "repair", step.id, step.attempt, error)

    def interpret(self, objective: Objective, results: Results) -> Sequence[HypothesisDraft]:
        """Drafts."""
        ask = lambda: tuple(self.planner.interpret(objective, results))  # noqa: E731
        return self._asked(_DRAFTS, ask, "interpret", objective.id, _sizes(results.own))

    def follow_up(self, objective: Objective, results: Results) -> Sequence[Objective]:
        """New questions."""
        ask = lambda: tuple(self.planner.follow_up(objective, results))  # noqa: E731
        seen = _sizes(results.own), _sizes(results.all)
        return self._asked(_OBJECTIVES, ask, "follow_up", objective.id, *seen)

    def revise(
        self, objective: Objective, draft: HypothesisDraft, findings: Sequence[Finding], results: Results
    ) -> HypothesisDraft | None:
        """Another text where the guard found something; rules have none."""
        planner = self.planner
        if not isinstance(planner, EndpointPlanner):
            return None
        ask = lambda: planner.revise(objective, draft, findings, results)  # noqa: E731
        return self._asked(_DRAFT, ask, "revise", objective.id, draft.model_dump())

    def _asked(self, kind: TypeAdapter[Any], ask: Callable[[], Any], call: str, *about: Any) -> Any:
        question = content_id(call, *about)
        if question in self._answers:
            with readable(self.store.folder / EVENTS):
                return kind.validate_python(self._answers[question])
        answer = ask()
        known = kind.dump_python(answer, mode="json")
        self._answers[question] = known
        self.store.append("planner_answer", call=call, question=question, answer=known)
        return answer


def _sizes(tables: Tables) -> dict[str, int]:
    """Tables to their rows: what an answer was about. A step may leave more once an extra is installed."""
    return {id: len(table.data) for id, table in tables.items()}
