from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from proteus_omics.errors import BudgetError, ProteusWarning
from proteus_omics.hypotheses.llm_judge import METRICS, LLMJudge, judge_run
from proteus_omics.hypotheses.references import Tables
from proteus_omics.models import Budget, Hypothesis, Ref

DE = pd.DataFrame(
    {
        "protein": [f"P{n}" for n in range(6)],
        "gene": [f"G{n}" for n in range(6)],
        "contrast": "b_vs_a",
        "log2fc": [float(n) for n in range(6)],
        "q_value": 0.01,
    }
)
TABLES = Tables({"de": DE})


def hypothesis(id: str, *rows: int) -> Hypothesis:
    refs = tuple(Ref(table="de", row=f"P{n}|b_vs_a", column="log2fc") for n in rows)
    return Hypothesis(
        id=id, objective_id="o", kind="differential", title=f"title of {id}", template="free",
        statement=f"claim {id}", refs=refs, caveats=("few samples",), status="verified",
    )  # fmt: skip


def judge(*reliabilities: int | Exception) -> tuple[LLMJudge, list[str]]:
    seen: list[str] = []
    left = list(reliabilities)

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(str(messages[0].parts[0].content))  # type: ignore[union-attr]
        value = left.pop(0)
        if isinstance(value, Exception):
            raise value
        scores: dict[str, Any] = dict.fromkeys(METRICS, 3) | {"reliability": value, "comment": "weak"}
        return ModelResponse(parts=[TextPart(json.dumps(scores))])

    model = FunctionModel(answer, model_name="m", profile={"supports_json_schema_output": True})
    return LLMJudge(model=model), seen


def test_the_median_and_the_range_of_three_passes_are_kept() -> None:
    made, _ = judge(5, 1, 4)
    row = made.score([hypothesis("h1", 0)], TABLES).iloc[0]
    assert (row["reliability"], row["reliability_low"], row["reliability_high"]) == (4, 1, 5)
    assert (row["novelty"], row["novelty_low"], row["passes"], row["judge"]) == (3, 3, 3, "m")
    assert row["comment"] == "weak"


def test_the_judge_sees_the_statement_its_rows_and_caveats_and_nothing_else() -> None:
    made, seen = judge(*[3] * 6)
    made.score([hypothesis("h1", 1, 2, 3), hypothesis("h2", 4)], TABLES)
    first = [text for text in seen if "claim h1" in text]
    assert len(first) == 3
    assert len(set(first)) > 1  # the rows come in another order
    for text in first:
        assert "P1|b_vs_a  gene=" in text
        assert "few samples" in text
        assert not any(other in text for other in ("P4", "claim h2", "title of", "verified"))


def test_a_pass_without_an_answer_is_left_out_and_three_end_the_judging() -> None:
    lost = ModelAPIError("m", "status 500")
    made, seen = judge(2, lost, 4)
    assert made.score([hypothesis("h1")], TABLES).iloc[0]["passes"] == 2
    made, seen = judge(lost, lost, lost)
    found = made.score([hypothesis(f"h{n}") for n in range(5)], TABLES)
    assert len(seen) == 3
    assert made.broken
    assert found["reliability"].isna().all()
    assert list(found["hypothesis"]) == [f"h{n}" for n in range(5)]


def test_a_spent_budget_keeps_the_scores_until_then(tmp_path: Path) -> None:
    made, seen = judge(1, 2, 3, *[3] * 6)
    asked = [hypothesis("h1", 0), hypothesis("h2", 1)]
    found = made.score(asked, TABLES, budget=Budget(max_requests=3)).set_index("hypothesis")
    assert sorted(found["passes"]) == [1, 2]
    assert len(seen) == 3
    assert "--max-requests" in str(made.stopped)
    made.score(asked, TABLES)  # the default budget is for what is asked, whatever was before
    assert made.stopped is None
    made, _ = judge(4, 4)
    run = SimpleNamespace(
        folder=tmp_path, record={"settings": {"planner": "rules"}}, hypotheses=asked, index=TABLES
    )
    with pytest.raises(BudgetError, match=r"judge_m\.csv has what was judged before"):
        judge_run(run, None, made.endpoint.model, budget=Budget(max_requests=2))  # type: ignore[arg-type]
    assert list(pd.read_csv(tmp_path / "judge_m.csv")["reliability"]) == [4, 4]


def test_a_score_outside_one_to_five_is_asked_again() -> None:
    made, seen = judge(9, 3, 3, 3)
    assert made.score([hypothesis("h1")], TABLES).iloc[0]["reliability_high"] == 3
    assert len(seen) == 4


def test_a_judge_of_its_own_work_is_told() -> None:
    made, _ = judge(3, 3, 3)
    with pytest.warns(ProteusWarning, match="its own hypotheses"):
        made.score([hypothesis("h1")], TABLES, author="llm:m")


def test_a_judged_run_keeps_the_table_under_the_judges_name(tmp_path: Path) -> None:
    made, _ = judge(*[3] * 3)
    run = SimpleNamespace(
        folder=tmp_path,
        record={"settings": {"planner": "rules"}},
        hypotheses=[hypothesis("h1", 1)],
        index=TABLES,
    )
    path = judge_run(run, None, made.endpoint.model)  # type: ignore[arg-type]
    assert path == tmp_path / "judge_m.csv"
    assert list(pd.read_csv(path)["hypothesis"]) == ["h1"]
