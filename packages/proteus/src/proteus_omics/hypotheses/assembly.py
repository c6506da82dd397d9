"""From drafts to hypotheses: filled, checked, revised at most twice, scored and ranked (section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from proteus_omics.hypotheses.guard.checking import Guard
from proteus_omics.hypotheses.references import Tables
from proteus_omics.hypotheses.rendering import render
from proteus_omics.hypotheses.scoring import score_hypotheses
from proteus_omics.models import Finding, Hypothesis, HypothesisDraft, Objective, Ref, content_id

if TYPE_CHECKING:
    from proteus_omics.knowledge import Knowledge

MOST_REVISIONS = 2
Revise: TypeAlias = Callable[[Objective, HypothesisDraft, Sequence[Finding]], HypothesisDraft | None]


def assemble(
    drafts: Sequence[tuple[Objective, HypothesisDraft]],
    tables: Tables,
    revise: Revise,
    *,
    alpha: float,
    knowledge: Knowledge | None = None,
    caveat: Callable[[Ref], Sequence[str]] = lambda ref: (),
) -> list[Hypothesis]:
    """Hypotheses in rank order; those that the guard did not verify last.

    `caveat` gives what has to be said of a table that a reference is into.
    """
    guard = Guard(tables, alpha)
    found: dict[str, Hypothesis] = {}
    for objective, draft in drafts:
        one = hypothesis(objective, draft, guard)
        for _ in range(MOST_REVISIONS):
            if one.status in ("verified", "no_claims"):
                break
            other = revise(objective, draft, one.findings)
            if other is None or other == draft:
                break
            draft = other
            one = hypothesis(objective, draft, guard)
        extra = dict.fromkeys(note for ref in one.refs for note in caveat(ref))
        one = one.model_copy(update={"caveats": (*one.caveats, *extra)})
        found.setdefault(one.id, one)
    return score_hypotheses(list(found.values()), tables, knowledge, alpha)


def hypothesis(objective: Objective, draft: HypothesisDraft, guard: Guard) -> Hypothesis:
    """One draft, filled and checked."""
    rendered = render(draft.text, guard.tables)
    report = guard.check(rendered.text, rendered.unresolved)
    refs = dict.fromkeys([*rendered.refs, *(one.ref for one in report.findings if one.ref is not None)])
    return Hypothesis(
        id=content_id("hypothesis", draft.kind, rendered.text),
        objective_id=objective.id,
        kind=draft.kind,
        title=draft.title,
        template=draft.template,
        statement=rendered.text,
        entities=draft.entities,
        refs=tuple(refs),
        prediction=draft.predictions[0] if draft.predictions else None,
        caveats=draft.caveats,
        status=report.status,
        findings=report.findings,
    )
