"""A recorded conversation with a real small model, replayed: SmolLM2-135M-Instruct behind vLLM.

The prompts are part of the record's keys, so a changed prompt needs a new one:

    python packages/proteus/tests/test_planner_recorded.py http://localhost:8000/v1 smollm2-135m
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("pydantic_ai")

from proteus_omics.errors import CassetteMiss
from proteus_omics.hypotheses import guard
from proteus_omics.hypotheses.references import Tables
from proteus_omics.hypotheses.rendering import render
from proteus_omics.models import (
    Budget,
    DatasetProfile,
    Finding,
    HypothesisDraft,
    Missing,
    Objective,
    ObsColumn,
    Step,
    Workflow,
)
from proteus_omics.planner.base import ArtifactInfo, CassetteMode, Connection, Results, StepDecision
from proteus_omics.planner.llm import LLMPlanner
from proteus_omics.tools import registry
from proteus_omics.tools.registry import Output, Tool, ToolParams

CASSETTE = Path(__file__).parent / "data" / "smollm2_conversation.jsonl"
MODEL = "smollm2-135m"


class AlignParams(ToolParams):
    method: str = "median"


class CompareParams(ToolParams):
    trend: bool = False


TOOLS = {
    "align": Tool(
        "align", "Make the samples' levels equal.", lambda *_: {}, AlignParams, {"data": "matrix"},
        {"matrix": Output("matrix")}, lambda _: "", "nobody", "none",
    ),
    "compare": Tool(
        "compare", "Test the difference between the levels of the condition.", lambda *_: {}, CompareParams,
        {"data": "matrix"}, {"de": Output("table", ("protein", "contrast"))}, lambda _: "", "nobody", "none",
    ),
}  # fmt: skip
PROFILE = DatasetProfile(
    n_obs=20,
    n_vars=304,
    modality="bulk",
    scale="log2",
    organism="human",
    id_kind="uniprot",
    missing=Missing(overall=0.1),
    obs_columns=(ObsColumn(name="disease", kind="categorical", levels={"healthy": 10, "cirrhosis": 10}),),
    design={"condition": "disease", "reference": "healthy"},
    levels={"healthy": 10, "cirrhosis": 10},
    n_samples=20,
)
OBJECTIVE = Objective(
    id="o1",
    title="Differences",
    question="Which proteins differ between cirrhosis and healthy?",
    kind="differential",
)
DE = pd.DataFrame(
    {
        "protein": ["P01833", "O95445", "P02768"],
        "gene": ["PIGR", "APOM", "ALB"],
        "contrast": "cirrhosis_vs_healthy",
        "log2fc": [1.82, -0.53, -0.11],
        "p_value": [1e-4, 2e-4, 0.4],
        "q_value": [0.013, 0.0048, 0.6],
    }
)
RESULTS = Results(Tables({"de": DE}), Tables({"de": DE}))


class Fixed:
    """A fallback that says what is known to be right, so that a replay needs no rules."""

    name = "fixed"

    def propose_objectives(self, profile: DatasetProfile, tools: Mapping[str, Tool]) -> Sequence[Objective]:
        return (OBJECTIVE,)

    def propose_workflow(self, objective: Objective, *_: Any) -> Workflow:
        return Workflow(id="w", objective_id=objective.id, steps=())

    def after_step(self, objective: Objective, step: Step, brief: str) -> StepDecision:
        return StepDecision()

    def repair(self, step: Step, error: str) -> Mapping[str, Any] | None:
        return None

    def interpret(self, objective: Objective, results: Results) -> Sequence[HypothesisDraft]:
        return ()

    def follow_up(self, objective: Objective, results: Results) -> Sequence[Objective]:
        return ()


@contextmanager
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, tool in TOOLS.items():
            patch.setitem(registry._REGISTERED, name, tool)
        yield


def converse(
    base_url: str, model: str, mode: CassetteMode
) -> tuple[list[HypothesisDraft], list[dict[str, Any]]]:
    """All seven calls, each on its own; the model's drafts, and what the events say of each answer."""
    events: list[dict[str, Any]] = []
    planner = LLMPlanner(base_url, model, fallback=Fixed(), context_tokens=8_192, max_tokens=800)
    step = Step(id="s1", tool="compare", inputs={"data": "input"})
    artifacts = {"input": ArtifactInfo("input", "matrix", "matrix", "input")}
    finding = Finding(
        verdict="contradicted", start=0, end=1, claim="PIGR is decreased", message="log2fc of PIGR is 1.82"
    )
    wrong = HypothesisDraft(title="PIGR", text="PIGR is decreased in cirrhosis compared with healthy.")
    calls: list[Callable[[], Any]] = [
        lambda: planner.propose_objectives(PROFILE, TOOLS),
        lambda: planner.propose_workflow(OBJECTIVE, PROFILE, TOOLS, artifacts),
        lambda: planner.after_step(OBJECTIVE, step, "304 tested, 43 with q < 0.05"),
        lambda: planner.repair(step, "compare: trend = 'x': Input should be a valid boolean"),
        lambda: planner.follow_up(OBJECTIVE, RESULTS),
        lambda: planner.interpret(OBJECTIVE, RESULTS),
        lambda: planner.revise(OBJECTIVE, wrong, [finding], RESULTS),
    ]
    found = []
    with registered():
        for call in calls:
            planner.connect(
                Connection(
                    profile=PROFILE,
                    tools=TOOLS,
                    budget=Budget(request_timeout=600),
                    emit=lambda event, payload: events.append({"event": event, **payload}),
                    cassette=(CASSETTE, mode),
                )
            )
            found.append(call())
    drafts = [*found[-2], *([] if found[-1] is None else [found[-1]])]
    return drafts, [one for one in events if one["event"] == "llm_response"]


@pytest.fixture(scope="module")
def replayed() -> tuple[list[HypothesisDraft], list[dict[str, Any]]]:
    return converse("http://127.0.0.1:1/v1", MODEL, "replay")


def test_the_recorded_conversation_replays_without_a_server(replayed: Any) -> None:
    """The small model fills four forms of seven; three are beyond it and are answered by the fallback."""
    _, answers = replayed
    assert {one["call"]: one["answered_by"] for one in answers} == {
        "objectives": "fixed",
        "workflow": "fixed",
        "step": MODEL,
        "repair": MODEL,
        "follow_up": MODEL,
        "interpret": "fixed",
        "revise": MODEL,
    }
    assert all(one["problem"] for one in answers if one["answered_by"] == "fixed")


def test_an_answer_that_no_tool_takes_was_asked_again_with_the_reason(replayed: Any) -> None:
    answer = next(one for one in replayed[1] if one["call"] == "repair")
    assert answer["requests"] == 2
    assert answer["answer"]["give_up"] is True


def test_what_the_small_model_says_is_contradicted_by_the_table(replayed: Any) -> None:
    """Asked to mend its claim that PIGR is decreased, it says so again; PIGR is 1.82 higher."""
    [draft] = replayed[0]
    assert guard.check(render(draft.text, RESULTS.own).text, RESULTS.own).status == "contradicted"


def test_a_changed_prompt_is_a_miss_that_shows_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from proteus_omics.planner import endpoint

    original = endpoint.prompt
    monkeypatch.setattr(endpoint, "prompt", lambda name: original(name).replace("Say little.", "Say all."))
    with pytest.raises(CassetteMiss, match=r"-.*Say little"):
        converse("http://127.0.0.1:1/v1", MODEL, "replay")


if __name__ == "__main__":
    CASSETTE.parent.mkdir(exist_ok=True)
    CASSETTE.unlink(missing_ok=True)
    for answer in converse(sys.argv[1], sys.argv[2], "record")[1]:
        print(
            answer["call"],
            answer["answered_by"],
            answer["output_tokens"],
            answer["problem"],
            answer["answer"],
        )
