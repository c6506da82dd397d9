"""Writing results: what was not edited comes back as it was, and a shard is there whole or not at all."""

from __future__ import annotations

import datetime
import decimal
import errno
import gzip
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from toedit.files import Row, find_sources, read_rows
from toedit.shards import ShardWriter

LINES = [
    b'{"text":"one",  "n": 1e5, "u": "\\u00e9"}',
    b'{"n": 12345678901234567890, "text": "two", "half": "\\ud800"}',
    b'{"text": "three", "deep": {"a": [null, true]}}',
]
SCHEMA = pa.schema(
    [
        pa.field("when", pa.timestamp("ns", tz="UTC")),
        pa.field("text", pa.large_string(), metadata={"of": "the field"}),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
        pa.field("price", pa.decimal128(9, 2)),
        pa.field("vector", pa.list_(pa.float16(), 2)),
    ],
    metadata={"huggingface": '{"info": {}}', "own": "kept"},
)
TABLE = pa.table(
    {
        "when": [datetime.datetime(2024, 2, 3, tzinfo=datetime.UTC), None, None],
        "text": ["one", "two", "three"],
        "kind": ["a", "b", "a"],
        "price": [decimal.Decimal("1.50"), None, decimal.Decimal("3.25")],
        "vector": [[1.0, 2.0], None, [0.5, 0.25]],
    },
    schema=SCHEMA,
)


def table_file(path: Path, table: pa.Table = TABLE) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.name.startswith("feather"):
        pyarrow.feather.write_feather(table, path)
    else:
        with pyarrow.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    return path


def table_of(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)
    if path.name.startswith("feather"):
        return pyarrow.feather.read_table(path)
    return pa.ipc.open_stream(path.read_bytes()).read_all()


def rewritten(file: Path, edits: dict[int, dict[str, Any]], skip: int = 0, provenance: bool = False) -> Path:
    """The shard of a file's rows but the one numbered `skip`, with the `edits` of those numbered."""
    (source,) = find_sources([file])
    writer = ShardWriter(file.parent / "out" / file.name, source, provenance)
    for row in read_rows(source, ("text",)):
        assert isinstance(row, Row)
        if row.number != skip:
            writer.add(row, edits.get(row.number, {"text": row.values["text"]}))
    written = writer.commit()
    content = writer.path.read_bytes()
    assert (written.n_bytes, written.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    return writer.path


def test_lines_without_a_change_are_the_same_bytes_and_others_the_same_values(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\r\n".join(LINES))
    lines = rewritten(file, {2: {"text": "zwei ü"}}).read_bytes().splitlines()
    assert [lines[0], lines[2]] == [LINES[0], LINES[2]]
    assert lines[1] == b'{"n": 12345678901234567890, "text": "zwei \\u00fc", "half": "\\ud800"}'


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_lines_are_the_same_bytes_each_time(tmp_path: Path, suffix: str) -> None:
    content = b"\n".join(LINES) + b"\n"
    packed = gzip.compress(content) if suffix == ".gz" else zstandard.ZstdCompressor().compress(content)
    files = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        (folder / f"a.jsonl{suffix}").write_bytes(packed)
        files.append(rewritten(folder / f"a.jsonl{suffix}", {}))
    assert files[0].read_bytes() == files[1].read_bytes()
    (source,) = find_sources([files[0]])
    assert [row.origin.rstrip() for row in read_rows(source, ()) if isinstance(row, Row)] == LINES


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "feather.arrow"])
def test_tables_keep_their_types_metadata_and_other_columns(tmp_path: Path, name: str) -> None:
    original = table_of(table_file(tmp_path / name))
    written = table_of(rewritten(tmp_path / name, {1: {"text": "eins"}}, skip=2))
    assert written.schema.equals(original.schema, check_metadata=True)
    texts = pa.chunked_array([pa.array(["eins", "three"], pa.large_string())])
    assert written.equals(original.take([0, 2]).set_column(1, original.schema.field(1), texts))


def test_a_table_without_rows_left_has_its_schema(tmp_path: Path) -> None:
    file = table_file(tmp_path / "a.parquet", TABLE.slice(0, 0))
    assert table_of(rewritten(file, {})).schema.equals(table_of(file).schema)


def test_provenance_comes_as_columns_of_their_own(tmp_path: Path) -> None:
    file = table_file(tmp_path / "a.parquet")
    edit = {"message": 1, "start": 0, "end": 3, "old": "one", "new": "", "p_old": 0.5, "p_new": None}
    new = {"text": "", "toedit_candidates": 2, "toedit_changed": 1, "toedit_edits": [edit]}
    empty = {"toedit_candidates": 0, "toedit_changed": 0, "toedit_edits": []}
    path = rewritten(file, {1: new, 2: {"text": "two", **empty}, 3: {"text": "3", **empty}}, provenance=True)
    table = table_of(path)
    assert table.column_names == [*SCHEMA.names, "toedit_candidates", "toedit_changed", "toedit_edits"]
    assert table.column("toedit_edits").to_pylist() == [[edit], [], []]
    assert table.schema.metadata == {b"own": b"kept"}
    again = rewritten(path, {n: {"text": "x", **empty} for n in (1, 2, 3)}, provenance=True)
    assert table_of(again).column_names == table.column_names


def test_results_of_an_earlier_version_get_its_columns_anew(tmp_path: Path) -> None:
    old = pa.table({"text": ["one"], "toedit_edits": [[{"start": 0, "end": 3}]]})
    edit = {"message": 1, "start": 0, "end": 3, "old": "one", "new": "", "p_old": 0.5, "p_new": None}
    new = {"text": "", "toedit_candidates": 2, "toedit_changed": 1, "toedit_edits": [edit]}
    table = table_of(rewritten(table_file(tmp_path / "a.parquet", old), {1: new}, provenance=True))
    assert table.to_pylist() == [new]


def test_a_shard_is_seen_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(LINES))
    (source,) = find_sources([file])
    writer = ShardWriter(tmp_path / "out.jsonl", source, False)
    for row in read_rows(source, ()):
        writer.add(row, {})
    assert not writer.path.exists()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        writer.commit()
    writer.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
