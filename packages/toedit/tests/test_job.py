"""`EditJob`: the results are those of the editor, whatever the files, the shards and the faults."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from toedit import Document, EditConfig, EditFailure, Editor, EditResult, EditStats, ToEditError
from toedit.files import find_sources, read_rows
from toedit.job import EditJob, JobSettings, JobSummary, resilient
from toedit.layouts import layout_named
from toedit.manifest import Manifest, differences, read_manifest

CONFIG = EditConfig(threshold=1e-4, temperature=3.0, seed=5)
SETTINGS = JobSettings(CONFIG, "tiny", shard_rows=4)
ROWS = [
    {"id": n, "text": f"the cat sat on mat {n}, hello world: {'the hat ' * (n % 5)}", "source": f"s{n}"}
    for n in range(11)
]


@pytest.fixture(scope="module")
def editor(tiny_llama: Any, tokenizer: Any) -> Editor:
    return Editor(tiny_llama(), tokenizer, CONFIG)


@pytest.fixture(scope="module")
def expected(editor: Editor) -> list[EditResult]:
    results = editor.edit_batch([row["text"] for row in ROWS], [row["id"] for row in ROWS])
    assert sum(result.n_changed for result in results) > 20
    return results


def write(path: Path, rows: Iterable[Any] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def edit(inputs: Path, editor: Any, settings: JobSettings = SETTINGS, resume: bool = True) -> JobSummary:
    return EditJob([inputs], inputs.parent / "out", settings, resume).run(editor)


def results(out: Path, columns: tuple[str, ...] = ("id", "text", "source")) -> list[dict[str, Any]]:
    found = []
    for source in find_sources([out]):
        found += [row.values for row in read_rows(source, columns)]
    return found


def counts(stats: EditStats) -> dict[str, Any]:
    """What is counted; of the sums of probabilities the last bits depend on what is computed together."""
    return {name: value for name, value in stats.to_dict().items() if not name.endswith("_units")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_files_hold_what_the_editor_gives_in_shards_of_the_same_kind(
    tmp_path: Path, editor: Editor, expected: list[EditResult], name: str
) -> None:
    summary = edit(write(tmp_path / name), editor)
    assert results(tmp_path / "out") == [
        {**row, "text": result.text} for row, result in zip(ROWS, expected, strict=True)
    ]
    suffix = name.removeprefix("a")
    assert sorted(path.name for path in (tmp_path / "out" / "data").iterdir()) == [
        f"a-{n:05d}{suffix}" for n in range(3)
    ]
    assert counts(summary.stats) == counts(EditStats().merge(*(result.stats for result in expected)))
    assert (summary.n_shards, summary.n_quarantined) == (3, 0)
    assert summary.n_tokens_now == summary.stats.n_tokens


def test_every_document_is_listed_with_candidates_and_changes_apart(
    tmp_path: Path, editor: Editor, expected: list[EditResult]
) -> None:
    edit(write(tmp_path / "a.jsonl"), editor)
    listed = lines(tmp_path / "out" / "documents.jsonl")
    assert [(line["id"], line["candidates"], line["changed"]) for line in listed] == [
        (result.doc_id, result.n_candidates, result.n_changed) for result in expected
    ]
    assert [(line["shard"], line["row"]) for line in listed[3:5]] == [
        ("data/a-00000.jsonl", 4),
        ("data/a-00001.jsonl", 1),
    ]


def test_provenance_columns_hold_every_edit(
    tmp_path: Path, editor: Editor, expected: list[EditResult]
) -> None:
    settings = JobSettings(CONFIG, "tiny", provenance=True)
    for name in ("a/x.jsonl", "b/x.parquet"):
        file = write(tmp_path / name)
        edit(file, editor, settings)
        columns = ("toedit_candidates", "toedit_changed", "toedit_edits")
        for row, result in zip(results(file.parent / "out", columns), expected, strict=True):
            assert row["toedit_candidates"] == result.n_candidates
            assert row["toedit_changed"] == result.n_changed
            assert len(row["toedit_edits"]) == len(result.edits)
            for found, edit_ in zip(row["toedit_edits"], result.edits, strict=True):
                for name, value in vars(edit_).items():
                    same = value if isinstance(value, str) else pytest.approx(value, rel=1e-4)
                    assert found[name] == same


def test_bad_rows_go_to_quarantine_with_reasons_and_the_rest_is_edited(
    tmp_path: Path, editor: Editor, expected: list[EditResult]
) -> None:
    bad = [
        b'{"id": 99, "text": ',
        b"",
        {"id": 98, "body": "no text"},
        {"id": 97.5, "text": "no id"},
        {"id": 96, "text": None},
        {"id": 95, "text": "half \ud800"},
        {"id": 94, "text": " \n"},
    ]
    rows = [*ROWS[:3], *bad, *ROWS[3:]]
    summary = edit(write(tmp_path / "a.jsonl", rows), editor)
    quarantined = lines(tmp_path / "out" / "quarantine.jsonl")
    assert [(line["row"], line["id"]) for line in quarantined] == [
        *((4, None), (6, None), (7, None), (8, 96), (9, 95))
    ]
    for line, reason in zip(
        quarantined,
        (
            "the line is not JSON",
            "there is no column 'text'; there are: 'id', 'body'",
            "a document id is a whole number or text, not 97.5",
            "the text is of type NoneType, not a string",
            "the text is no valid Unicode: character 5",
        ),
        strict=True,
    ):
        assert line["reason"].startswith(reason)
        assert line["input"] == "a.jsonl"
    assert quarantined[0]["line"] == '{"id": 99, "text": '
    texts = {row["id"]: row["text"] for row in results(tmp_path / "out")}
    assert texts == {94: " \n", **{result.doc_id: result.text for result in expected}}
    assert summary.n_quarantined == 5
    assert summary.stats.n_empty == 1


def test_several_inputs_of_mixed_kinds_keep_their_names(tmp_path: Path, editor: Editor) -> None:
    write(tmp_path / "in" / "one" / "x.jsonl", ROWS[:2])
    write(tmp_path / "in" / "two" / "x.parquet", ROWS[2:])
    write(tmp_path / "in" / "two" / "empty.jsonl", [])
    summary = edit(tmp_path / "in", editor)
    assert [record.shard for record in read_manifest(tmp_path / "out").shards] == [
        "data/one/x-00000.jsonl",
        *(f"data/two/x-0000{n}.parquet" for n in range(3)),
    ]
    assert summary.stats.n_documents == 11


@pytest.mark.parametrize("first", ["{folder}/x/a.jsonl", "../x/a.jsonl"])
def test_shards_are_in_the_folder_of_results_wherever_their_inputs_are(
    tmp_path: Path, editor: Editor, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    write(tmp_path / "x" / "a.jsonl", ROWS[:2])
    monkeypatch.chdir(write(tmp_path / "here" / "b.jsonl", ROWS[2:4]).parent)
    out = tmp_path / "out"
    EditJob([first.format(folder=tmp_path), "b.jsonl"], out, SETTINGS).run(editor)
    shards = [(out / record.shard).resolve() for record in read_manifest(out).shards]
    data = (out / "data").resolve()
    assert [path.relative_to(data).as_posix() for path in shards] == ["x/a-00000.jsonl", "here/b-00000.jsonl"]
    assert len(list(data.rglob("*.jsonl"))) == len(list((tmp_path / "x").iterdir())) + 1 == 2


def test_ids_made_of_the_content_do_not_ask_for_a_column(tmp_path: Path, editor: Editor) -> None:
    rows = [{"text": row["text"], "source": "x"} for row in (*ROWS[:2], *ROWS[:2])]
    edit(write(tmp_path / "a.jsonl", rows), editor, JobSettings(CONFIG, "tiny", id_column=None))
    first, second, *again = [row["text"] for row in results(tmp_path / "out")]
    assert again == [first, second]  # the same text is edited alike


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "body": "x"}], r"there is no column 'text'; there are: 'id', 'body'. --text-column"),
        ([{"key": 1, "text": "x"}], r"there is no column 'id'; there are: 'key', 'text'. --id-column"),
        ([ROWS[0], ROWS[1], ROWS[0]], r"document id '0' is there twice: row 1 of .*a\.\w+ and row 3 of"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_inputs_that_cannot_be_edited_are_refused_before_anything_is_written(
    tmp_path: Path, rows: list[Any], message: str, name: str
) -> None:
    with pytest.raises(ToEditError, match=message):
        EditJob([write(tmp_path / name, rows)], tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_settings_is_refused_and_the_difference_shown(
    tmp_path: Path, editor: Editor
) -> None:
    file = write(tmp_path / "a.jsonl")
    edit(file, editor)
    other = JobSettings(CONFIG.replace(threshold=0.9), "larger", shard_rows=4)
    with pytest.raises(ToEditError, match="holds results of other settings") as refusal:
        edit(file, editor, other, resume=True)
    assert str(refusal.value).splitlines()[1:] == [
        "  settings.config.threshold: 0.0001 there, 0.9 now",
        '  settings.model: "tiny" there, "larger" now',
    ]
    write(file, ROWS[:-1])
    with pytest.raises(ToEditError, match=r"inputs\.0\.rows: 11 there, 10 now"):
        edit(file, editor, resume=True)


def test_an_editor_of_another_config_is_refused_before_anything_is_written(
    tmp_path: Path, editor: Editor
) -> None:
    job = EditJob(
        [write(tmp_path / "a.jsonl")], tmp_path / "out", JobSettings(CONFIG.replace(top_k=4, seed=6), "tiny")
    )
    with pytest.raises(ToEditError, match="the editor's config is not that of the job's settings") as refusal:
        job.run(editor)
    assert str(refusal.value).splitlines()[1:] == ["  top_k: 4 there, 8 now", "  seed: 6 there, 5 now"]
    assert not (tmp_path / "out").exists()


def test_a_job_that_starts_anew_has_nothing_of_the_one_before(tmp_path: Path, editor: Editor) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    edit(write(tmp_path / "a.jsonl", [*ROWS, b"{"]), editor)
    (out / "journal.jsonl").write_text("left behind\n")
    (out / "notes.txt").touch()
    before = read_manifest(out)
    other = JobSettings(CONFIG, "tiny", shard_rows=7)
    file = write(tmp_path / "b.jsonl")
    job = EditJob([file], out, other, resume=False)
    assert not job.complete
    assert read_manifest(out) == before  # until it runs
    job.run(editor)
    EditJob([file], whole, other).run(editor)
    assert (out / "notes.txt").exists()
    (out / "notes.txt").unlink()
    found, expected = (sorted(path.rglob("*")) for path in (out, whole))
    assert [path.relative_to(out) for path in found] == [path.relative_to(whole) for path in expected]
    for one, other_one in zip(found, expected, strict=True):
        assert one.is_dir() or one.read_bytes() == other_one.read_bytes()


def test_a_manifest_of_another_program_is_not_cleared_away(tmp_path: Path, editor: Editor) -> None:
    file, out = write(tmp_path / "a.jsonl"), tmp_path / "out"
    kept = write(out / "data" / "mine.jsonl")
    write(out / "manifest.jsonl", [{"name": "mine"}])
    with pytest.raises(ToEditError, match="is damaged"):
        EditJob([file], out, SETTINGS, resume=False).run(editor)
    assert kept.exists()


def test_a_folder_in_use_is_refused(tmp_path: Path, editor: Editor) -> None:
    file = write(tmp_path / "a.jsonl")
    job = EditJob([file], tmp_path / "out", SETTINGS, resume=True)
    other = Manifest(tmp_path / "out", job.header, resume=True)
    with pytest.raises(ToEditError, match="another process is writing to"):
        job.run(editor)
    other.close()
    job.run(editor)
    assert EditJob([file], tmp_path / "out", SETTINGS).complete
    (tmp_path / "out" / "data" / "a-00001.jsonl").unlink()
    (tmp_path / "out" / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(ToEditError, match="is damaged"):
        EditJob([file], tmp_path / "out", SETTINGS, resume=True)
    for out, message in ((tmp_path, "is not empty and holds no results"), (file, "is a file")):
        with pytest.raises(ToEditError, match=message):
            EditJob([write(tmp_path.parent / "b.jsonl")], out, SETTINGS)
    with pytest.raises(ToEditError, match="is in the folder of results"):
        EditJob([file], tmp_path, SETTINGS)


def test_differences_name_keys_that_only_one_side_has() -> None:
    there, now = {"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"b": 2, "c": [1]}, "e": "x"}
    assert differences(there, now) == [
        "a.b: 1 there, 2 now",
        "d: 1 there, nothing now",
        'e: nothing there, "x" now',
    ]


def test_a_job_resumed_with_a_real_model_has_the_same_texts_and_counts(
    tmp_path: Path, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toedit.commits.CHUNK", 3)
    monkeypatch.setattr(editor.backend, "batch_tokens", 60)
    settings = JobSettings(CONFIG, "tiny", shard_rows=8)
    whole, broken = write(tmp_path / "whole" / "a.jsonl"), write(tmp_path / "broken" / "a.jsonl")
    edit(whole, editor, settings)

    class Stopped(Exception):
        pass

    def stop_at(row: int) -> Any:
        def stop(done: int, total: int) -> None:
            if done == row:
                raise Stopped

        return stop

    for row in (1, 5, 9, 10):
        with pytest.raises(Stopped):
            EditJob([broken], broken.parent / "out", settings, resume=True).run(editor, stop_at(row))
    edit(broken, editor, settings, resume=True)
    first, second = whole.parent / "out", broken.parent / "out"
    for name in ("a-00000.jsonl", "a-00001.jsonl"):
        assert (first / "data" / name).read_bytes() == (second / "data" / name).read_bytes()
    assert counts(read_manifest(first).stats) == counts(read_manifest(second).stats)


CHAT = [
    {"role": "user", "content": "the cat sat on the mat?"},
    {"role": "assistant", "content": "hello the hat "},
]


@pytest.mark.parametrize(
    ("layout", "row", "answer"),
    [
        ("messages", {"messages": [*CHAT, *CHAT]}, "messages"),
        (
            "prompt-completion",
            {"prompt": "the cat sat on the mat?", "completion": " hello the hat " * 4},
            "completion",
        ),
        ("prompt-completion", {"prompt": [*CHAT, CHAT[0]], "completion": [CHAT[1]]}, "completion"),
        ("alpaca", {"instruction": "the cat", "input": "the mat", "output": "hello the hat " * 4}, "output"),
        ("alpaca", {"instruction": "the cat", "output": "hello the hat " * 4}, "output"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_training_pairs_change_in_the_answers_only(
    tmp_path: Path, editor: Editor, layout: str, row: dict[str, Any], answer: str, suffix: str
) -> None:
    rows = [{"id": n, **row} for n in range(30)]
    settings = JobSettings(CONFIG, "tiny", layout=layout_named(layout))
    summary = edit(write(tmp_path / f"a.{suffix}", rows), editor, settings)
    assert summary.n_quarantined == 0
    found = results(tmp_path / "out", tuple(rows[0]))
    assert [{**line, answer: None} for line in found] == [{**line, answer: None} for line in rows]
    changed = [line[answer] for line in found if line[answer] != row[answer]]
    assert len(changed) > 5
    if isinstance(row[answer], list):
        for messages in changed:
            for old, new in zip(row[answer], messages, strict=True):
                assert (new == old) or new["role"] == "assistant"


REPLIES = [CHAT[0], {"role": "assistant", "content": " \nhello the hat, the cat sat on the mat "}]
PAIR = {"instruction": "the cat", "input": "the mat", "output": "hello the hat " * 9}


@pytest.mark.parametrize(
    ("layout", "row", "column", "has_template"),
    [
        ("text", {"text": ROWS[4]["text"]}, "text", True),
        ("messages", {"messages": [*REPLIES, *REPLIES]}, "messages", True),
        ("prompt-completion", {"prompt": "the cat?", "completion": " hello the hat" * 9}, "completion", True),
        ("prompt-completion", {"prompt": [*REPLIES, CHAT[0]], "completion": REPLIES[1:]}, "completion", True),
        ("alpaca", PAIR, "output", True),
        ("alpaca", PAIR, "output", False),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_edits_of_the_provenance_make_the_edited_column_of_the_source_s(
    tmp_path: Path,
    editor: Editor,
    applied: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    row: dict[str, Any],
    column: str,
    has_template: bool,
    suffix: str,
) -> None:
    if not has_template:
        monkeypatch.setattr(editor.tokenizer.base, "chat_template", None)
    rows = [{"id": n, **row} for n in range(12)]
    settings = JobSettings(CONFIG, "tiny", layout=layout_named(layout), provenance=True)
    assert edit(write(tmp_path / f"a.{suffix}", rows), editor, settings).n_quarantined == 0
    found = results(tmp_path / "out", (column, "toedit_changed", "toedit_edits"))
    for line in found:
        assert applied(row[column], line["toedit_edits"]) == line[column]
        assert len(line["toedit_edits"]) == line["toedit_changed"]
    assert sum(line["toedit_changed"] for line in found) > 12
    messages = {edit_["message"] for line in found for edit_ in line["toedit_edits"]}
    assert messages == ({1, 3} if layout == "messages" else {0} if "role" in row[column][0] else {None})


def test_a_model_without_a_chat_template_does_not_take_messages(
    tmp_path: Path, tiny_llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    settings = JobSettings(CONFIG, "tiny", layout=layout_named("messages"))
    with pytest.raises(ToEditError, match="the tokenizer of tiny has no chat template for messages"):
        edit(
            write(tmp_path / "a.jsonl", [{"id": 1, "messages": CHAT}]),
            Editor(tiny_llama(), tokenizer, CONFIG),
            settings,
        )


class Moody:
    """An editor whose batches fail at certain documents: "once" in company only, "never" always."""

    def edit_stream(
        self, documents: Iterable[Document], buffer: int = 9
    ) -> Iterator[EditResult | EditFailure]:
        batch = list(documents)
        for at, document in enumerate(batch):
            if document.text == "never" or (document.text == "once" and len(batch) > 1):
                raise RuntimeError("CUDA error: device-side assert\nmore")
            if document.text == "settings":
                raise ToEditError("lower window")
            yield EditFailure(document.doc_id, f"seen {at}")


def test_a_batch_that_fails_is_tried_again_one_by_one() -> None:
    texts = ["a", "b", "once", "never", "c"]
    found = list(resilient(Moody(), [Document(n, text) for n, text in enumerate(texts)]))  # type: ignore[arg-type]
    assert [result.doc_id for result in found] == [0, 1, 2, 3, 4]
    reasons = [result.reason for result in found if isinstance(result, EditFailure)]
    assert reasons == ["seen 0", "seen 1", "seen 0", "RuntimeError: CUDA error: device-side assert", "seen 0"]


@pytest.mark.parametrize(
    ("texts", "error"), [(["never"] * 5, RuntimeError), (["a", "settings"], ToEditError)]
)
def test_what_no_other_document_mends_ends_the_job(texts: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        list(resilient(Moody(), [Document(n, text) for n, text in enumerate(texts)]))  # type: ignore[arg-type]


def test_an_error_of_the_reader_is_not_taken_for_the_editor_s() -> None:
    def documents() -> Iterator[Document]:
        yield Document(1, "a")
        raise RuntimeError("of the reader")

    with pytest.raises(RuntimeError, match="of the reader"):
        list(resilient(Moody(), documents()))  # type: ignore[arg-type]
