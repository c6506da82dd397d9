from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from proteus_omics.design import Design
from proteus_omics.errors import DesignError, ToolError
from proteus_omics.sessions import Session


def data() -> ad.AnnData:
    """8 samples x 30 proteins, log2; the first three proteins are 3 higher in b."""
    rng = np.random.default_rng(0)
    x = rng.normal(20.0, 0.3, (8, 30))
    x[4:, :3] += 3.0
    names = [f"P{n:05d}" for n in range(30)]
    table = ad.AnnData(
        x,
        obs=pd.DataFrame({"group": list("aaaabbbb")}, index=[f"patient_{n}" for n in range(8)]),
        var=pd.DataFrame({"gene": [f"GENE{n}" for n in range(30)]}, index=names),
    )
    table.uns["proteus"] = {"scale": "log2", "modality": "bulk"}
    return table


@pytest.fixture(scope="module")
def session() -> Session:
    made = Session(data(), Design(condition="group", reference="a"))
    made.call("normalize", {"method": "none"})
    made.call("de_limma", {"data": "normalize.matrix", "trend": False})
    made.call("qc_report", {})
    return made


def test_tools_are_called_by_name_and_leave_named_artifacts(session: Session) -> None:
    listed = session.call("list_artifacts", {}).text
    assert "normalize.matrix: matrix of normalize" in listed
    assert "de: table of de_limma, 30 rows" in listed
    shown = session.call("show_table", {"table": "de", "rows": 3}).text
    assert shown.startswith("3 of 30 rows")
    assert all(f"P0000{n}|b_vs_a" in shown for n in range(3))
    assert session.call("show_table", {"table": "de", "contains": "gene17"}).text.startswith("1 of 1 rows")


def test_a_second_table_of_the_same_name_gets_another(session: Session) -> None:
    said = session.call("de_limma", {"trend": True}).text
    assert "de_2" in said
    assert {"de", "de_2"} <= set(session.tables)


def test_no_sample_is_shown(session: Session) -> None:
    assert "qc_samples" not in session.tables
    with pytest.raises(ToolError, match="qc_samples"):
        session.call("show_table", {"table": "qc_samples"})
    said = session.call("describe_data", {}).text + session.call("list_artifacts", {}).text
    assert "patient_" not in said
    assert "'group'" in said or '"group"' in said


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("de_limma", {"data": "de"}, "is no matrix; there are input"),
        ("de_limma", {"trend": "perhaps"}, "trend"),
        ("de_limma", {"path": "/etc/passwd"}, "path"),
        ("read_file", {}, "there is no 'read_file'"),
        ("show_table", {"file": "x"}, "takes table, rows, contains"),
    ],
)
def test_what_cannot_be_says_what_can(
    session: Session, name: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ToolError, match=said):
        session.call(name, arguments)


def test_a_design_without_replicates_opens_no_session() -> None:
    table = data()[[0, 1, 2, 3, 4]].copy()
    with pytest.raises(DesignError):
        Session(table, Design(condition="group", reference="a"))


def test_a_statement_is_checked_against_the_session_s_tables(session: Session) -> None:
    value = session.tables["de"].data.set_index("protein").loc["P00000", "log2fc"]
    right = f"GENE0 is increased in b compared with a (log2 fold change {value:.2f})."
    assert session.call("check_statement", {"text": right}).text.startswith("status: verified")
    wrong = right.replace(f"{value:.2f}", f"{value + 1:.2f}")
    assert session.call("check_statement", {"text": wrong}).text.startswith("status: contradicted")


def test_an_agent_calls_the_tools_and_is_told_what_they_refuse(session: Session) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    from proteus_omics.toolset import function_toolset

    calls: list[dict[str, Any]] = [{"table": "no such"}, {"table": "de", "rows": 1}]
    told: list[str] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        told.append(str(getattr(messages[-1].parts[-1], "content", "")))
        assert {"de_limma", "show_table", "check_statement"} <= {one.name for one in info.function_tools}
        if calls:
            return ModelResponse(parts=[ToolCallPart("show_table", calls.pop(0))])
        return ModelResponse(parts=[TextPart("done")])

    agent = pydantic_ai.Agent(FunctionModel(answer), toolsets=[function_toolset(session)])
    assert agent.run_sync("look").output == "done"
    assert "there is no table 'no such'" in told[1]
    assert told[2].startswith("1 of 30 rows")


def test_an_mcp_client_lists_and_calls_the_tools(session: Session) -> None:
    mcp = pytest.importorskip("mcp")
    from proteus_omics.mcp import mcp_server

    async def talk() -> tuple[Any, Any, Any, Any]:
        async with mcp.Client(mcp_server(session)) as client:
            listed = await client.list_tools()
            shown = await client.call_tool("show_table", {"table": "de", "rows": 2})
            refused = await client.call_tool("de_limma", {"data": "nothing"})
            drawn = await client.call_tool("plot_volcano", {"de": "de"})
            return listed, shown, refused, drawn

    listed, shown, refused, drawn = asyncio.run(talk())
    schemas = {tool.name: tool.input_schema for tool in listed.tools}
    assert schemas["de_limma"]["properties"]["data"]["default"] == "input"
    assert json.dumps(schemas["gsea_prerank"])
    assert not shown.is_error
    assert shown.content[0].text.startswith("2 of 30 rows")
    assert refused.is_error
    assert "there are input, normalize.matrix" in refused.content[0].text
    assert [part.type for part in drawn.content] == ["text", "image"]
    assert base64.b64decode(drawn.content[1].data).startswith(b"\x89PNG")
