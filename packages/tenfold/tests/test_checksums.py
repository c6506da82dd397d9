from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tenfold import checksums
from tenfold.checksums import sha256


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read to compute their sum."""
    names: list[str] = []
    compute = hashlib.file_digest

    def counted(file: Any, algorithm: str) -> Any:
        names.append(Path(file.name).name)
        return compute(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this test count as old."""
    monkeypatch.setattr(checksums, "_SETTLED_S", -1.0)


def test_the_sum_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "file", tmp_path / "memory") == expected


@pytest.mark.usefixtures("_settled")
def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    sums = {sha256(tmp_path / "file", tmp_path / "memory") for _ in range(3)}
    assert (len(sums), reads) == (1, ["file"])


@pytest.mark.usefixtures("_settled")
@pytest.mark.skipif(os.name == "nt", reason="has no time of change")
def test_a_change_is_seen_although_size_and_modification_time_are_the_same(tmp_path: Path) -> None:
    file, memory = tmp_path / "file", tmp_path / "memory"
    file.write_bytes(b"abc")
    first, times = sha256(file, memory), file.stat()
    file.write_bytes(b"abd")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sha256(file, memory) == hashlib.sha256(b"abd").hexdigest() != first


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    """Within one tick of the clock a second write leaves no trace in the times."""
    (tmp_path / "file").write_bytes(b"abc")
    sha256(tmp_path / "file", tmp_path / "memory")
    sha256(tmp_path / "file", tmp_path / "memory")
    assert reads == ["file", "file"]


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"state": 1}'])
def test_a_damaged_memory_is_not_believed(tmp_path: Path, reads: list[str], content: bytes) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    before = sha256(tmp_path / "file", tmp_path / "memory")
    (note,) = (tmp_path / "memory").iterdir()
    note.write_bytes(content)
    assert sha256(tmp_path / "file", tmp_path / "memory") == before
    assert reads == ["file", "file"]


@pytest.mark.usefixtures("_settled")
def test_a_memory_that_cannot_be_written_costs_only_time(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "memory").write_bytes(b"a file where the folder should be")
    assert sha256(tmp_path / "file", tmp_path / "memory") == hashlib.sha256(b"abc").hexdigest()
