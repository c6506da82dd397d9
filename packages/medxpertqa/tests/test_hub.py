from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from medxpertqa import DataError, Question, load_questions
from medxpertqa.attributes import dataset_statistics, load_attributes
from medxpertqa.datasets import ATTRIBUTES, QUESTIONS, archived_questions, bank
from medxpertqa.hub import SETS, question_digest
from medxpertqa.o1_sample import O1_SAMPLE
from medxpertqa.synthetic import synthetic_questions
from tenfold.data import Dataset

FORMS = ("hub", "official")


def _needs(dataset: Dataset) -> None:
    if not dataset.available():
        pytest.skip(f"data {dataset.name} not available")


def _write(path: Path, questions: list[Question], form: Any = "hub") -> Path:
    path.write_text("".join(json.dumps(q.to_record(form)) + "\n" for q in questions), encoding="utf-8")
    return path


@pytest.fixture
def hub_serves(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    def serve(path: Path) -> None:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args, **kwargs: str(path))

    return serve


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_either_form_packed_or_not_gives_the_questions(tmp_path: Path, form: str) -> None:
    questions = load_questions("synthetic/mm")
    path = _write(tmp_path / "own.jsonl", questions, form)
    assert load_questions("mm", path) == questions
    packed = tmp_path / "own.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert load_questions(path=packed) == questions


def test_a_parquet_file_gives_the_questions(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    questions = load_questions("synthetic/mm")
    records = [question.to_record() for question in questions]
    records[0]["options"] |= dict.fromkeys("FGHIJ")  # a table has the same letters in every row
    table = pyarrow.Table.from_pylist(records)
    parquet.write_table(table, tmp_path / "own.parquet")
    assert load_questions(path=tmp_path / "own.parquet") == questions


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "has no questions"),
        ("a.json", b"{", "cannot be read"),
        ("a.jsonl", b"\xff", "cannot be read"),
        ("a.jsonl", b"3\n", "line 1 is no object"),
        ("a.jsonl", b"\n\n{", "line 3 is no JSON: .*, column 2"),
        ("a.json", b"[3]", "record 1 is no object"),
        ("a.json", b"{}", "holds no list of records"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"x" * 500, mtime=0)[:14] + b"\xff" * 20, "cannot be read"),
        ("a.jsonl", b"[" * 100_000, "line 1 is nested too deeply"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.parquet", b"PAR1 and no more", "cannot be read"),
        ("a.zip", b"no zip", "cannot be read"),
        ("a.jsonl", b'{"id": "x", "question": "y"}', "x: label is missing"),
    ],
)
def test_a_file_that_is_none_of_questions_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}:? {message}"):
        load_questions(path=tmp_path / name)


def test_a_damaged_member_of_an_archive_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("medxpertqa_sampled_text_input.jsonl", bytes(range(256)) * 40)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    start = data.index(b"input.jsonl") + len(b"input.jsonl")
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip cannot be read"):
        load_questions(path=tmp_path / "a.zip")


def test_a_byte_order_mark_in_front_of_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    questions = load_questions("synthetic/text")
    _write(tmp_path / "a.jsonl", questions)
    (tmp_path / "b.jsonl").write_text((tmp_path / "a.jsonl").read_text("utf-8"), "utf-8-sig")
    assert load_questions(path=tmp_path / "b.jsonl") == questions


def test_an_id_that_comes_twice_is_named(tmp_path: Path) -> None:
    questions = load_questions("synthetic/text")
    with pytest.raises(DataError, match="1 ids come more than once, for example Text-3"):
        load_questions(path=_write(tmp_path / "a.jsonl", [*questions, questions[3]]))


def test_a_hub_that_cannot_be_reached_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find it\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(
        DataError, match=r"nor to be fetched \(cannot find it\)\. .*medxpertqa download.*--data"
    ):
        load_questions("text")


def test_changed_questions_stop_unless_they_are_allowed(
    tmp_path: Path, hub_serves: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = load_questions("synthetic/mm")
    hub_serves(_write(tmp_path / "test.jsonl", questions))
    with pytest.raises(DataError, match=r"has 8 questions instead of 2000\..*--allow-revision"):
        load_questions("mm")
    assert load_questions("mm", allow_revision=True) == questions
    with pytest.raises(DataError, match="revision main is not the pinned"):
        load_questions("mm", revision="main")
    right = SETS["mm"]._replace(size=8, digest=question_digest(questions))
    monkeypatch.setitem(SETS, "mm", right)
    assert load_questions("mm") == questions
    monkeypatch.setitem(SETS, "mm", right._replace(digest=question_digest(questions[:7])))
    with pytest.raises(DataError, match="has other questions than the pinned revision"):
        load_questions("mm")


def test_a_sample_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", load_questions("synthetic/text"))
    with pytest.raises(DataError, match="lacks 243 questions of the sample text/o1, the first is Text-15"):
        load_questions("text/o1", path)  # Text-0 is there


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(DataError, match="no set 'Text'; there are: text, mm, "):
        load_questions("Text")


def test_the_digest_does_not_depend_on_order_or_attributes() -> None:
    questions = synthetic_questions("mm")
    bare = [Question(q.id, q.stem, q.options, q.label, q.images) for q in reversed(questions)]
    assert question_digest(bare) == question_digest(questions)
    assert question_digest(questions[1:]) != question_digest(questions)


def test_the_archive_holds_the_pinned_questions() -> None:
    _needs(QUESTIONS)
    mm = {question.id: question for question in archived_questions("mm")}
    assert question_digest(mm.values()) == SETS["mm"].digest
    for name, size in (("text/o1", 244), ("mm/o1", 199)):
        sample = archived_questions(name)  # type: ignore[arg-type]
        assert (len(sample), question_digest(sample)) == (size, SETS[name].digest)
        assert all(question.id not in mm or mm[question.id] == question for question in sample)


def test_the_attributes_give_the_papers_tables() -> None:
    _needs(ATTRIBUTES)
    rows = load_attributes()
    found = dataset_statistics(rows)
    assert found.n == {"Text": 2450, "MM": 2000}
    assert found.question_type == {
        "Text": {"Reasoning": 1861, "Understanding": 589},
        "MM": {"Reasoning": 1446, "Understanding": 554},
    }
    assert found.total_images == 2852
    assert found.n_images["MM"] == {1: 1581, 2: 236, 3: 59, 4: 22, 5: 78, 6: 24}
    shares = {task: round(share, 2) for task, share in found.pooled_percent("medical_task").items()}
    assert shares == {"Diagnosis": 50.54, "Treatment": 26.83, "Basic Science": 22.63}
    assert round(found.pooled_percent("body_system")["Skeletal"], 2) == 19.01  # 19.8 in the paper's figure
    assert {row: values["o1_sample"] for row, values in rows.items() if values["o1_sample"]} == dict.fromkeys(
        [*O1_SAMPLE["Text"], *O1_SAMPLE["MM"]], 1
    )


def test_the_attributes_are_those_of_the_archives_questions() -> None:
    _needs(ATTRIBUTES)
    _needs(QUESTIONS)
    rows = load_attributes()
    for question in [*archived_questions("mm"), *archived_questions("text/o1")]:
        row = rows[question.id]
        assert {key: row[key] for key in question.attributes} == question.attributes
        assert row["n_options"] == question.n_options


def test_the_banks_are_whole() -> None:
    from medxpertqa.datasets import MEDMCQA, MEDQA, MMLU_MEDICAL

    for dataset in (MEDQA, MEDMCQA, MMLU_MEDICAL):
        _needs(dataset)
    sizes = {name: len(bank(name)) for name in ("medqa", "medmcqa", "mmlu-medical")}  # type: ignore[arg-type]
    assert sizes == {"medqa": 1273, "medmcqa": 4183, "mmlu-medical": 1089}


def test_a_file_of_other_attributes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,type\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv is no file of attributes; its columns should be id, subset"):
        load_attributes(tmp_path / "a.csv")


def test_the_synthetic_questions_look_like_the_test_sets_by_form() -> None:
    text, mm = synthetic_questions("text"), synthetic_questions("mm")
    assert Counter(question.n_options for question in [*text, *mm]) == {10: 12, 5: 8}
    assert text == synthetic_questions("text")
    assert max(len(question.images) for question in mm) == 6
    statistics = dataset_statistics([*text, *mm])
    assert statistics.n == {"Text": 12, "MM": 8}
    assert set(statistics.question_type["MM"]) == {"Reasoning", "Understanding"}
