"""Jobs that are interrupted and resumed: the results are the uninterrupted ones, byte for byte.

The file is also the program that the tests kill: `python test_resume.py FOLDER HOW COUNT`.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from toedit import commits
from toedit.config import EditConfig
from toedit.documents import Document, EditFailure, EditResult
from toedit.errors import ToEditError
from toedit.job import EditJob, JobSettings, JobSummary
from toedit.splicing import Edit
from toedit.statistics import EditStats

SETTINGS = JobSettings(EditConfig(), "fake", provenance=True, shard_rows=5)
N_LINES, N_TABLE = 23, 12

commits.CHUNK = 2


class FakeEditor:
    """Writes the first letter large, refuses every seventh document, and logs what it works on."""

    config, second = SETTINGS.config, None

    def __init__(self, log: Path, before: Callable[[int], None] = lambda n: None) -> None:
        self.log, self.before = log, before
        self.tokenizer = SimpleNamespace(base=None)
        self.count = itertools.count()

    def edit_stream(
        self, documents: Iterable[Document], buffer: int = 1
    ) -> Iterator[EditResult | EditFailure]:
        for document in documents:
            self.before(next(self.count))
            with self.log.open("a") as log:
                log.write(f"{document.doc_id}\n")
            if int(str(document.doc_id)[1:]) % 7 == 6:
                yield EditFailure(document.doc_id, "seven")
                continue
            edit = Edit(0, 1, document.text[0], document.text[0].upper(), 0.995, float("nan"))
            counts = {"n_documents": 1, "n_tokens": 9, "n_scored": 8, "n_candidates": 2, "n_changed": 1}
            stats = EditStats(**counts, log_p_units=-(2**34))
            text = edit.new + document.text[1:]
            yield EditResult(document.doc_id, text, np.zeros(9, np.int64), [edit], stats)


def make_corpus(folder: Path) -> Path:
    """Two files, one with a line that is no JSON."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    rows = [{"id": f"a{n}", "text": f"line {n}\u2028 of the text ✓", "n": n} for n in range(N_LINES)]
    lines = [json.dumps(row).encode() for row in rows]
    lines[11] = lines[11][:-5]
    (corpus / "a.jsonl").write_bytes(b"\n".join(lines))
    table = [{"id": f"b{n}", "text": f"row {n}", "n": n / 7} for n in range(N_TABLE)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), corpus / "b.parquet")
    return corpus


def run(folder: Path, before: Callable[[int], None] = lambda n: None) -> JobSummary:
    """Go on with the job of a folder."""
    editor: Any = FakeEditor(folder / "log.txt", before)
    return EditJob([folder / "corpus"], folder / "out", SETTINGS, resume=True).run(editor)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    make_corpus(folder)
    summary = run(folder)
    assert (summary.n_shards, summary.n_quarantined) == (5 + 3, 1 + 4)
    files = files_of(folder / "out")
    assert len(files) == 5 + 3 + 5
    assert files["journal.jsonl"] == b""
    assert b"Line 22\xe2\x80\xa8 of the text" in files["data/a-00004.jsonl"]
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_corpus(tmp_path)
    return tmp_path


def child(folder: Path, how: str, count: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, str(folder), how, str(count)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def edited_twice(folder: Path) -> int:
    ids = (folder / "log.txt").read_text().split()
    return len(ids) - len(set(ids))


@pytest.mark.slow
def test_a_job_killed_again_and_again_gives_the_uninterrupted_results(
    folder: Path, uninterrupted: dict[str, bytes]
) -> None:
    # Before its n-th file is made safe or put in place: with n from 1 up, before each step of a commit.
    for count in range(1, 9):
        ended = child(folder, "commit", count)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    ended = child(folder, "document", 5)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    run(folder)
    assert files_of(folder / "out") == uninterrupted


def test_after_ctrl_c_only_a_begun_chunk_is_edited_again(
    folder: Path, uninterrupted: dict[str, bytes]
) -> None:
    ended = child(folder, "interrupt", 3)
    assert ended.returncode != 0
    assert "KeyboardInterrupt" in ended.stderr
    assert (folder / "out" / "journal.jsonl").read_bytes().count(b"\n") == 3
    run(folder)
    assert files_of(folder / "out") == uninterrupted
    assert edited_twice(folder) == 1  # the third


@pytest.mark.parametrize("n_bytes", [500, 1500])
def test_after_a_full_disk_the_job_goes_on(
    folder: Path, uninterrupted: dict[str, bytes], n_bytes: int
) -> None:
    ended = child(folder, "full", n_bytes)  # the system refuses to let a file grow beyond
    assert ended.returncode == 1
    assert "OSError: [Errno 27] File too large" in ended.stderr
    assert not list((folder / "out").rglob("*.part"))
    run(folder)
    assert files_of(folder / "out") == uninterrupted


def interrupt_at(count: int) -> Callable[[int], None]:
    def before(n: int) -> None:
        if n == count:
            raise KeyboardInterrupt

    return before


@pytest.mark.parametrize("name", ["journal.jsonl", "manifest.jsonl", "documents.jsonl", "quarantine.jsonl"])
def test_half_a_line_at_the_end_of_a_growing_file_is_cut_off(
    folder: Path, uninterrupted: dict[str, bytes], name: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, interrupt_at(13))
    path = folder / "out" / name
    path.write_bytes(path.read_bytes() + b'{"source": 0, "ro')
    (folder / "out" / "data" / "a-00002.jsonl.part").write_text("half")
    run(folder)
    assert files_of(folder / "out") == uninterrupted


def test_a_process_that_dies_between_manifest_and_journal_repeats_nothing(
    folder: Path, uninterrupted: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, interrupt_at(4))
    journal = (folder / "out" / "journal.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(folder, interrupt_at(3))
    (folder / "out" / "journal.jsonl").write_bytes(journal)  # of a shard that is finished
    run(folder)
    assert files_of(folder / "out") == uninterrupted


def test_results_within_the_corpus_are_none_of_its_files(
    folder: Path, uninterrupted: dict[str, bytes]
) -> None:
    corpus, out = folder / "corpus", folder / "corpus" / "out"

    def go_on(before: Callable[[int], None] = lambda n: None) -> None:
        editor: Any = FakeEditor(folder / "log.txt", before)
        EditJob([corpus], out, SETTINGS).run(editor)

    with pytest.raises(KeyboardInterrupt):
        go_on(interrupt_at(13))
    go_on()
    assert files_of(out) == uninterrupted
    for inputs in (corpus, corpus / "**" / "*"):
        assert EditJob([inputs], out, SETTINGS).complete
    for inputs in (out, out / "data" / "*", out / "data" / "a-00000.jsonl"):
        with pytest.raises(ToEditError, match="is in the folder of results"):
            EditJob([inputs], out, SETTINGS)


def test_a_finished_job_is_left_as_it_is(folder: Path, uninterrupted: dict[str, bytes]) -> None:
    first = run(folder)
    again = run(folder)
    assert again.stats == first.stats
    assert (first.n_tokens_now, again.n_tokens_now) == (9 * (N_LINES + N_TABLE - 5), 0)
    assert files_of(folder / "out") == uninterrupted


def main(folder: Path, how: str, count: int) -> None:
    """Run the job and end as `how` says."""
    calls = 0

    def kill_at_count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)

    if how == "commit":
        for name in ("fsync", "replace"):
            original = getattr(os, name)
            setattr(os, name, lambda *a, original=original: (kill_at_count(), original(*a))[1])
    if how == "full":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))
    if how == "document":
        run(folder, kill_at_count)
    elif how == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
        run(folder, lambda n: os.kill(os.getpid(), signal.SIGINT) if n == count else None)
    else:
        run(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
