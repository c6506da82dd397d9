"""Batches: the requests are those of a run, the replies come back once, and the scores are the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medxpertqa import load_results, summarize
from medxpertqa.engine.batch import export_batch, import_batch
from medxpertqa.engine.running import EvalRun
from medxpertqa.engine.stub_server import sent_images
from medxpertqa.errors import DataError, MedXpertQAError
from medxpertqa.images import ImageStore
from medxpertqa.synthetic import synthetic_images, synthetic_questions

TEXT, MM = synthetic_questions("text")[:3], synthetic_questions("mm")[:3]


def lines(*files):
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def answered(path, requests, reply, **changes):
    """A file as the batch API writes it."""

    def output(request):
        text = reply(request)
        body = {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2},
        }
        response = {"status_code": 200, "request_id": "r", "body": body}
        return {"id": "b", "custom_id": request["custom_id"], "response": response, "error": None} | changes

    path.write_text("".join(json.dumps(output(request)) + "\n" for request in requests))
    return path


def test_two_turns_take_two_rounds_and_the_scores_are_a_runs(tmp_path):
    run = EvalRun(TEXT, "org/m", tmp_path / "b", settings={"max_tokens": 96, "max_connections": 4})
    first = export_batch(run)
    assert (first.n_replies, first.n_open) == (0, 3)
    requests = lines(*first.files)
    assert [request["custom_id"] for request in requests] == ["Text-0#1#1", "Text-1#1#1", "Text-2#1#1"]
    opening = run.rules.first_turn(TEXT[0])
    assert requests[0] == {
        "custom_id": "Text-0#1#1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "org/m", "messages": opening, "temperature": 0.0, "max_tokens": 96, "seed": 0},
    }
    with pytest.raises(DataError, match="no question of the batch has its last reply yet"):
        load_results(tmp_path / "b")

    output = answered(tmp_path / "out1.jsonl", requests, lambda request: " I think. \n")
    state = import_batch(tmp_path / "b", [output], TEXT)
    assert (state.n_replies, state.n_open, state.results) == (3, 3, None)

    second = lines(*export_batch(run).files)
    assert [request["custom_id"] for request in second] == ["Text-0#1#2", "Text-1#1#2", "Text-2#1#2"]
    assert second[0]["body"]["messages"] == run.rules.second_turn(TEXT[0], opening, "I think.")
    labels = {question.id: question.label for question in TEXT}
    output = answered(
        tmp_path / "out2.jsonl", second[:2], lambda r: f"({labels[r['custom_id'].partition('#')[0]]})"
    )
    assert import_batch(tmp_path / "b", [output], TEXT).n_open == 1
    again = import_batch(tmp_path / "b", [output, output], TEXT)
    assert (again.n_replies, again.n_open) == (5, 1)

    results = load_results(tmp_path / "b")
    summary = summarize(results)
    assert (summary.n, summary.n_correct, summary.n_missing, summary.complete) == (2, 2, 1, False)
    assert (summary.input_tokens, summary.output_tokens) == (28, 8)
    assert (results.name, results.protocol) == ("org/m", "official-cot (max_tokens=96)")
    assert [request["custom_id"] for request in lines(*export_batch(run).files)] == ["Text-2#1#2"]


def test_failed_requests_are_told_and_written_again(tmp_path):
    run = EvalRun(TEXT, "m", tmp_path / "b", "official-ao")
    requests = lines(*export_batch(run).files)
    failed = {"response": {"status_code": 429, "body": {"error": {"message": "slow\ndown"}}}}
    bad = answered(tmp_path / "bad.jsonl", requests[:1], lambda r: "", **failed)
    late = answered(
        tmp_path / "late.jsonl", requests[1:2], lambda r: "", response=None, error={"message": "expired"}
    )
    good = answered(tmp_path / "good.jsonl", requests[2:], lambda r: "A")
    state = import_batch(tmp_path / "b", [bad, late, good], TEXT)
    assert (state.n_replies, state.n_failed, state.n_open) == (1, 2, 2)
    assert [record.error for record in state.results.records] == ["slow down", "expired", ""]
    assert [request["custom_id"] for request in lines(*export_batch(run).files)] == [
        "Text-0#1#1",
        "Text-1#1#1",
    ]
    state = import_batch(tmp_path / "b", [answered(tmp_path / "g", requests, lambda r: "B"), bad], TEXT)
    # What was answered stays as it was; an error after a reply changes nothing.
    assert [record.response for record in state.results.records] == ["B", "B", "A"]
    assert (state.n_open, export_batch(run).files) == (0, ())


def test_orders_epochs_and_images_are_in_the_requests(tmp_path):
    images = ImageStore(synthetic_images())
    run = EvalRun(MM, "m", tmp_path, "official-cot-nosystem", images=images, permute=2, epochs=2, limit=1)
    requests = lines(*export_batch(run).files)
    assert [r["custom_id"] for r in requests] == ["MM-0#1#1", "MM-0#2#1", "MM-0@2#1#1", "MM-0@2#2#1"]
    assert sent_images(requests[0]["body"]) == [images("MM-0-a.jpeg")]
    assert requests[0]["body"]["max_completion_tokens"] == 8192
    assert "max_tokens" not in requests[0]["body"]
    output = answered(tmp_path / "o", requests, lambda r: "hm")
    import_batch(tmp_path, [output], MM)
    second = answered(tmp_path / "o2", lines(*export_batch(run).files), lambda r: "A")
    results = import_batch(tmp_path, [second], MM).results
    assert [(record.epoch, record.order[:1]) for record in results.records] == [
        (1, ()),
        (2, ()),
        (1, (2,)),
        (2, (2,)),
    ]
    assert results.records[2].label == MM[0].permuted((2, 3, 4, 0, 1)).label


def test_a_reply_cut_off_refused_or_of_reasoning_alone_is_told(tmp_path):
    run = EvalRun(TEXT, "m", tmp_path / "b", "official-ao")
    requests = lines(*export_batch(run).files)

    def body(text, stop, **message):
        return {"choices": [{"message": {"content": text, **message}, "finish_reason": stop}]}

    bodies = [
        body("A", "length"),
        body("I cannot, A", "content_filter"),
        body("", "stop", reasoning_content="A?"),
    ]
    output = tmp_path / "o"
    output.write_text(
        "\n".join(
            json.dumps({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": found}})
            for request, found in zip(requests, bodies, strict=True)
        )
    )
    records = import_batch(tmp_path / "b", [output], TEXT).results.records
    assert [(record.response, record.stop_reason) for record in records] == [
        ("A", "max_tokens"),
        ("", "content_filter"),
        ("", "reasoning_only"),
    ]


def test_usage_that_is_not_told_is_none_and_a_reply_of_another_kind_leaves_the_batch_as_it_was(tmp_path):
    run = EvalRun(TEXT[:1], "m", tmp_path / "b", "official-ao")
    (request,) = lines(*export_batch(run).files)
    output = tmp_path / "o"

    def imported(usage):
        body = {"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}], "usage": usage}
        output.write_text(json.dumps({"custom_id": request["custom_id"], "response": {"body": body}}))
        return import_batch(tmp_path / "b", [output], TEXT[:1])

    with pytest.raises(DataError, match=r"line 1 is no line of a batch's output: .*input_tokens is '7'"):
        imported({"prompt_tokens": "7"})
    assert not (tmp_path / "b" / "replies.jsonl").exists()
    (record,) = imported({"prompt_tokens": 7, "completion_tokens": None}).results.records
    assert (record.input_tokens, record.output_tokens) == (7, 0)


def test_files_are_split_at_the_apis_limits_and_nothing_is_lost(tmp_path):
    run = EvalRun(TEXT, "m", tmp_path)
    whole = lines(*export_batch(run).files)
    parts = export_batch(run, most_requests=2)
    assert [len(lines(file)) for file in parts.files] == [2, 1]
    one = len(json.dumps(whole[0]).encode()) + 100
    parts = export_batch(run, most_bytes=one)
    assert [len(lines(file)) for file in parts.files] == [1, 1, 1]
    assert lines(*parts.files) == whole


def test_settings_are_written_in_openais_names(tmp_path):
    run = EvalRun(TEXT[:1], "m", tmp_path / "b", settings={"stop_seqs": ["Q:"], "temperature": None})
    (request,) = lines(*export_batch(run).files)
    assert request["body"]["stop"] == ["Q:"]
    assert not {"stop_seqs", "temperature"} & request["body"].keys()


def test_what_does_not_belong_to_the_batch_is_named(tmp_path):
    folder = tmp_path / "b"
    with pytest.raises(DataError, match="holds no batch; `medxpertqa batch export`"):
        import_batch(tmp_path, [], TEXT)
    run = EvalRun(TEXT, "m", folder)
    requests = lines(*export_batch(run).files)
    with pytest.raises(MedXpertQAError, match="protocol 'official-cot', not 'official-ao'"):
        export_batch(replace(run, protocol="official-ao"))
    with pytest.raises(DataError, match="batch of other questions"):
        import_batch(folder, [], [replace(TEXT[0], stem="Changed."), *TEXT[1:]])
    output = tmp_path / "o.jsonl"
    for content, problem in (
        ("{", r"o\.jsonl, line 1 is no line of a batch's output"),
        ('{"custom_id": "Text-9#1#1", "error": {"message": "x"}}', "Text-9#1#1 is no request of this batch"),
        ('{"custom_id": "Text-0#1#3", "error": {"message": "x"}}', "Text-0#1#3 is no request of this batch"),
    ):
        output.write_text(content)
        with pytest.raises(DataError, match=problem):
            import_batch(folder, [output], TEXT)
    second = [request | {"custom_id": "Text-0#1#2"} for request in requests[:1]]
    with pytest.raises(DataError, match="second turn and none to its first"):
        import_batch(folder, [answered(output, second, lambda r: "A")], TEXT)
