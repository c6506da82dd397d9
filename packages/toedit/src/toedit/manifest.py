"""What a job has done, in a file that grows by one line a shard: `manifest.jsonl`.

The first line holds the settings and the inputs, the last one says that the job is complete. A shard counts
when its line is there with its end; the line also says how long the other growing files were then, so that
whatever was written after it can be cut off.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from toedit.errors import ToEditError
from toedit.secrecy import without_secrets
from toedit.shards import json_line, sync_folder
from toedit.statistics import EditStats

MANIFEST = "manifest.jsonl"
DATA = "data"
DOCUMENTS = "documents.jsonl"
QUARANTINE = "quarantine.jsonl"
JOURNAL = "journal.jsonl"
REPORT = "report.html"
"""What a job leaves in its folder; see `toedit.job`."""
_FORMAT = 1


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    shard          its path in the job's folder
    source         the number of the input, from 0
    first, last    the rows of the input that it covers, counted from 1
    n_documents    rows that it has
    n_quarantined  rows that it lacks
    lengths        bytes of the growing files when it was finished
    examples       a few of its edits, as `toedit.job_report` shows them
    """

    shard: str
    source: int
    first: int
    last: int
    n_documents: int
    n_quarantined: int
    n_bytes: int
    sha256: str
    lengths: dict[str, int]
    stats: EditStats
    examples: list[dict[str, str]]


@dataclass(frozen=True)
class JobState:
    """A manifest that was read: the settings and inputs of the job, its finished shards."""

    header: dict[str, Any]
    shards: tuple[ShardRecord, ...]
    complete: bool

    @property
    def stats(self) -> EditStats:
        """The statistics of all finished shards together."""
        return EditStats().merge(*(record.stats for record in self.shards))

    @property
    def n_quarantined(self) -> int:
        """Rows that are in `quarantine.jsonl`."""
        return sum(record.n_quarantined for record in self.shards)


def read_manifest(folder: str | Path) -> JobState:
    """The state of the job whose results are in `folder`.

    Raises `ToEditError` if there is none, or one of another version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ToEditError(f"{folder} holds no results of `toedit edit`: there is no {MANIFEST} in it")
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    if not whole:
        return JobState({}, (), False)
    try:
        first, *lines = [json.loads(line) for line in whole.split(b"\n")]
        if first["toedit"] != _FORMAT:
            raise ToEditError(f"{path} was written by another version of toedit (format {first['toedit']})")
        complete = bool(lines) and "complete" in lines[-1]
        records = [_record(line) for line in (lines[:-1] if complete else lines)]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ToEditError):
            raise
        raise ToEditError(f"{path} is damaged ({error!r}); delete the folder and start again") from error
    return JobState(first, tuple(records), complete)


def check_folder(folder: Path, header: Mapping[str, Any], resume: bool) -> JobState:
    """The state of the job that `folder` holds; an empty one where it holds nothing yet, or without `resume`.

    Raises `ToEditError` if the folder has contents that are no job's, and with `resume` if the job has other
    settings, showing the differences.
    """
    if folder.exists() and not folder.is_dir():
        raise ToEditError(f"{folder} is a file; --out is a folder")
    if not (folder / MANIFEST).exists():
        if folder.exists() and any(folder.iterdir()):
            raise ToEditError(f"{folder} is not empty and holds no results of toedit; give another folder")
        return JobState({}, (), False)
    state = read_manifest(folder)
    if not resume:
        return JobState({}, (), False)
    different = differences(without_secrets(state.header), _header(header)) if state.header else []
    if different:
        raise ToEditError(
            f"{folder} holds results of other settings; give another folder, or start anew with --no-resume "
            "(resume=False). Different are:\n" + "\n".join(f"  {line}" for line in different)
        )
    return state


class Manifest:
    """The manifest of a job that is running; while it is open, no other process can open it.

    Without `resume` what an earlier job left in the folder is removed.

    Raises `ToEditError` as `check_folder` does, and if another process writes to the folder.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], resume: bool) -> None:
        check_folder(folder, header, resume)
        path = folder / MANIFEST
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab")  # noqa: SIM115
        _lock(self._file, folder)
        self.state = read_manifest(folder)
        if self.state.header and not resume:
            _clear(folder)
            self._file.truncate(0)
            self.state = JobState({}, (), False)
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)
        if not self.state.header:
            self._append(_header(header))
            sync_folder(folder)
            self.state = JobState(_header(header), (), False)

    def add(self, record: ShardRecord) -> None:
        """Note a finished shard."""
        self._append({**asdict(record), "stats": record.stats.to_dict()})
        self.state = replace(self.state, shards=(*self.state.shards, record))

    def finish(self) -> None:
        """Note that all is done."""
        self._append({"complete": True, "n_shards": len(self.state.shards)})
        self.state = replace(self.state, complete=True)

    def close(self) -> None:
        """Let other processes in."""
        self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json_line(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _clear(folder: Path) -> None:
    """Remove what a job left, the manifest last by who calls: until then it says whose the folder is."""
    shutil.rmtree(folder / DATA, ignore_errors=True)
    for name in (DOCUMENTS, QUARANTINE, JOURNAL, REPORT):
        (folder / name).unlink(missing_ok=True)


def _header(header: Mapping[str, Any]) -> dict[str, Any]:
    """As it is when it was written and read."""
    return {"toedit": _FORMAT, **json.loads(json_line(header))}


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each value that is not the same in both."""
    old, new = _flat(there), _flat(now)
    return [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} now"
        for key in {**old, **new}
        if _shown(old, key) != _shown(new, key)
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "nothing"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}" if prefix else str(key), part) for key, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        items = [(f"{prefix}[{index}]", part) for index, part in enumerate(value)]
    else:
        return {prefix: value}
    return {key: leaf for name, part in items for key, leaf in _flat(part, name).items()}


def _record(line: Mapping[str, Any]) -> ShardRecord:
    return ShardRecord(**{**line, "stats": EditStats.from_dict(line["stats"])})


def _lock(file: Any, folder: Path) -> None:
    """The lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ToEditError(
            f"another process is writing to {folder}; wait for it or give another folder"
        ) from None
