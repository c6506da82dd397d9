import math
import os
from pathlib import Path

import pytest

from tenfold.storage import Stored, free_name, move_aside, read_json, write_atomically, write_json


class Point(Stored):
    x: float
    names: tuple[str, ...] = ()


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "folder" / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == 0o644


def test_numbers_survive_the_file_exactly(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    for x in (0.1 + 0.2, 1e-320, math.inf, -math.inf):
        write_json(path, Point(x=x))
        assert read_json(path, Point, pytest.fail) == Point(x=x)
    write_json(path, Point(x=math.nan))
    read = read_json(path, Point, pytest.fail)
    assert read is not None
    assert math.isnan(read.x)


@pytest.mark.parametrize(
    "content", [b"", b'{"x": 1', b"\xff\xfe\x00", b'{"y": 1}', b'{"x": 1, "z": 2}', b"[]", b'{"x": "much"}']
)
def test_a_damaged_file_is_moved_aside_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "point.json"
    path.write_bytes(content)
    told: list[str] = []
    assert read_json(path, Point, told.append) is None
    assert len(told) == 1
    assert str(path) in told[0]
    assert "moved to point.json.damaged-1" in told[0]
    assert not path.exists()
    assert (tmp_path / "point.json.damaged-1").read_bytes() == content


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    assert read_json(tmp_path / "point.json", Point, pytest.fail) is None


def test_free_names_count_up(tmp_path: Path) -> None:
    path = tmp_path / "quick"
    for number in (1, 2, 3):
        path.mkdir()
        assert move_aside(path, "old").name == f"quick.old-{number}"
    (tmp_path / "quick.old-9").mkdir()
    (tmp_path / "quick.old-x").mkdir()
    assert free_name(path, "old").name == "quick.old-10"
