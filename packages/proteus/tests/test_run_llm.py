"""Whole runs with a language model in the planner's seat: one that works, lies, dies, or is too dear."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

import proteus_omics as po
from proteus_omics.planner.base import CassetteMode, Spent

CELL = "de.b_vs_a:GENE0"
TRUE = f"GENE0 is increased in b compared with a (log2 fold change {{{{{CELL}:log2fc|.2f}}}})."
LIE = "GENE1 is decreased in b compared with a (log2 fold change -9.87)."
INVENTED = "GENE0 differs in b compared with a (log2 fold change {{de.b_vs_a:NOSUCH:log2fc|.2f}})."


def data() -> ad.AnnData:
    """8 samples x 30 proteins, log2; the first three proteins are 3 higher in b."""
    rng = np.random.default_rng(0)
    x = rng.normal(20.0, 0.3, (8, 30))
    x[4:, :3] += 3.0
    table = ad.AnnData(
        x,
        obs=pd.DataFrame({"group": list("aaaabbbb")}, index=[f"patient_{n}" for n in range(8)]),
        var=pd.DataFrame({"gene": [f"GENE{n}" for n in range(30)]}, index=[f"P{n:05d}" for n in range(30)]),
    )
    table.uns["proteus"] = {"scale": "log2", "modality": "bulk"}
    return table


def draft(text: str) -> dict[str, Any]:
    prediction = {"entity": "GENE0", "direction": "up", "contrast": "b_vs_a", "assay": "ELISA"}
    return {"kind": "differential", "title": text[:20], "text": text, "entities": [text.split()[0]],
            "predictions": [prediction], "caveats": []}  # fmt: skip


def step(name: str, tool: str, artifact: str, **settings: Any) -> dict[str, Any]:
    given = [{"name": key, "value": value} for key, value in settings.items()]
    return {"name": name, "tool": tool, "inputs": [{"name": "data", "artifact": artifact}], "settings": given}


ANSWERS: Mapping[str, Any] = {
    "WorkflowProposal": {
        "steps": [
            step("n", "normalize", "input", method="none"),
            step("d", "de_limma", "n.matrix", trend=False),
        ]
    },
    "StepDecision": {"action": "continue", "steps": [], "reason": "as planned"},
    "StepRepair": {"give_up": True, "settings": [], "reason": "no"},
    "HypothesisDrafts": {"hypotheses": [draft(TRUE), draft(LIE), draft(INVENTED)]},
    "HypothesisDraft": draft(LIE),
}
OBJECTIVES = {
    "objectives": [
        {
            "kind": "differential",
            "title": "Differences",
            "question": "Which?",
            "focus": "",
            "reason": "groups",
        }
    ]
}


class Scripted:
    """Answers by the name of the schema that is asked for; from call `dies` on the endpoint is down."""

    def __init__(self, dies: int = 10_000, price: str = "") -> None:
        self.calls: list[str] = []
        self.dies = dies
        self.usage = RequestUsage(cost=Decimal(price) if price else None)

    def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        schema = info.model_request_parameters.output_object
        assert schema is not None
        assert schema.name is not None
        first = schema.name not in self.calls
        self.calls.append(schema.name)
        if len(self.calls) >= self.dies:
            raise ModelAPIError("m", "status 503: gone")
        if schema.name == "ObjectiveProposal":
            answer = OBJECTIVES if first else {"objectives": []}
        else:
            answer = ANSWERS[schema.name]
        return ModelResponse(parts=[TextPart(json.dumps(answer))], usage=copy(self.usage))


def planner(script: Callable[..., ModelResponse], *, fallback: bool = True) -> po.LLMPlanner:
    model = FunctionModel(script, model_name="m", profile={"supports_json_schema_output": True})
    return po.LLMPlanner(model=model, fallback=po.RulesPlanner() if fallback else None)


def run(
    out: Path,
    script: Callable[..., ModelResponse],
    budget: po.Budget | None = None,
    cassette: tuple[Path, CassetteMode] | None = None,
    *,
    fallback: bool = True,
) -> Any:
    return po.run(
        data(),
        design=po.Design(condition="group", reference="a"),
        out=out,
        planner=planner(script, fallback=fallback),
        budget=budget,
        cassette=cassette,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Scripted]:
    folder = tmp_path_factory.mktemp("llm")
    script = Scripted()
    return run(folder / "run", script, cassette=(folder / "c.jsonl", "record")), folder, script


def test_what_the_tables_say_is_ranked_and_a_lie_is_kept_but_never_verified(recorded: Any) -> None:
    found, _, _ = recorded
    assert found.exit_code == 0
    by_text = {one.statement.split(" (")[0]: one for one in found.hypotheses}
    true = by_text["GENE0 is increased in b compared with a"]
    value = found.tables["de"].set_index("gene").loc["GENE0", "log2fc"]
    assert (true.status, true.rank) == ("verified", 1)
    assert f"{value:.2f}" in true.statement
    lie = by_text["GENE1 is decreased in b compared with a"]
    assert (lie.status, lie.rank) == ("contradicted", None)


def test_a_reference_that_names_nothing_is_unsupported_or_revised_not_lost(recorded: Any) -> None:
    found, _, script = recorded
    assert len(found.hypotheses) >= 2
    assert 1 <= script.calls.count("HypothesisDraft") <= 4  # two drafts, each revised at most twice


def test_a_replayed_run_asks_nothing_and_is_the_same_to_the_byte(recorded: Any, tmp_path: Path) -> None:
    found, folder, _ = recorded
    silent = Scripted()
    again = run(tmp_path / "again", silent, cassette=(folder / "c.jsonl", "replay"))
    assert not silent.calls
    name = "hypotheses.json"
    assert (again.folder / name).read_bytes() == (found.folder / name).read_bytes()


def test_a_replay_of_another_question_is_a_miss(recorded: Any, tmp_path: Path) -> None:
    _, folder, _ = recorded
    table = data()
    table.obs["group"] = ["a"] * 4 + ["other"] * 4
    with pytest.raises(po.errors.CassetteMiss, match="nearest"):
        po.run(
            table,
            design=po.Design(condition="group", reference="a"),
            out=tmp_path / "r",
            planner=planner(Scripted()),
            cassette=(folder / "c.jsonl", "replay"),
        )


def test_what_left_the_machine_is_in_the_events_and_holds_no_sample(recorded: Any) -> None:
    found, _, script = recorded
    events = [json.loads(line) for line in (found.folder / "events.jsonl").open(encoding="utf-8")]
    requests = [one for one in events if one["event"] == "llm_request"]
    assert len(requests) == len(script.calls)
    assert all(len(one["prompt_sha256"]) == 64 for one in requests)
    assert not any("patient_" in one["request"] for one in requests)
    matrix = {f"{value:.4g}" for value in np.asarray(data().X).ravel()}
    interpret = next(one["request"] for one in requests if one["call"] == "interpret")
    shown = {cell.partition("=")[2] for cell in interpret.split() if "=" in cell}
    assert not shown & matrix


def test_a_spent_budget_keeps_what_was_done_and_resume_goes_on_from_there(tmp_path: Path) -> None:
    script = Scripted()
    stopped = run(tmp_path / "r", script, po.Budget(max_requests=3))
    assert stopped.exit_code == 4
    assert len(script.calls) == 3
    assert "--max-requests" in stopped.record["stopped"]
    again = Scripted()
    whole = po.resume(tmp_path / "r", budget=po.Budget(max_requests=40), planner=planner(again))
    assert whole.exit_code == 0
    assert "WorkflowProposal" not in again.calls  # answered before, not asked again
    assert any(one.status == "verified" for one in whole.hypotheses)


def test_a_resumed_run_pays_from_what_is_left_of_its_budget(tmp_path: Path) -> None:
    script = Scripted(price="0.25")
    stopped = run(tmp_path / "r", script, po.Budget(max_cost=0.7))
    assert (stopped.exit_code, len(script.calls)) == (4, 3)
    assert "0.7 US dollars" in stopped.record["stopped"]
    again = Scripted(price="0.25")
    still = po.resume(tmp_path / "r", budget=po.Budget(max_cost=0.7), planner=planner(again))
    assert (still.exit_code, again.calls) == (4, [])
    whole = po.resume(tmp_path / "r", budget=po.Budget(max_cost=40), planner=planner(again))
    assert whole.exit_code == 0
    events = [json.loads(line) for line in (tmp_path / "r" / "events.jsonl").open(encoding="utf-8")]
    assert Spent.of(events).cost == Decimal("0.25") * (3 + len(again.calls))


@pytest.mark.parametrize("max_requests", [1, 2, 3])
def test_a_resumed_run_replays_its_cassette(recorded: Any, tmp_path: Path, max_requests: int) -> None:
    """Within a workflow too: the questions that are left rest on steps that are not asked about again."""
    found, folder, _ = recorded
    cassette, silent = (folder / "c.jsonl", "replay"), Scripted()
    stopped = run(tmp_path / "r", silent, po.Budget(max_requests=max_requests), cassette=cassette)
    assert stopped.exit_code == 4
    whole = po.resume(tmp_path / "r", planner=planner(silent), cassette=cassette)
    assert not silent.calls
    assert (whole.folder / "hypotheses.json").read_bytes() == (found.folder / "hypotheses.json").read_bytes()


def test_the_rules_take_no_cassette(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cassette .* planner is rules"):
        po.run(data(), out=tmp_path / "r", cassette=(tmp_path / "c.jsonl", "record"))
    assert not (tmp_path / "r").exists()


def test_an_endpoint_that_dies_leaves_a_whole_run_by_the_rules_and_exit_code_5(tmp_path: Path) -> None:
    script = Scripted(dies=3)
    found = run(tmp_path / "r", script)
    assert found.exit_code == 5
    assert "3 times in a row" in found.record["stopped"]
    assert len(script.calls) == 5  # two answers, three failures, then silence
    assert any(one.status == "verified" for one in found.hypotheses)
    assert found.report.is_file()


def test_without_a_fallback_the_finished_steps_are_kept(tmp_path: Path) -> None:
    found = run(tmp_path / "r", Scripted(dies=3), fallback=False)
    assert found.exit_code == 5
    assert "status 503" in found.record["stopped"]
    events = [json.loads(line)["event"] for line in (found.folder / "events.jsonl").open(encoding="utf-8")]
    assert "step_finished" in events
