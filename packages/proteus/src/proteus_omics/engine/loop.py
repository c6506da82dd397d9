"""The loop: objectives, workflows, steps; each level learns from the one below (section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proteus_omics.engine.execution import Executor, NothingToWorkOn
from proteus_omics.engine.ledger import Analysis, Ledger
from proteus_omics.engine.recording import RecordedPlanner
from proteus_omics.errors import (
    BudgetError,
    CassetteMiss,
    DesignError,
    EndpointError,
    MissingExtraError,
    ToolError,
)
from proteus_omics.models import (
    Budget,
    DatasetProfile,
    HypothesisDraft,
    Objective,
    Step,
    Workflow,
    content_id,
)
from proteus_omics.planner.base import Results
from proteus_omics.tools.registry import Tool, all_tools

MOST_REPAIRS = 2
MOST_GENERATIONS = 3
"""How many follow-ups may follow one another."""
TOOL_FAILURES = (ToolError, DesignError, MissingExtraError, ValueError, ArithmeticError)
"""What a tool may raise on data that it cannot handle; anything else is a defect and stops the run."""
ENDS = (BudgetError, EndpointError)
"""What ends a run early with all that was finished kept."""


@dataclass
class Outcome:
    """What a run came to."""

    objectives: list[Objective] = field(default_factory=list)
    workflows: list[Workflow] = field(default_factory=list)
    drafts: list[tuple[Objective, HypothesisDraft]] = field(default_factory=list)
    stopped: Exception | None = None
    """Why it ended before its queue was empty."""


class Loop:
    """Works through the queue of objectives."""

    def __init__(
        self,
        planner: RecordedPlanner,
        executor: Executor,
        profile: DatasetProfile,
        budget: Budget,
        ledger: Ledger,
    ) -> None:
        self.planner = planner
        self.executor = executor
        self.profile = profile
        self.budget = budget
        self.ledger = ledger
        self.tools: Mapping[str, Tool] = all_tools()
        self.outcome = Outcome()
        self._queue: list[Objective] = []
        self._worked = 0
        self._seen: set[str] = set()
        self._generation: dict[str, int] = {}

    def run(self) -> Outcome:
        """Work until the queue is empty or the budget is spent."""
        try:
            self._add(self.planner.propose_objectives(self.profile, self.tools), None)
            while self._queue and self._worked < self.budget.max_objectives:
                # Of equal priority the first proposed; so the order is the same every time.
                objective = max(self._queue, key=lambda one: one.priority)
                self._queue.remove(objective)
                self._worked += 1
                self._work(objective)
        except ENDS as error:
            self.outcome.stopped = error
        most = self.budget.max_objectives
        spent = f"the budget of {most} objectives is spent: resume --max-objectives N goes on"
        reason = str(self.outcome.stopped or spent)
        for left in self._queue:
            self._end(left, "skipped", reason)
        return self.outcome

    def _add(self, proposed: Sequence[Objective], parent: Objective | None) -> None:
        generation = 0 if parent is None else self._generation[parent.id] + 1
        for objective in proposed:
            question = content_id("question", objective.kind, objective.params)
            if question in self._seen or generation > MOST_GENERATIONS:
                continue
            self._seen.add(question)
            self._generation[objective.id] = generation
            self.executor.store.append("objective_proposed", objective=objective.model_dump(mode="json"))
            if objective.status == "skipped":
                self._end(objective, "skipped", objective.reason)
            else:
                self._queue.append(objective)

    def _end(self, objective: Objective, status: str, reason: str = "") -> None:
        ended = objective.model_copy(update={"status": status, "reason": reason})
        self.outcome.objectives.append(ended)
        self.executor.store.append("objective_ended", objective=ended.id, status=status, reason=reason)

    # ---- one objective

    def _work(self, objective: Objective) -> None:
        workflow = self.planner.propose_workflow(objective, self.profile, self.tools, self.executor.infos)
        self.executor.store.append("workflow_proposed", workflow=workflow.model_dump(mode="json"))
        problem = self.problem(workflow.steps)
        if problem:
            self._end(objective, "failed", problem)
            return
        try:
            steps = self._steps(objective, list(workflow.steps))
        except ENDS:
            self._end(objective, "failed", "the run ended before it was answered")
            raise
        self.outcome.workflows.append(workflow.model_copy(update={"steps": tuple(steps)}))
        done = frozenset(step.id for step in steps if step.status == "done")
        problems = [step.error for step in steps if step.error]
        if problems and not self.executor.tables(done):  # what was done only prepared for what was not
            self._end(objective, "failed", "; ".join(problems))
            return
        own, every = self.executor.tables(done).aggregate(), self.executor.tables().aggregate()
        results = Results(own, every, self.executor.context.alpha)
        drafts = self.planner.interpret(objective, results)
        self.outcome.drafts += [(objective, draft) for draft in drafts]
        self._end(objective, "done", "; ".join(problems))
        self._add(self.planner.follow_up(objective, results), objective)

    def problem(self, steps: Sequence[Step]) -> str:
        """Why these steps cannot be run in this order, empty if they can."""
        known = {id: info.kind for id, info in self.executor.infos.items()}
        for step in steps:
            if step.tool not in self.tools:
                return f"there is no tool {step.tool!r}"
            tool = self.tools[step.tool]
            try:
                tool.parse(step.params)
            except ToolError as error:
                return str(error)
            for name, id in step.inputs.items():
                if name not in tool.inputs:
                    return f"{tool.name} has no input {name!r}; it has {', '.join(tool.inputs)}"
                if known.get(id) != tool.inputs[name]:
                    found = known.get(id, "not there")
                    return f"{tool.name}: {name} is a {tool.inputs[name]}, and {id!r} is {found}"
            known |= {f"{step.id}.{name}": output.kind for name, output in tool.outputs.items()}
        return ""

    def _steps(self, objective: Objective, rest: list[Step]) -> list[Step]:
        ended: list[Step] = []
        while rest:
            step, brief = self._step(rest.pop(0))
            ended.append(step)
            if step.status != "done":
                continue
            self._note(objective, step)
            decision = self.planner.after_step(objective, step, brief)
            if decision.action == "stop":
                self.executor.store.append("workflow_stopped", step=step.id, reason=decision.reason)
                break
            if decision.action == "revise_rest":
                problem = self.problem(decision.steps)
                self.executor.store.append(
                    "workflow_revised", step=step.id, reason=decision.reason, problem=problem,
                    steps=[one.model_dump(mode="json") for one in decision.steps],
                )  # fmt: skip
                rest = rest if problem else list(decision.steps)
        return ended

    def _step(self, step: Step) -> tuple[Step, str]:
        """Run a step, with other parameters where it fails and the planner has some; else leave it out."""
        asked = step
        for attempt in range(1 + MOST_REPAIRS):
            try:
                return self.executor.run(asked)
            except (BudgetError, CassetteMiss):
                raise
            except NothingToWorkOn as error:
                self.executor.store.append("step_skipped", step=step.id, tool=step.tool, reason=str(error))
                return step.model_copy(update={"status": "skipped"}), ""
            except TOOL_FAILURES as error:
                message = str(error)
                self.executor.store.append(
                    "step_failed", step=step.id, tool=step.tool, attempt=attempt, error=message
                )
                other = self.planner.repair(step.model_copy(update={"attempt": attempt}), message)
                if attempt == MOST_REPAIRS or other is None or dict(other) == dict(asked.params):
                    break
                asked = asked.model_copy(update={"params": dict(other), "attempt": attempt + 1})
        told = message if message.startswith(step.tool) else f"{step.tool}: {message}"
        return step.model_copy(update={"status": "skipped", "error": told}), ""

    def _note(self, objective: Objective, step: Step) -> None:
        """Write the analysis into the ledger: a tool twice on what the same tools made."""
        asked = {name: self.executor.infos[id].produced_by for name, id in step.inputs.items()}
        for result in self.executor.results:
            if result.produced_by != step.id or "q" not in result.columns.values():
                continue
            q = next(name for name, role in result.columns.items() if role == "q")
            data = self.executor.tables(frozenset([step.id]))[result.table_id].data
            self.ledger.add(
                Analysis(
                    question=content_id("question", step.tool, asked),
                    settings={**step.params},
                    reason=objective.title,
                    hits=int((data[q] < self.executor.context.alpha).sum()),
                    step=step.id,
                    table=result.table_id,
                )
            )
