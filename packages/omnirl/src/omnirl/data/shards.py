"""A data set on disk: a folder of shards, each put in its place whole, checked and mapped into memory.

    settings.json     what the data are, and how many shards there must be
    tasks.npz         the tasks that `task_index` counts in, where they are known
    shard-00000/      observations.npy, tags.npy, actions.npy, rewards.npy, labels.npy, task_index.npy,
    sums.json

A shard is written under another name and renamed when it is complete, so an interrupted run leaves complete
shards only, and a second run makes those that are missing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.data.sequences import STORED, Dataset
from omnirl.errors import OmniRLError, OmniRLWarning
from omnirl.tasks.batch import TaskBatch

SETTINGS = "settings.json"
TASKS = "tasks.npz"
_SUMS = "sums.json"
_AT_ONCE = 2**24


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies."""
    return folder / f"shard-{number:05d}"


def write_shard(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write the columns of `STORED` as the shard `path`, whole or not at all; an existing one is kept."""
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        sums = {}
        for name, kind in STORED.items():
            with open(part / f"{name}.npy", "wb") as file:
                np.save(file, np.ascontiguousarray(columns[name], kind))
                _to_disk(file)
            sums[name] = _checksum(part / f"{name}.npy")
        with open(part / _SUMS, "w") as file:
            json.dump(sums, file)
            _to_disk(file)
        part.chmod(0o755)
        try:
            part.rename(path)
        except OSError:
            if not path.exists():  # else another process has put the same shard there
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_shard(path: Path, *, verify: bool = True) -> dict[str, NDArray[Any]]:
    """The columns of a shard, mapped and not read; `verify` reads them once and compares their checksums.

    Raises:
        OmniRLError: for a file that is missing, cut short or changed.
    """
    try:
        sums = json.loads((path / _SUMS).read_text())
        columns = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in STORED}
    except (OSError, ValueError, EOFError) as error:
        raise OmniRLError(f"shard {path.name} in {path.parent} cannot be read: {error}") from error
    for name in STORED:
        if verify and _checksum(path / f"{name}.npy") != sums.get(name):
            raise OmniRLError(
                f"shard {path.name} in {path.parent} is damaged: {name}.npy has another checksum"
            )
    return columns


def write_settings(folder: Path, settings: Mapping[str, Any], tasks: TaskBatch | None) -> None:
    """Begin a data set, or find the one that was begun with the same settings.

    Raises:
        OmniRLError: the folder holds a data set of other settings, or other things.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SETTINGS).exists():
        found = read_settings(folder)
        for key in settings.keys() | found.keys():
            if settings.get(key) != found.get(key):
                raise OmniRLError(
                    f"{folder} holds a data set with {key} = {found.get(key)!r}, not {settings.get(key)!r}; "
                    "use another folder, or remove it"
                )
        return
    foreign = [path.name for path in folder.iterdir() if path.name != TASKS and not path.name.startswith(".")]
    if foreign:
        raise OmniRLError(f"{folder} is not empty (it holds {sorted(foreign)[0]!r}) and no data set of ours")
    if tasks is not None:
        tasks.save(folder / TASKS)
    part = folder / f".{SETTINGS}.part"
    part.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    part.replace(folder / SETTINGS)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the data set in `folder`; `OmniRLError` if it holds none."""
    try:
        return dict(json.loads((folder / SETTINGS).read_text()))
    except (OSError, ValueError) as error:
        raise OmniRLError(f"{folder} holds no data set: {SETTINGS} cannot be read ({error})") from error


def load_dataset(folder: str | Path, *, keep_going: bool = False, verify: bool = True) -> Dataset:
    """The data set in `folder`, its columns mapped into memory.

    Args:
        folder: as `synthesize(out=)` or `save_dataset` wrote it.
        keep_going: leave out shards that are missing or damaged, with one `OmniRLWarning` each.
        verify: compare the checksums, which reads all files once.

    Raises:
        OmniRLError: no data set, or a shard that is missing or damaged.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    parts = []
    for number in range(settings["num_shards"]):
        try:
            parts.append(read_shard(shard_path(folder, number), verify=verify))
        except OmniRLError as error:
            if not keep_going:
                raise OmniRLError(f"{error}; synthesize makes it anew, keep_going leaves it out") from error
            warnings.warn(f"left out: {error}", OmniRLWarning, stacklevel=2)
    if not parts:
        raise OmniRLError(f"{folder} has no shard that can be read")
    tasks = TaskBatch.load(folder / TASKS) if (folder / TASKS).exists() else None
    return Dataset(parts, settings["num_observations"], settings["num_actions"], tasks, settings)


def save_dataset(dataset: Dataset, folder: str | Path) -> None:
    """Write a data set, a shard for each of its parts; `OmniRLError` if the folder holds another one."""
    folder = Path(folder)
    sizes = {"num_observations": dataset.num_observations, "num_actions": dataset.num_actions}
    settings = {**dataset.settings, **sizes, "num_shards": len(dataset.parts)}
    write_settings(folder, json.loads(json.dumps(settings)), dataset.tasks)
    for number, part in enumerate(dataset.parts):
        write_shard(shard_path(folder, number), part)


def missing_shards(folder: Path, count: int) -> Iterator[int]:
    """The numbers of the shards that are not there; damaged ones are removed, with a warning, and count."""
    for number in range(count):
        path = shard_path(folder, number)
        if path.exists():
            try:
                read_shard(path)
                continue
            except OmniRLError as error:
                warnings.warn(f"made anew: {error}", OmniRLWarning, stacklevel=2)
                shutil.rmtree(path)
        yield number


def _checksum(path: Path) -> int:
    total = 0
    with open(path, "rb") as file:
        while block := file.read(_AT_ONCE):
            total = zlib.crc32(block, total)
    return total


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
