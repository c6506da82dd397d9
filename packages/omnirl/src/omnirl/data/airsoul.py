"""The official folder format (airsoul): `record-000000/` with a .npy file a column, uint32 or float32.

The filler step has label A there, where ours is -100; `prompts` names the reference policy (3, opt3; 7 in the
filler step) and is written, not read: later official code has one reference only.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.data.sequences import COLUMNS, IGNORED, UNKNOWN, Dataset, check_sequence, filler_steps
from omnirl.errors import OmniRLError, OmniRLWarning

_FILES = {
    "observations": "observations",
    "tags": "tags",
    "actions": "actions_behavior",
    "rewards": "rewards",
    "labels": "actions_label",
}
_REFERENCE_PROMPT = 3


def write_airsoul(dataset: Dataset, folder: str | Path) -> None:
    """Write every sequence of `dataset` as a record of `folder`, each of them whole or not at all.

    Raises:
        OmniRLError: a record is there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, sequence in enumerate(dataset):
        path = folder / f"record-{number:06d}"
        if path.exists():
            raise OmniRLError(f"{path} is there already; use another folder")
        filler = sequence["actions"] == dataset.num_actions
        columns = {name: sequence[ours] for ours, name in _FILES.items()}
        columns["actions_label"] = np.where(
            columns["actions_label"] < 0, dataset.num_actions, columns["actions_label"]
        )
        columns["prompts"] = np.where(filler, UNKNOWN, _REFERENCE_PROMPT)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=folder))
        try:
            for name, column in columns.items():
                np.save(part / f"{name}.npy", column.astype(np.float32 if name == "rewards" else np.uint32))
            part.chmod(0o755)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read_airsoul(
    folder: str | Path,
    *,
    num_actions: int | None = None,
    num_observations: int | None = None,
    keep_going: bool = False,
) -> Dataset:
    """Read the records of `folder`, in the order of their names, into memory.

    Shorter records are filled up with filler steps to the longest (official ones differ by a step or two).
    `task_index` is the number in the record's name.

    Args:
        folder: with `record-*` folders.
        num_actions: A; None takes the action of the filler steps.
        num_observations: n; None takes the largest observation and one.
        keep_going: leave out records that are not whole, with one `OmniRLWarning` each.

    Raises:
        OmniRLError: no records, one that is not whole, or no filler step to tell A.
    """
    folder = Path(folder)
    if not folder.exists():
        raise OmniRLError(f"{folder}: there is no such file or folder")
    records = {}
    for path in sorted(folder.glob("record-*")):
        try:
            records[path.name] = _read_record(path)
        except OmniRLError as error:
            if not keep_going:
                raise OmniRLError(f"{error}; keep_going leaves it out") from error
            warnings.warn(f"left out: {error}", OmniRLWarning, stacklevel=2)
    if not records:
        raise OmniRLError(f"{folder} has no record-* folder that can be read")
    actions = _num_actions(records, folder) if num_actions is None else num_actions
    length = max(len(record["actions"]) for record in records.values())
    sequences = [_sequence(name, record, actions, length) for name, record in records.items()]
    most = max(int(sequence["observations"].max(initial=0)) for sequence in sequences) + 1
    return Dataset.from_sequences(sequences, most if num_observations is None else num_observations, actions)


def _read_record(path: Path) -> dict[str, NDArray[Any]]:
    record = {}
    for ours, name in _FILES.items():
        try:
            column = np.load(path / f"{name}.npy")
        except (OSError, ValueError, EOFError) as error:
            raise OmniRLError(f"{path} is not whole: {name}.npy cannot be read ({error})") from error
        record[ours] = column.astype(np.float32 if ours == "rewards" else np.int64)
    shapes = {name: column.shape for name, column in record.items()}
    if len(set(shapes.values())) > 1 or record["actions"].ndim != 1:
        listed = ", ".join(f"{_FILES[name]} {shape}" for name, shape in shapes.items())
        raise OmniRLError(f"{path} is not whole: the columns differ in length: {listed}")
    return record


def _num_actions(records: dict[str, dict[str, NDArray[Any]]], folder: Path) -> int:
    """The action of the steps that look like fillers: tag 7, reward 0, and the label is the action itself."""
    found = set()
    for record in records.values():
        largest = record["actions"].max(initial=-1)
        filler = (record["actions"] == largest) & (record["labels"] == largest)
        if filler.any() and (record["tags"][filler] == UNKNOWN).all() and not record["rewards"][filler].any():
            found.add(int(largest))
    if not found:
        raise OmniRLError(f"no record in {folder} has a filler step; say num_actions")
    return max(found)


def _sequence(name: str, record: dict[str, NDArray[Any]], num_actions: int, length: int) -> dict[str, Any]:
    labels = record["labels"]
    sequence = {**record, "labels": np.where(labels == num_actions, IGNORED, labels)}
    check_sequence(sequence, num_actions, name)
    padding = filler_steps(length - len(labels), num_actions)
    number = name.removeprefix("record-")
    return {
        **{column: np.concatenate([sequence[column], padding[column]]) for column in COLUMNS},
        "task_index": int(number) if number.isdecimal() else -1,
    }
