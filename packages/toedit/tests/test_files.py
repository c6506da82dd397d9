"""Reading a corpus: every kind of file gives the same rows, and what is broken is told, not lost."""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from toedit.errors import ToEditError
from toedit.files import BadRow, Row, Source, column_names, find_sources, read_rows
from toedit.layouts import TextLayout
from toedit.survey import survey

ROWS = [{"id": f"d{n}", "text": f"Zeile {n}\u2028 naïve 🙂", "n": n / 3} for n in range(2500)]
LINES = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS)


def write(path: Path) -> Path:
    """The rows in the format that the name asks for."""
    if path.name.endswith(".jsonl"):
        path.write_bytes(LINES)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(LINES[:1000]) + gzip.compress(LINES[1000:]))
    elif path.name.endswith(".zst"):
        pieces = LINES[:1000], LINES[1000:]
        path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(piece) for piece in pieces))
    elif path.name.endswith(".parquet"):
        pyarrow.parquet.write_table(TABLE, path, row_group_size=700)
    elif path.name.startswith("feather"):
        pyarrow.feather.write_feather(TABLE, path, chunksize=700)
    else:
        with pyarrow.ipc.new_stream(str(path), TABLE.schema) as stream:
            stream.write_table(TABLE, max_chunksize=700)
    return path


def rows_of(path: Path | str) -> list[Row | BadRow]:
    (source,) = find_sources([path])
    return list(read_rows(source, ("id", "text")))


def reasons(path: Path) -> dict[int, str]:
    return {row.number: row.reason for row in rows_of(path) if isinstance(row, BadRow)}


NAMES = ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow", "feather.arrow")


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_rows_in_order(tmp_path: Path, name: str) -> None:
    rows = rows_of(write(tmp_path / name))
    found = [(row.number, row.values["id"], row.values["text"]) for row in rows if isinstance(row, Row)]
    assert found == [(n, row["id"], row["text"]) for n, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_url_of_fsspec_gives_the_rows_of_the_file_there(tmp_path: Path, name: str) -> None:
    content = write(tmp_path / name).read_bytes()
    fsspec.filesystem("memory").pipe(f"/corpus/{name}", content)
    for url in (f"memory://corpus/{name}", "memory://corpus/*", "memory://corpus"):
        rows = rows_of(url)
        assert [row.values["id"] for row in rows if isinstance(row, Row)] == [row["id"] for row in ROWS]
    fsspec.filesystem("memory").rm("/corpus", recursive=True)


def test_bad_lines_are_told_by_number_and_the_others_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [
        b'\xef\xbb\xbf{"text": "one"}\r',
        b"",
        b'{"text": ',
        b"[1]",
        b'{"text": "\xff"}',
        b'{"text": "six"}',
    ]
    file.write_bytes(b"\n".join(lines))
    rows = rows_of(file)
    assert [row.values for row in rows if isinstance(row, Row)] == [{"text": "one"}, {"text": "six"}]
    told = reasons(file)
    assert list(told) == [3, 4, 5]
    assert told[3].startswith("the line is not JSON: Expecting value")
    assert told[4] == "the line is JSON of type list, not an object"
    assert told[5] == "the line is not UTF-8: byte 10 is 0xff"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_broken_archive_gives_what_comes_before_the_break(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name)
    content = bytearray(file.read_bytes())
    if name == "a.jsonl.gz":  # the end is missing
        content = content[: len(content) // 2]
    elif name == "a.jsonl.zst":  # its second part is no frame
        at = content.index(b"\x28\xb5\x2f\xfd", 4)
        content[at : at + 4] = b"none"
    else:  # its second row group is zeros
        column = pyarrow.parquet.ParquetFile(file).metadata.row_group(1).column(0)
        at = column.dictionary_page_offset or column.data_page_offset
        content[at : at + column.total_compressed_size] = bytes(column.total_compressed_size)
    file.write_bytes(content)
    *rows, last = rows_of(file)
    assert all(isinstance(row, Row) for row in rows[: len(rows) - 1])
    assert isinstance(last, BadRow)
    assert "cannot be read from here on" in last.reason


class Failing:
    """A disk or a network that fails when the second line is read."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        yield LINES.splitlines()[0]
        raise self.error


@pytest.mark.parametrize(
    "error", [TimeoutError("no answer"), ConnectionResetError("gone"), OSError(errno.EIO, "broken disk")]
)
def test_a_failing_disk_or_network_is_no_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Else the job would be complete without the rows beyond."""
    file = write(tmp_path / "a.jsonl")
    monkeypatch.setattr("toedit.files._open_raw", lambda path: Failing(error))
    with pytest.raises(type(error), match=str(error.args[-1])):
        rows_of(file)


@pytest.mark.parametrize("failing", ["isdir", "open", "size"])
def test_a_url_out_of_reach_is_told_whatever_its_library_raises(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Name or service not known")

    system = fsspec.filesystem("memory")
    system.pipe("/far/a.jsonl", b'{"id": 1, "text": ""}')
    monkeypatch.setattr(type(system), failing, offline)
    with pytest.raises(ToEditError, match=r"memory://.*far.*: cannot be reached: Name or service not known;"):
        survey(find_sources(["memory://far/a.jsonl"]), TextLayout(), "id")
    monkeypatch.undo()
    system.rm("/far", recursive=True)


@pytest.mark.parametrize("address", ["nosuch://me:hidden@host/a.jsonl", "memory://me:hidden@nowhere/*"])
def test_the_password_of_an_address_stands_in_no_message(address: str) -> None:
    with pytest.raises(ToEditError, match=r"cannot be reached|no file there") as caught:
        find_sources([address])
    assert "hidden" not in str(caught.value)


def test_folders_patterns_and_files_name_their_sources_without_what_they_share(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl", "a/deep/y.parquet", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [source.stem for source in find_sources([tmp_path])] == ["a/deep/y", "a/x", "b/x"]
    assert [source.stem for source in find_sources([tmp_path / "b", tmp_path / "a"])] == [
        "b/x",
        "a/deep/y",
        "a/x",
    ]
    assert [source.name for source in find_sources([tmp_path / "*" / "x.jsonl"])] == [
        "a/x.jsonl",
        "b/x.jsonl",
    ]
    (only,) = find_sources([tmp_path / "b" / "x.jsonl"])
    assert only == Source(str(tmp_path / "b" / "x.jsonl"), "x", ".jsonl")


def test_no_name_leads_out_of_its_folder_or_holds_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    for name in ("x/a.jsonl", "here/b.jsonl", "c/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(here)
    monkeypatch.setattr("toedit.files._found_remote", lambda entry: [entry])
    url = "https://me:pass@word@host/a.jsonl"
    for inputs, stems in (
        ([tmp_path / "x" / "a.jsonl", "b.jsonl"], ["x/a", "here/b"]),
        (["../c/a.jsonl", "b.jsonl"], ["c/a", "here/b"]),
        (["./b.jsonl"], ["b"]),
        ([url], ["a"]),
        ([url, "b.jsonl"], ["https/host/a", f"{here}/b"[1:]]),
        ([url, "https://host/../../b.jsonl"], ["https/host/a", "b"]),
    ):
        sources = find_sources(inputs)
        assert [source.stem for source in sources] == stems
        assert not [source.name for source in sources if "word" in source.name]
        assert [source.path for source in sources] == list(map(str, inputs))
    with pytest.raises(ToEditError, match=r"here/b\.jsonl is among the inputs twice"):
        find_sources(["b.jsonl", here])


def test_columns_of_a_table_are_known_before_it_is_read(tmp_path: Path) -> None:
    for name in NAMES:
        (source,) = find_sources([write(tmp_path / name)])
        assert column_names(source) == (None if "jsonl" in name else ["id", "text", "n"])


def test_inputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "a.parquet").write_text("no table")
    (tmp_path / "empty").mkdir()
    for inputs, message in (
        (["nowhere.jsonl"], r"nowhere\.jsonl: there is no such file or folder"),
        ([tmp_path / "a.txt"], r"a file that is read ends in one of \.jsonl, \.jsonl\.gz"),
        ([tmp_path / "empty"], "no file in it ends in one of"),
        ([tmp_path / "*.csv"], "no file matches that ends in one of"),
        (["memory://nowhere/*"], "no file there ends in one of"),
        (["nosuch://a/b.jsonl"], "cannot be reached: Protocol not known"),
        ([tmp_path / "a.jsonl", tmp_path / "a.jsonl"], "among the inputs twice"),
        ([tmp_path / "a.jsonl", tmp_path / "a.parquet"], "two inputs are named 'a'"),
    ):
        with pytest.raises(ToEditError, match=message):
            find_sources(inputs)
    with pytest.raises(ToEditError, match=r"a\.parquet is not a file of Parquet"):
        rows_of(tmp_path / "a.parquet")
