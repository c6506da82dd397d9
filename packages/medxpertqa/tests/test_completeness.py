"""Whether a run is complete: every question in every epoch and order, and every part of a shared run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medxpertqa.engine.logs import read_logs
from medxpertqa.engine.running import evaluate
from medxpertqa.engine.stub_server import Reply, StubServer
from medxpertqa.errors import DataError, MedXpertQAWarning
from medxpertqa.results import Record, score_records
from medxpertqa.summaries import summarize
from medxpertqa.synthetic import synthetic_questions

QUESTIONS = synthetic_questions("text")[:4]


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask by official-ao, one question at a time and $1 a reply, into the folder of the test."""
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    with StubServer(lambda payload: "A") as server:

        def asked(**changes):
            settings = {"model": "openai-api/local/dollar", "protocol": "official-ao", "max_connections": 1}
            settings |= {"log_dir": tmp_path, "price": (0.0, 1e6), "base_url": server.base_url}
            return evaluate(QUESTIONS, **settings | changes)

        asked.server = server
        yield asked


@pytest.mark.parametrize("several", [{"epochs": 2}, {"permute": 2}])
def test_a_run_that_lacks_an_epoch_or_an_order_of_a_question_is_not_complete(ask, tmp_path, several):
    with pytest.warns(MedXpertQAWarning, match="cost limit"):
        stopped = summarize(ask(limit=2, cost_limit=2.5, **several))
    assert (stopped.n, stopped.n_records, stopped.n_missing, stopped.complete) == (2, 3, 1, False)
    assert not summarize(read_logs(tmp_path)).complete
    whole = summarize(ask(limit=2, **several))
    assert (whole.n_records, whole.n_missing, whole.complete) == (4, 0, True)


def test_other_questions_in_the_folder_of_a_stopped_run_replace_none_of_its_replies(ask):
    with pytest.warns(MedXpertQAWarning, match="cost limit"):
        assert ask(sample_ids=["Text-0", "Text-1"], cost_limit=0.5).n == 1
    results = ask(sample_ids=["Text-2", "Text-3"])
    assert {record.id for record in results.records} == {"Text-0", "Text-2", "Text-3"}
    assert len(ask.server.requests) == 3


def test_other_questions_of_the_folder_do_not_stand_for_those_that_are_missing(ask):
    assert summarize(ask(sample_ids=["Text-0", "Text-1"])).complete
    with pytest.warns(MedXpertQAWarning, match="cost limit"):
        stopped = summarize(ask(sample_ids=["Text-2", "Text-3"], cost_limit=2.5))
    assert (stopped.n_records, stopped.n_missing, stopped.complete) == (3, 1, False)
    assert summarize(ask(sample_ids=["Text-2", "Text-3"])).complete


def test_the_first_turn_of_a_question_that_was_kept_back_is_paid(ask):
    two_turns = {"protocol": "official-cot", "limit": 2}
    for limit in (2.5, 3):  # $2 a question: the second one has its first turn, and for $3 nothing is left
        with pytest.warns(MedXpertQAWarning, match="cost limit"):
            results = ask(cost_limit=limit, **two_turns)
        assert (results.n, results.n_expected) == (1, 2)
        assert len(ask.server.requests) == 3


def test_an_endpoint_that_is_lost_leaves_questions_missing_and_not_wrong(ask, tmp_path):
    replies = [Reply("A"), Reply("no", status=401)]
    with (
        StubServer(lambda payload: replies.pop(0) if replies else "A") as server,
        pytest.warns(MedXpertQAWarning, match=r"HTTP 401.*: after that nothing more was asked"),
    ):
        summary = summarize(ask(base_url=server.base_url))
    assert (summary.n_records, summary.n_errors, summary.n_missing) == (2, 1, 2)
    assert not summary.complete


def test_a_folder_from_before_its_keys_were_kept_is_counted_by_its_epochs(ask, tmp_path):
    with pytest.warns(MedXpertQAWarning, match="cost limit"):
        ask(limit=2, cost_limit=2.5, epochs=2)
    file = tmp_path / "medxpertqa.json"
    described = json.loads(file.read_text())
    assert described.pop("asked") == ["Text-0", "Text-1"]
    file.write_text(json.dumps(described))
    assert summarize(read_logs(tmp_path)).n_missing == 1


def test_shards_are_one_run_when_read_together_and_a_part_that_is_not_there_is_missing(ask, tmp_path):
    def part(shard, folder):
        return ask(shard=shard, log_dir=tmp_path / folder)

    assert summarize(part("1/2", "one")).complete  # by itself
    summary = summarize(read_logs(tmp_path))
    assert (summary.n_records, summary.n_missing, summary.complete) == (2, 2, False)
    part("2/2", "two")
    results = read_logs(tmp_path)
    assert (results.n, results.n_expected, summarize(results).complete) == (4, 4, True)
    part("2/4", "three")
    with pytest.raises(DataError, match=r"holds 1/2, 2/2, 2/4, which are not the shards of one run"):
        read_logs(tmp_path)


def test_a_reply_that_two_folders_have_is_not_counted_twice(ask, tmp_path):
    for folder in ("one", "again"):
        ask(shard="1/2", log_dir=tmp_path / folder)
    with pytest.raises(DataError, match=r"Text-0 \(epoch 1\) comes twice"):
        read_logs(tmp_path)


def test_a_run_is_as_complete_whether_its_errors_count_or_not():
    questions = [*synthetic_questions("text"), *synthetic_questions("mm")]
    records = [Record.of(q, q.label) for q in questions[1:]]
    records.append(Record.of(questions[0], "", status="error", error="x"))
    results = score_records(records)
    assert len(records) == 20
    assert summarize(results).complete
    assert summarize(results, errors="exclude").complete
    worse = score_records([*records[:-2], *(replace(records[-1], id=f"Text-{n}") for n in (98, 99))])
    assert not summarize(worse).complete
    assert not summarize(worse, errors="exclude").complete
