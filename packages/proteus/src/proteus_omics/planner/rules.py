"""Rules that plan a whole run from the profile alone: the embedded default (section 2.3).

What is done next may depend on diagnostics and on whether there are hits to look into, never on which
analysis gives more of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proteus_omics.models import DatasetProfile, HypothesisDraft, Objective, Step, Workflow, content_id
from proteus_omics.planner import readings
from proteus_omics.planner.base import ArtifactInfo, Results, StepDecision
from proteus_omics.planner.workflows import WORKFLOWS

if TYPE_CHECKING:
    import pandas as pd

    from proteus_omics.tools.registry import Tool

PRIORITY = {
    "quality": 100,
    "populations": 95,
    "differential": 90,
    "state_de": 90,
    "survival": 85,
    "effect_consistency": 80,
    "pathways": 70,
    "composition": 65,
    "modules": 60,
    "traits": 55,
    "marker_correlation": 52,
    "network": 50,
    "subgroups": 40,
    "trajectory": 30,
}
INTERACTIONS = "interactions"
MANY_HITS = 10
LEAST_FOR_MODULES = 15
LEAST_FOR_SUBGROUPS = 20
LEAST_FOR_TRAITS = 10
LEAST_EVENTS = 10
BATCH_SHARE = 0.10
"""Of the variance of the first three components; above it a batch enters the design."""

QUESTIONS = {
    "quality": ("Quality", "Are the samples comparable, and does anything but biology separate them?"),
    "populations": ("Populations", "Which populations of cells are there?"),
    "differential": ("Differences", "Which proteins differ between the levels of the condition?"),
    "state_de": ("States", "In which populations do which proteins respond?"),
    "survival": ("Survival", "Which proteins go with survival?"),
    "effect_consistency": ("Consistency", "Do the differences hang on single samples?"),
    "pathways": ("Pathways", "Which gene sets are shifted?"),
    "composition": ("Composition", "Which populations become more or less frequent?"),
    "modules": ("Modules", "Which proteins vary together, and with what?"),
    "traits": ("Traits", "Which proteins go with which measured trait?"),
    "marker_correlation": ("Marker correlations", "Which states go together within a population?"),
    "network": ("Network", "Do the proteins that differ interact with each other?"),
    "subgroups": ("Subgroups", "Are there groups of samples that nobody named?"),
    "trajectory": ("Trajectory", "In which order do the populations follow one another?"),
}


class RulesPlanner:
    """Plans without a language model; the same profile and results give the same plan."""

    name = "rules"

    # ---- level 1

    def propose_objectives(self, profile: DatasetProfile, tools: Mapping[str, Tool]) -> Sequence[Objective]:
        """What the table and its sample sheet allow to be asked; what a missing part forbids is told."""
        if profile.modality == "bulk":
            return self._bulk(profile)
        found = [make("quality"), make("populations")]
        if profile.design.get("condition"):
            found += [make("state_de")]
            if _replicated(profile):
                found.append(make("composition"))
        if profile.modality == "cytometry":
            found.append(make("marker_correlation"))
        if profile.design.get("root"):
            found.append(make("trajectory"))
        return found

    def _bulk(self, profile: DatasetProfile) -> Sequence[Objective]:
        compare = len(profile.levels) > 1 and (_replicated(profile) or not profile.test)
        batches = () if profile.design.get("batch") else profile.candidates.get("batch", ())
        asked: dict[str, Any] = {"compare": compare, "batches": list(batches)}
        asked |= {"knowledge": list(profile.knowledge)} | ({} if profile.test else {"test": False})
        found = [make("quality", asked)]
        if profile.n_obs >= LEAST_FOR_MODULES:
            found.append(make("modules"))
        if (
            any(column.kind == "numeric" for column in profile.obs_columns)
            and profile.n_obs >= LEAST_FOR_TRAITS
        ):
            found.append(make("traits"))
        if profile.design.get("time") and profile.design.get("event"):
            events = profile.n_events or 0
            reason = "" if events >= LEAST_EVENTS else f"{events} events; {LEAST_EVENTS} are needed"
            found.append(make("survival", reason=reason))
        if profile.n_obs >= LEAST_FOR_SUBGROUPS and (not profile.design.get("condition") or profile.explore):
            found.append(make("subgroups"))
        return found

    # ---- level 2

    def propose_workflow(
        self,
        objective: Objective,
        profile: DatasetProfile,
        tools: Mapping[str, Tool],
        artifacts: Mapping[str, ArtifactInfo],
    ) -> Workflow:
        """The steps of the table of section 2.3; those that several objectives share have the same ids."""
        steps = WORKFLOWS[objective.kind](profile, objective.params)
        return Workflow(
            id=content_id("workflow", objective.id), objective_id=objective.id, steps=tuple(steps)
        )

    # ---- level 3

    def after_step(self, objective: Objective, step: Step, brief: str) -> StepDecision:
        """Always on: rules have nothing to learn from a number that the next step does not read itself."""
        return StepDecision()

    def repair(self, step: Step, error: str) -> Mapping[str, Any] | None:
        """None: the parameters of the rules are right or the step cannot be done."""
        return None

    def interpret(self, objective: Objective, results: Results) -> Sequence[HypothesisDraft]:
        """Sentences of templates whose digits are references."""
        return readings.READINGS.get(objective.kind, readings.nothing)(results)

    def follow_up(self, objective: Objective, results: Results) -> Sequence[Objective]:
        """Differences once the batches are known; then what hits raise."""
        asked = objective
        if asked.kind == "quality":
            return self._after_quality(asked, results)
        parents = (asked.id,)
        if asked.kind == "differential" and asked.params.get("test", True):
            hits = readings.hit_count(results.own.frame("de"), results.alpha)
            known = asked.params.get("knowledge", ())
            sets = [name for name in known if name != INTERACTIONS]
            found = [make("effect_consistency", asked.params, parents)] if hits else []
            found.append(make("pathways", asked.params, parents, "" if sets else "no gene sets were given"))
            if hits >= MANY_HITS:
                reason = "" if INTERACTIONS in known else "no interactions were given"
                found.append(make("network", asked.params, parents, reason))
            return found
        return []

    def _after_quality(self, quality: Objective, results: Results) -> Sequence[Objective]:
        batch = _batch(results.own.frame("batch_association"), quality.params.get("batches", ()))
        params: dict[str, Any] = {"knowledge": list(quality.params.get("knowledge", ()))}
        params |= {} if batch is None else {"batch": batch}
        params |= {} if quality.params.get("test", True) else {"test": False}
        return [make("differential", params, (quality.id,))] if quality.params.get("compare") else []


def make(
    kind: str, params: Mapping[str, Any] | None = None, parents: tuple[str, ...] = (), reason: str = ""
) -> Objective:
    """An objective of a kind; with a reason, one that is skipped."""
    title, question = QUESTIONS[kind]
    return Objective(
        id=content_id("objective", kind, params or {}, parents),
        title=title,
        question=question,
        kind=kind,
        params=dict(params or {}),
        parents=parents,
        priority=PRIORITY[kind],
        status="skipped" if reason else "open",
        reason=reason,
    )


def _batch(association: pd.DataFrame | None, named: Sequence[str]) -> str | None:
    """Of the columns that could be a batch the one that explains most, if that is more than BATCH_SHARE.

    What else separates the samples, the condition most of all, does not count: it is no reason to leave a
    batch out of the model.
    """
    if association is None:
        return None
    could = association[association["column"].isin(list(named)) & (association["r2"] > BATCH_SHARE)]
    ranked = could.sort_values("r2", ascending=False, kind="stable")["column"]
    return None if ranked.empty else str(ranked.iloc[0])


def _replicated(profile: DatasetProfile) -> bool:
    """At least two levels with two samples each."""
    return sum(size >= 2 for size in profile.levels.values()) >= 2
