"""A planner that asks a language model; another answers the calls that the model does not (section 2.10).

The model proposes objectives, workflows, decisions and drafts in bounded shapes; it runs nothing. It sees the
profile, the tools' cards, briefs and top rows of aggregate tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from proteus_omics.errors import EndpointError, ToolError
from proteus_omics.models import (
    DatasetProfile,
    Finding,
    HypothesisDraft,
    Objective,
    Step,
    Workflow,
    content_id,
)
from proteus_omics.planner import proposals, schemas
from proteus_omics.planner.base import ArtifactInfo, Connection, Planner, Results, Spent, StepDecision
from proteus_omics.planner.context import (
    Section,
    artifacts_text,
    name,
    names_of,
    newest,
    profile_text,
    tables_text,
    tool_cards,
)
from proteus_omics.planner.endpoint import Endpoint, Unanswered

if TYPE_CHECKING:
    from pydantic_ai.models import Model

    from proteus_omics.tools.registry import Tool

T = TypeVar("T")
OutputT = TypeVar("OutputT", bound=schemas.Answer)


class LLMPlanner:
    """Plans by a language model behind an OpenAI-compatible endpoint, or any model of pydantic-ai.

    `base_url` ends in /v1; the key, where one is needed, is read from the environment variable `api_key_env`
    and written nowhere. `fallback` answers the calls that the model does not (endpoint down, unusable answer
    after the retries); after three such in a row it answers the rest of the run, and `broken` says why.
    Without a fallback such a call raises `EndpointError`. `context_tokens` is what the model can read and
    write together, `max_tokens` what it may write.
    """

    def __init__(
        self,
        base_url: str | None = None,
        model: str | Model = "",
        *,
        fallback: Planner | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        context_tokens: int = 16_384,
        max_tokens: int = 4_096,
    ) -> None:
        self.endpoint = Endpoint(
            model,
            base_url,
            api_key_env=api_key_env,
            context_tokens=context_tokens,
            max_tokens=max_tokens,
        )
        self.name = f"llm:{self.endpoint.name}"
        self.fallback = fallback
        self._connection: Connection | None = None
        self._artifacts: dict[str, ArtifactInfo] = {}
        self._briefs: dict[str, str] = {}

    @property
    def broken(self) -> str:
        """Why the model is not asked any more in this run, empty while it is."""
        return self.endpoint.broken

    @property
    def spent(self) -> Spent:
        """What was asked so far, earlier sessions included."""
        return self.endpoint.spent

    def connect(self, connection: Connection) -> None:
        """Get ready for a run: its budget, record, events and design."""
        self._connection = connection
        self.endpoint.connect(connection)
        self._artifacts, self._briefs = {}, {}

    def begin(self, artifacts: Mapping[str, ArtifactInfo]) -> None:
        """Forget the last objective's steps; these artifacts are there for the next one's."""
        self._artifacts, self._briefs = dict(artifacts), {}

    def note(self, step: Step, brief: str) -> None:
        """Know a finished step and what it found, also where what came of it is on record and not asked."""
        tool = self._connected.tools.get(step.tool)
        for output, declared in ({} if tool is None else tool.outputs).items():
            id = f"{step.id}.{output}"
            self._artifacts[id] = ArtifactInfo(id, declared.kind, output, step.tool)
        self._briefs[step.id] = f"{step.tool}: {brief}"

    # ---- the six calls

    def propose_objectives(self, profile: DatasetProfile, tools: Mapping[str, Tool]) -> Sequence[Objective]:
        """First questions, of the kinds that fit the modality."""
        kinds = schemas.kinds_for(profile.modality)
        return self._ask(
            "objectives",
            [
                self._profile(profile),
                Section(
                    "Kinds of objectives", ["\n".join(f"{kind}: {schemas.KINDS[kind][1]}" for kind in kinds)]
                ),
                Section("Tools", [", ".join(tools)]),
            ],
            schemas.objective_proposal(kinds),
            proposals.objectives,
            lambda planner: planner.propose_objectives(profile, tools),
        )

    def propose_workflow(
        self,
        objective: Objective,
        profile: DatasetProfile,
        tools: Mapping[str, Tool],
        artifacts: Mapping[str, ArtifactInfo],
    ) -> Workflow:
        """The steps of an objective; a step that names what is not there is asked again."""
        self.begin(artifacts)
        there = names_of(artifacts.values())

        def workflow(answer: schemas.WorkflowProposal) -> Workflow:
            steps = proposals.steps(answer.steps, tools, there)
            id = content_id("workflow", objective.id, [step.id for step in steps])
            return Workflow(id=id, objective_id=objective.id, steps=steps)

        return self._ask(
            "workflow",
            [
                _objective(objective),
                self._profile(profile),
                Section("Artifacts", [artifacts_text(there)]),
                Section("Tools", tool_cards(tools)),
            ],
            schemas.workflow_proposal(list(tools)),
            workflow,
            lambda planner: planner.propose_workflow(objective, profile, tools, artifacts),
        )

    def after_step(self, objective: Objective, step: Step, brief: str) -> StepDecision:
        """What to do next. Steps that left no table are not asked about: there is nothing to decide on."""
        tools = self._connected.tools
        produced = tools[step.tool].outputs if step.tool in tools else {}
        self.note(step, brief)
        if all(declared.kind != "table" for declared in produced.values()):
            return StepDecision()
        there = names_of(self._artifacts.values())

        def decision(answer: schemas.StepDecision) -> StepDecision:
            if answer.action != "revise_rest":
                return StepDecision(action=answer.action, reason=answer.reason)
            if not answer.steps:
                raise ToolError("revise_rest without steps: give the steps, or stop")
            steps = proposals.steps(answer.steps, tools, there)
            return StepDecision(action="revise_rest", steps=steps, reason=answer.reason)

        return self._ask(
            "step",
            [
                _objective(objective),
                Section("The step that ended", [_step(step)]),
                Section("Artifacts", [artifacts_text(there)]),
                Section("Tools", tool_cards(tools)[1:]),
                Section("What the steps found, the newest last", newest(list(self._briefs.values()))),
            ],
            schemas.step_decision(list(tools)),
            decision,
            lambda planner: planner.after_step(objective, step, brief),
        )

    def repair(self, step: Step, error: str) -> Mapping[str, Any] | None:
        """Other settings for a step that failed, or None."""
        tool = self._connected.tools[step.tool]

        def params(answer: schemas.StepRepair) -> Mapping[str, Any] | None:
            return None if answer.give_up else proposals.parameters(tool, answer.settings)

        return self._ask(
            "repair",
            [
                Section("The step that failed", [_step(step)]),
                Section("Its error", [error[:2000]]),
                Section("Its tool", tool_cards({tool.name: tool})[:1]),
                Section("Columns of the sample sheet", [_columns(self._connected.profile)]),
            ],
            schemas.StepRepair,
            params,
            lambda planner: planner.repair(step, error),
        )

    def interpret(self, objective: Objective, results: Results) -> Sequence[HypothesisDraft]:
        """Drafts from the objective's tables."""
        return self._ask(
            "interpret",
            [_objective(objective), self._tables("Tables", results)],
            schemas.HypothesisDrafts,
            lambda answer: tuple(proposals.draft(one) for one in answer.hypotheses),
            lambda planner: planner.interpret(objective, results),
        )

    def follow_up(self, objective: Objective, results: Results) -> Sequence[Objective]:
        """Questions that the objective's tables raise."""
        kinds = schemas.kinds_for(self._connected.profile.modality)
        return self._ask(
            "follow_up",
            [
                _objective(objective),
                Section("Kinds of objectives", [", ".join(kinds)]),
                Section("Tables of the run", [", ".join(results.all) or "none"]),
                self._tables("Tables of this objective", results),
            ],
            schemas.objective_proposal(kinds),
            lambda answer: proposals.objectives(answer, [objective.id]),
            lambda planner: planner.follow_up(objective, results),
        )

    def revise(
        self, objective: Objective, draft: HypothesisDraft, findings: Sequence[Finding], results: Results
    ) -> HypothesisDraft | None:
        """The draft without what the guard found; None where the model does not answer."""
        found = "\n".join(f"{one.verdict}: {name(one.claim)}: {one.message}" for one in findings)
        try:
            return self.endpoint.ask(
                "revise",
                [
                    Section("Your hypothesis", [draft.model_dump_json(exclude={"refs", "template"})]),
                    Section("What was found", [found]),
                    self._tables("Tables", results),
                ],
                schemas.HypothesisDraft,
                proposals.draft,
                instead="nobody",
            )
        except Unanswered:
            return None

    # ---- asking

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise EndpointError("the planner has no run yet: give it to po.run(..., planner=planner)")
        return self._connection

    def _ask(
        self,
        call: str,
        sections: Sequence[Section],
        output: type[OutputT],
        check: Callable[[OutputT], T],
        otherwise: Callable[[Planner], T],
    ) -> T:
        """The model's answer, or the fallback's to this call only."""
        fallback = self.fallback
        try:
            return self.endpoint.ask(
                call, sections, output, check, instead="nobody" if fallback is None else fallback.name
            )
        except Unanswered as error:
            if fallback is None:
                raise EndpointError(
                    f"{self.endpoint.name} did not answer ({call}): {error}. Give a fallback "
                    "(fallback=po.RulesPlanner()) to go on without it."
                ) from error
            return otherwise(fallback)

    def _profile(self, profile: DatasetProfile) -> Section:
        return Section("Data set", [profile_text(profile, self._connected.alpha)])

    def _tables(self, title: str, results: Results) -> Section:
        return Section(title, tables_text(results.own.aggregate(), self._connected.alpha))


def _objective(objective: Objective) -> Section:
    focus = objective.params.get("focus", "")
    text = f"{objective.kind}: {objective.title}. {objective.question}"
    return Section("Objective", [f"{text} Focus: {name(focus)}" if focus else text])


def _step(step: Step) -> str:
    settings = ", ".join(f"{key} = {value!r}" for key, value in step.params.items())
    return f"{step.tool} with {settings or 'its defaults'}; attempt {step.attempt}"


def _columns(profile: DatasetProfile) -> str:
    return ", ".join(f"{name(column.name)} ({column.kind})" for column in profile.obs_columns)
