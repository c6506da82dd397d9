"""Jobs on files of JSON lines: whatever interrupts them, the bytes are those of a job that ran through."""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.jobs import JobSummary, LineJob, Row, Shard

CHUNK = 4
N_ROWS = 11


def read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def work(rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """Lines that depend on all of the chunk, as the last bits of log-probabilities do."""
    chunk = "+".join(row["text"] for row in rows)
    return [{"score": len(row["text"]), "together": chunk} for row in rows]


def job(source: Path, out: Path, **changes: Any) -> LineJob:
    settings = {"settings": {"model": "m"}, "chunk_rows": CHUNK} | changes
    return LineJob(source, out, read, **settings)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [{"id": f"r{n}", "text": "é" * n} for n in range(N_ROWS)])


@pytest.fixture
def whole(source: Path, tmp_path: Path) -> bytes:
    """The output of a job that ran through."""
    out = tmp_path / "whole.jsonl"
    assert job(source, out).run(work) == JobSummary(N_ROWS, N_ROWS)
    return out.read_bytes()


def test_every_row_has_a_line_in_the_order_of_the_input(whole: bytes) -> None:
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["id"] for line in lines] == [f"r{n}" for n in range(N_ROWS)]
    assert [line["score"] for line in lines] == list(range(N_ROWS))
    assert lines[5]["together"] == "é" * 4 + "+" + "é" * 5 + "+" + "é" * 6 + "+" + "é" * 7


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.floats(0, 1))
def test_an_output_cut_at_any_byte_is_completed_to_the_same_bytes(
    source: Path, whole: bytes, tmp_path: Path, cut: float
) -> None:
    out, n_bytes = tmp_path / "out.jsonl", round(cut * len(whole))
    job(source, out).run(work)
    out.write_bytes(whole[:n_bytes])
    n_whole = whole.count(b"\n", 0, n_bytes)
    resumed = job(source, out)
    assert (resumed.n_done, resumed.complete) == (n_whole, n_whole == N_ROWS)
    assert resumed.run(work) == JobSummary(N_ROWS, N_ROWS - n_whole)
    assert out.read_bytes() == whole


def test_a_process_that_was_killed_in_the_middle_is_gone_on_from(
    source: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_jobs import job, work\n"
        "def dies(rows):\n"
        "    if rows[0]['id'] == 'r8':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return work(rows)\n"
        "job(Path(sys.argv[2]), Path(sys.argv[3])).run(dies)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(source), str(out)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert job(source, out).n_done == 8
    assert job(source, out).run(work) == JobSummary(N_ROWS, 3)
    assert out.read_bytes() == whole


def test_a_full_disk_leaves_whole_lines_and_the_job_goes_on(
    source: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    begun = job(source, out)
    n_first = len(b"".join(whole.splitlines(keepends=True)[:6]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_first + 5, hard))  # five bytes of the seventh line fit
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            begun.run(work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.value.errno == errno.EFBIG
    assert out.read_bytes() == whole[:n_first]
    job(source, out).run(work)
    assert out.read_bytes() == whole


def test_an_error_in_a_chunk_leaves_the_chunks_before_it(source: Path, whole: bytes, tmp_path: Path) -> None:
    def fails(rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        if rows[0]["id"] == "r4":
            raise ImplicitPRMError("row 'r5' is too long")
        return work(rows)

    out = tmp_path / "out.jsonl"
    with pytest.raises(ImplicitPRMError, match="too long"):
        job(source, out).run(fails)
    assert job(source, out).n_done == CHUNK
    job(source, out).run(work)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_shards_share_the_rows_and_give_the_same_lines(
    source: Path, whole: bytes, tmp_path: Path, n: int
) -> None:
    outs = [tmp_path / f"{i}.jsonl" for i in range(1, n + 1)]
    done = [job(source, out, shard=Shard(i, n)).run(work) for i, out in enumerate(outs, 1)]
    assert sum(summary.n_rows for summary in done) == N_ROWS
    lines = [line for out in outs for line in out.read_bytes().splitlines()]
    assert sorted(lines) == sorted(whole.splitlines())
    assert job(source, outs[-1], shard=Shard(n, n)).complete


def test_rows_without_an_id_are_numbered_and_appended_rows_are_added(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b"}]), tmp_path / "out.jsonl"
    job(source, out).run(work)
    write(source, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    assert job(source, out).run(work) == JobSummary(3, 1)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["1", "2", "3"]


def test_progress_counts_what_was_done_before(source: Path, whole: bytes, tmp_path: Path) -> None:
    out, seen = tmp_path / "out.jsonl", []
    job(source, out).run(work)
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    job(source, out).run(work, lambda done, total: seen.append((done, total)))
    assert seen == [(4, 11), (8, 11), (11, 11)]


def test_two_processes_do_not_write_to_one_file(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    def tries(rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        with pytest.raises(ImplicitPRMError, match="another process is writing to"):
            job(source, out).run(work)
        return work(rows)

    job(source, out).run(tries)


def test_keys_and_tokens_are_neither_noted_nor_compared_nor_shown(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    note = out.with_name("out.jsonl.job.json")

    def with_key(key: str, **others: Any) -> LineJob:
        return job(source, out, settings={"options": {"api_key": key, "token": key, **others}})

    with_key("sk-first").run(work)
    assert "sk-first" not in note.read_text()
    assert with_key("sk-second").complete
    with pytest.raises(ImplicitPRMError, match="other settings") as refused:
        with_key("sk-second", dtype="auto")
    assert "sk-" not in str(refused.value)
    kept = json.loads(note.read_text())
    kept["settings"]["options"]["api_key"] = "sk-of-an-older-version"
    note.write_text(json.dumps(kept))
    with pytest.raises(ImplicitPRMError, match="other settings") as refused:
        with_key("sk-second", dtype="auto")
    assert "sk-" not in str(refused.value)
    with_key("sk-second").run(work)
    assert "sk-" not in note.read_text()


def _settings(source: Path, out: Path) -> None:
    job(source, out, settings={"model": "other"})


def _shard(source: Path, out: Path) -> None:
    job(source, out, shard=Shard(1, 2))


def _changed(source: Path, out: Path) -> None:
    source.write_text(source.read_text().replace("u00e9", "u00e8"))
    job(source, out)


def _shorter(source: Path, out: Path) -> None:
    write(source, [{"id": "r0", "text": ""}])
    job(source, out)


def _no_note(source: Path, out: Path) -> None:
    out.with_name("out.jsonl.job.json").unlink()
    job(source, out)


def _bad_note(source: Path, out: Path) -> None:
    out.with_name("out.jsonl.job.json").write_text("{")
    job(source, out)


def _other_note(source: Path, out: Path) -> None:
    out.with_name("out.jsonl.job.json").write_text("[]")
    job(source, out)


def _bad_line(source: Path, out: Path) -> None:
    out.write_bytes(b'{"id": "r0"}\nhello\n')
    job(source, out)


def _bad_id(source: Path, out: Path) -> None:
    out.write_bytes(b'{"id": ["r0"]}\n')
    job(source, out)


def _line_twice(source: Path, out: Path) -> None:
    out.write_bytes(b'{"id": "r0"}\n' * 2)
    job(source, out)


def _strange_line(source: Path, out: Path) -> None:
    out.write_bytes(b'{"id": "x"}\n')
    job(source, out)


def _same_file(source: Path, out: Path) -> None:
    job(source, source)


def _folder(source: Path, out: Path) -> None:
    job(source, out.parent)


def _nameless(source: Path, out: Path) -> None:
    job(source, Path("."))


def _no_folder(source: Path, out: Path) -> None:
    job(source, out.parent / "none" / "out.jsonl")


def _no_input(source: Path, out: Path) -> None:
    job(source.with_name("none.jsonl"), out)


def _no_rows(source: Path, out: Path) -> None:
    job(write(source, []), out)


def _id_twice(source: Path, out: Path) -> None:
    job(write(source, [{"id": "a"}, {"id": "b"}, {"id": "a"}]), out)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (_settings, r"made with other settings \(model: 'm' there, 'other' now\); give the same ones"),
        (_shard, r"other settings \(shard: '1/1' there, '1/2' now\)"),
        (_changed, "in.jsonl was changed since .*out.jsonl was begun"),
        (_shorter, "in.jsonl was changed since"),
        (_no_note, "out.jsonl is there already, and out.jsonl.job.json, .* is not"),
        (_bad_note, "job.json is damaged"),
        (_other_note, "job.json is damaged"),
        (_bad_id, "out.jsonl, line 1 is no line of this job"),
        (_bad_line, "out.jsonl, line 2 is no line of this job; delete it"),
        (_line_twice, "out.jsonl, line 2: 'r0' is there twice"),
        (_strange_line, "has the row 'x', which .*in.jsonl has not"),
        (_same_file, "in.jsonl is the input; give another output"),
        (_folder, "is a folder; the output is a file"),
        (_nameless, ". is a folder; the output is a file"),
        (_no_folder, "there is no folder .*none; the output is a file"),
        (_no_input, "there is no file .*none.jsonl"),
        (_no_rows, "in.jsonl has no rows"),
        (_id_twice, "in.jsonl: rows 1 and 3 have the same id 'a'; give every row its own id"),
    ],
)
def test_a_job_that_does_not_fit_is_refused_before_any_work(
    source: Path, tmp_path: Path, mistake: Callable[[Path, Path], None], message: str
) -> None:
    out = tmp_path / "out.jsonl"
    job(source, out).run(work)
    with pytest.raises(ImplicitPRMError, match=message):
        mistake(source, out)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "-1/4"])
def test_a_shard_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ImplicitPRMError, match="1/4"):
        Shard.parse(text)


def test_a_number_that_is_not_finite_is_told_by_its_row(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ImplicitPRMError, match="the row 'r0' cannot be written as JSON: Out of range float"):
        job(source, tmp_path / "out.jsonl").run(lambda rows: [{"score": float("nan")} for _ in rows])
