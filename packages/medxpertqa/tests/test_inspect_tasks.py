"""inspect-ai's own command finds the tasks, asks as `evaluate` does, and its logs are read like a run's."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

import pytest

from medxpertqa import DataError, MedXpertQAError, load_results, summarize
from medxpertqa.engine.stub_server import StubServer, prompt_text
from medxpertqa.synthetic import synthetic_questions

inspect_ai = pytest.importorskip("inspect_ai")
TEXT, MM = synthetic_questions("text"), synthetic_questions("mm")


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", "k")


def test_the_registry_finds_both_tasks_by_the_entry_point():
    from inspect_ai._util.registry import registry_lookup

    found = [entry.value for entry in entry_points(group="inspect_ai", name="medxpertqa")]
    assert found == ["medxpertqa.engine.inspect_tasks"]
    for name in ("text", "mm"):
        assert registry_lookup("task", f"medxpertqa/{name}") is not None


def test_inspect_eval_asks_by_the_protocol_and_its_logs_are_results(tmp_path):
    data, logs = tmp_path / "q.jsonl", tmp_path / "logs"
    data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in TEXT))
    labels = {question.stem: question.label for question in TEXT}

    def answer(payload):
        text = prompt_text(payload)
        return f"The answer is {next(labels[stem] for stem in labels if stem in text)}."

    with StubServer(answer) as server:
        inspect_ai.eval(
            "medxpertqa/text",
            model="openai-api/local/m",
            model_base_url=server.base_url,
            task_args={"data": str(data), "protocol": "official-ao", "limit": 4},
            max_tokens=64,
            log_dir=str(logs),
            display="none",
        )
    assert {payload["max_tokens"] for payload in server.requests} == {64}
    assert (
        sorted(prompt_text(payload).splitlines()[0] for payload in server.requests)
        == ["Please answer only."] * 4
    )
    results = load_results(logs)
    summary = summarize(results)
    assert (summary.n, summary.n_correct, summary.complete) == (4, 4, True)
    assert (results.name, results.protocol) == ("openai-api/local/m", "official-ao (max_tokens=64)")
    assert (results.dataset, results.n_expected) == ("text", 4)
    for file in logs.glob("*.eval"):
        assert TEXT[0].stem.encode() not in file.read_bytes()


def test_images_are_checked_before_inspect_asks(tmp_path):
    from medxpertqa.engine.inspect_tasks import mm

    assert len(mm(subset="synthetic/mm").dataset) == len(MM)
    data = tmp_path / "q.jsonl"
    data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in MM))
    with pytest.raises(DataError, match="MM-0 has images, and there is nowhere to take them from"):
        mm(data=str(data))
    with pytest.raises(MedXpertQAError, match="no protocol 'x'"):
        mm(subset="synthetic/mm", protocol="x")
