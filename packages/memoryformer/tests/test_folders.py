"""Folders that are written whole or not at all, and refused before the work where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from memoryformer import MemoryFormerError
from memoryformer.folders import check_folder, check_new_folder, whole_folder


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_folder_is_there_when_all_of_it_is(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "above" / "made"
    if there:
        target.mkdir(parents=True)
    with whole_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("whole")
        assert not list(target.iterdir()) if there else not target.exists()
        assert folder.stat().st_dev == tmp_path.stat().st_dev  # so that it can be renamed
    assert (target / "inner" / "file").read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode == tmp_path.joinpath("above").stat().st_mode  # as mkdir makes it


@pytest.mark.parametrize("problem", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_nothing(problem: type[BaseException], tmp_path: Path) -> None:
    def write() -> None:
        with whole_folder(tmp_path / "made") as folder:
            (folder / "half").write_text("half")
            raise problem

    with pytest.raises(problem):
        write()
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_and_a_full_folder_are_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "deep" / "er"):
        with pytest.raises(MemoryFormerError, match=f"{file} is a file; OUT is the folder"):
            check_folder(folder, "OUT")
    check_folder(tmp_path, "OUT")
    with pytest.raises(MemoryFormerError, match=f"{tmp_path} is there already and not empty"):
        check_new_folder(tmp_path, "OUT")
    check_new_folder(tmp_path / "new", "OUT")
