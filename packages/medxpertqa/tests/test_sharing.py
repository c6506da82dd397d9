"""What is shared has no text of a question, and is enough to score the run again."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

import medxpertqa
from medxpertqa import DataError, compare, load_results, score_records, summarize
from medxpertqa.datasets import QUESTIONS as ARCHIVE
from medxpertqa.datasets import archived_questions
from medxpertqa.results import Record
from medxpertqa.sharing import find_leaks, share
from medxpertqa.synthetic import synthetic_questions

QUESTIONS = synthetic_questions("text")


def run():
    records = [
        Record.of(q, f"It is {q.answer}. I think it is {q.label}. {q.stem}", stop_reason="stop")
        for q in QUESTIONS[:10]
    ]
    order = (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)
    records.append(Record.of(QUESTIONS[0], "A", order=order, attributes={"cluster": "Text-0"}))
    failed = f"provider repeats: {QUESTIONS[11].stem}"
    records += [
        Record.of(QUESTIONS[10], " ", stop_reason="content_filter"),
        Record.of(QUESTIONS[11], "", status="error", error=failed),
    ]
    return score_records(records, questions=QUESTIONS, name="m", protocol="official-cot", n_expected=12)


def test_a_bundle_has_letters_and_no_text_label_or_message(tmp_path):
    bundle = share(run(), tmp_path / "bundle.jsonl")
    text = bundle.read_text()
    assert not find_leaks(bundle, QUESTIONS)
    for question in QUESTIONS:
        assert question.stem not in text
        assert not any(option in text for option in question.options.values())
    head, *rows = map(json.loads, text.splitlines())
    assert (head["n"], head["n_errors"], head["n_correct"]["robust"]) == (12, 1, 10)
    assert rows[0]["answers"]["official"]["letter"] == "I"
    assert rows[0]["answers"]["robust"]["letter"] == QUESTIONS[0].label
    assert not any("label" in row or "response" in row or "error" in row for row in rows)


def test_who_has_the_questions_gets_the_same_scores_of_it(tmp_path):
    results = run()
    bundle = share(results, tmp_path / "bundle.jsonl")
    again = load_results(bundle, questions=QUESTIONS)
    assert summarize(again) == summarize(results)
    assert compare(again, results).difference == 0
    with pytest.raises(DataError, match="shared bundle, which has no labels"):
        load_results(bundle)
    with pytest.raises(DataError, match="Text-1 is not among the questions"):
        load_results(bundle, questions=QUESTIONS[:1])


@pytest.mark.parametrize("key", ["id", "n_options", "order", "status", "attributes", "answers", "epoch"])
def test_a_damaged_line_of_a_bundle_is_named(tmp_path, key):
    head, first, *_ = share(run(), tmp_path / "bundle.jsonl").read_text().splitlines()
    row = json.loads(first)
    for damaged in ({k: v for k, v in row.items() if k != key}, row | {key: 0.5}):
        (tmp_path / "b.jsonl").write_text(f"{head}\n{json.dumps(damaged)}\n")
        with pytest.raises(DataError, match=r"b\.jsonl, line 2"):
            load_results(tmp_path / "b.jsonl", questions=QUESTIONS)


def test_no_line_of_a_bundle_is_scored_twice(tmp_path):
    lines = share(run(), tmp_path / "bundle.jsonl").read_text().splitlines()
    (tmp_path / "b.jsonl").write_text("\n".join([*lines, lines[3]]))
    with pytest.raises(DataError, match="Text-2 \\(epoch 1\\) comes twice"):
        load_results(tmp_path / "b.jsonl", questions=QUESTIONS)
    (tmp_path / "b.jsonl").write_text("\n".join([lines[0].replace('"parsers"', '"readers"'), lines[1]]))
    with pytest.raises(DataError, match="line 2 is no line of a bundle: KeyError 'parsers'"):
        load_results(tmp_path / "b.jsonl", questions=QUESTIONS)


def test_an_id_that_is_a_text_is_not_shared(tmp_path):
    record = {"id": "A woman has pain", "response": "A", "label": "A", "n_options": 5}
    with pytest.raises(DataError, match="looks like a text"):
        share(score_records([record]), tmp_path / "b.jsonl")


def test_a_leak_is_found_in_a_text_a_wheel_and_whatever_its_case_and_blanks(tmp_path):
    shown = QUESTIONS[3].stem.upper().replace(" ", "\n  ")
    (tmp_path / "log.txt").write_text(f"request: {shown}")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    with zipfile.ZipFile(tmp_path / "p-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("p/data.jsonl", json.dumps(QUESTIONS[5].to_record()))
    found = {(Path(leak.file).name, leak.id) for leak in find_leaks(tmp_path, QUESTIONS)}
    assert found == {("log.txt", "Text-3"), ("data.jsonl", "Text-5")}
    (tmp_path / "log.txt").write_text(" ".join(QUESTIONS[3].stem.split()[:8]))
    assert not find_leaks(tmp_path / "log.txt", QUESTIONS)


def zipped(data: bytes, compression: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("sample.json", data)
    return packed.getvalue()


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(lambda text: text.encode() + b"\xb0", id="a byte that is no text"),
        pytest.param(lambda text: text.encode("utf-16"), id="UTF-16"),
        pytest.param(lambda text: gzip.compress(text.encode()), id="gzip"),
        pytest.param(lambda text: zipped(text.encode(), zipfile.ZIP_DEFLATED), id="ZIP"),
    ],
)
def test_a_leak_is_found_however_it_is_written(packed, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(packed(QUESTIONS[3].stem))
    assert {leak.id for leak in find_leaks(tmp_path, QUESTIONS)} == {"Text-3"}


def test_the_logs_of_inspect_are_searched(tmp_path):
    pytest.importorskip("zipfile_zstd")
    (tmp_path / "run.eval").write_bytes(zipped(QUESTIONS[3].stem.encode(), 93))  # zstd
    assert {leak.id for leak in find_leaks(tmp_path, QUESTIONS)} == {"Text-3"}


def test_what_cannot_be_unpacked_is_no_clean_file(tmp_path):
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"a" * 1000)[:-8])
    with pytest.raises(DataError, match=r"half\.gz cannot be searched"):
        find_leaks(tmp_path, QUESTIONS)


@pytest.mark.slow
def test_the_package_holds_no_question_of_the_test_set():
    if not ARCHIVE.available():
        pytest.skip(f"data {ARCHIVE.name} not available")
    package = Path(medxpertqa.__file__).parent
    questions = [*archived_questions("mm"), *archived_questions("text/o1")]
    assert not find_leaks(package, questions)
    assert not find_leaks(package.parents[1] / "tests", questions)
