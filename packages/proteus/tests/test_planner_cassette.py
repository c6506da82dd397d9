import asyncio
import json
from pathlib import Path

import pytest
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelNotFoundError,
    ModelRequestRejectedError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel

from proteus_omics.errors import CassetteMiss
from proteus_omics.planner.base import CassetteMode
from proteus_omics.planner.cassette import CassetteModel


def ask(path: Path, mode: CassetteMode, text: str, asked: list[str], *, fails: bool = False) -> str:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(text)
        if fails:
            raise ModelAPIError("m", "status 500")
        return ModelResponse(parts=[TextPart(f"answer {len(asked)} to {text}")])

    model = CassetteModel(FunctionModel(answer, model_name="m"), path, mode)
    messages: list[ModelMessage] = [ModelRequest.user_text_prompt(text)]
    settings = {"temperature": 0.0, "timeout": 3.0}
    response = asyncio.run(model.request(messages, settings, ModelRequestParameters()))  # type: ignore[arg-type]
    return response.text or ""


def test_replay_gives_the_recorded_answer_and_never_asks(tmp_path: Path) -> None:
    asked: list[str] = []
    recorded = ask(tmp_path / "c.jsonl", "record", "one", asked)
    assert ask(tmp_path / "c.jsonl", "replay", "one", asked) == recorded
    assert asked == ["one"]


def test_a_miss_in_replay_names_the_nearest_request_and_the_difference(tmp_path: Path) -> None:
    ask(tmp_path / "c.jsonl", "record", "first line\nthe protein is PIGR", [])
    ask(tmp_path / "c.jsonl", "record", "quite another thing", [])
    with pytest.raises(CassetteMiss) as miss:
        ask(tmp_path / "c.jsonl", "replay", "first line\nthe protein is APOM", [])
    assert "-the protein is PIGR" in str(miss.value)
    assert "+the protein is APOM" in str(miss.value)


def test_auto_asks_only_for_what_is_not_on_the_record_or_failed_there(tmp_path: Path) -> None:
    asked: list[str] = []
    path = tmp_path / "c.jsonl"
    ask(path, "record", "one", asked)
    with pytest.raises(ModelAPIError):
        ask(path, "record", "two", asked, fails=True)
    with pytest.raises(ModelAPIError, match="status 500"):
        ask(path, "replay", "two", asked)
    assert asked == ["one", "two"]
    ask(path, "auto", "one", asked)
    again = ask(path, "auto", "two", asked)
    assert asked == ["one", "two", "two"]
    assert ask(path, "replay", "two", asked) == again


def test_a_record_cut_off_in_its_last_line_goes_on_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    first = ask(path, "record", "one", [])
    ask(path, "record", "two", [])
    path.write_text(path.read_text()[:-30])
    assert ask(path, "replay", "one", []) == first
    ask(path, "auto", "two", [])
    assert [json.loads(line)["request"]["messages"][0]["text"] for line in path.open()] == ["one", "two"]
    path.write_text("no JSON\n" + path.read_text())
    with pytest.raises(CassetteMiss, match="line 1"):
        ask(path, "replay", "one", [])


def test_a_last_record_without_its_newline_counts_and_replay_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    first = ask(path, "record", "one", [])
    whole = path.read_text()
    for end, answer in ((whole[:-1], first), (whole + whole[:-30], first)):
        path.write_text(end)
        assert ask(path, "replay", "one", []) == answer
        assert path.read_text() == end
    path.write_text(whole[:-1])
    ask(path, "record", "two", [])
    assert [json.loads(line)["request"]["messages"][0]["text"] for line in path.open()] == ["one", "two"]


@pytest.mark.parametrize("bad", [b"\xff\xfe", b'{"key": "k", "request": {}}\n', b"[1]\n"])
def test_a_file_that_is_no_cassette_is_told(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(bad)
    with pytest.raises(CassetteMiss, match="record again"):
        ask(tmp_path / "c.jsonl", "replay", "one", [])


@pytest.mark.parametrize("text", ["a thesis without a last newline", "first\nlast", '{"key": 1'])
def test_a_file_of_another_kind_is_not_written_to(text: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text(text)
    with pytest.raises(CassetteMiss, match="line 1, is no recorded request"):
        ask(tmp_path / "thesis.txt", "auto", "one", [])
    assert (tmp_path / "thesis.txt").read_text() == text


@pytest.mark.parametrize(
    "failure",
    [
        ModelRequestRejectedError("m", "no json_schema"),
        ModelNotFoundError("m", "no m"),
        UnexpectedModelBehavior("?"),
    ],
)
def test_a_failure_is_replayed_as_what_it_was(failure: Exception, tmp_path: Path) -> None:
    def fail(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise failure

    for mode in ("record", "replay"):
        model = CassetteModel(FunctionModel(fail, model_name="m"), tmp_path / "c.jsonl", mode)  # type: ignore[arg-type]
        with pytest.raises(type(failure)) as raised:
            asyncio.run(model.request([ModelRequest.user_text_prompt("?")], None, ModelRequestParameters()))
        assert type(raised.value) is type(failure)
        assert str(raised.value) == str(failure)


def test_replay_without_a_record_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CassetteMiss, match="mode 'record'"):
        ask(tmp_path / "none.jsonl", "replay", "one", [])


def test_no_key_and_no_time_is_on_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ask(tmp_path / "c.jsonl", "record", "one", [])
    entry = json.loads((tmp_path / "c.jsonl").read_text())
    assert set(entry["request"]) == {"model", "settings", "mode", "schema", "instructions", "messages"}
    assert entry["request"]["settings"] == {"temperature": 0.0}
    assert "sk-secret" not in (tmp_path / "c.jsonl").read_text()
