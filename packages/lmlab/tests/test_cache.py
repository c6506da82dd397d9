import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmlab.cache import built_once, cache_directory, file_fingerprint, fingerprint

BUILDER = """
import os, sys, time
from pathlib import Path
from lmlab.cache import built_once
sys.stdin.readline()
def build(folder):
    (folder / "builder").write_text(str(os.getpid()))
    time.sleep(0.3)
    (folder / "end").write_text("")
folder = built_once("kind", "name", "key", build)
assert (folder / "end").exists()
print((folder / "builder").read_text())
"""


def test_one_process_builds_and_the_others_wait(empty_cache: Path):
    command = [sys.executable, "-c", BUILDER]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:  # all have started: now all at once
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    builders = {process.communicate()[0].strip() for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert builders <= {str(process.pid) for process in processes}
    assert len(builders) == 1


def test_threads_build_once(empty_cache: Path):
    built: list[Path] = []
    threads = [
        threading.Thread(target=built_once, args=("kind", "name", "key", built.append)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_what_failed_is_not_there_and_is_built_again(empty_cache: Path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        built_once("kind", "name", "key", fail)
    folder = built_once("kind", "name", "key", lambda folder: None)
    assert list(folder.iterdir()) == []  # nothing of the half that was left


def test_names_are_readable_and_stay_inside_the_cache(empty_cache: Path):
    folder = built_once("kind", "file:../../a b/ü.txt", "0123", lambda folder: None)
    assert folder == empty_cache / "lmlab" / "kind" / "file-a-b-txt-0123"


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TENFOLD_CACHE", "~/somewhere")
    assert cache_directory() == Path.home() / "somewhere" / "lmlab"
    monkeypatch.delenv("TENFOLD_CACHE")
    assert cache_directory().parts[-2:] == ("tenfold", "lmlab")


def test_fingerprints_follow_content_alone(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    assert file_fingerprint(one) == file_fingerprint(two)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    before = file_fingerprint(one)
    times = one.stat()
    one.write_text("more text")
    os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file_fingerprint(one) != before
