"""metrics.jsonl: one line a measurement or a finished trial, appended by the trials themselves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from pydantic import ConfigDict, JsonValue, ValidationError, model_validator

from tenfold.storage import Stored, Tell, first_problem, free_name, write_atomically
from tenfold.trials import Trial, TrialKey

Curve: TypeAlias = tuple[list[int], list[float]]


class Record(Stored):
    """One line: either `step` and `metrics`, or, when the trial has ended, its `result`."""

    model_config = ConfigDict(strict=True)

    arm: str
    seed: int
    stage: str = ""
    settings_hash: str
    step: int | None = None
    metrics: dict[str, float] | None = None
    result: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _is_measurement_or_result(self) -> Record:
        measurement = self.step is not None and self.metrics is not None
        if measurement == (self.result is not None) or (self.step is None) != (self.metrics is None):
            raise ValueError("a record has either step and metrics, or result")
        return self

    @property
    def key(self) -> TrialKey:
        """Which trial wrote it."""
        return TrialKey(self.arm, self.seed, self.stage, self.settings_hash)


def record_of(
    trial: Trial,
    *,
    step: int | None = None,
    metrics: dict[str, float] | None = None,
    result: dict[str, JsonValue] | None = None,
) -> Record:
    """Return a record of `trial`."""
    return Record(**trial.key._asdict(), step=step, metrics=metrics, result=result)


def append_record(path: Path, record: Record) -> None:
    """Append one line with one write, and wait until it is on the disk.

    O_APPEND makes the lines of trials that run side by side follow each other and never mix.
    """
    line = (record.model_dump_json(exclude_none=True) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        written = os.write(descriptor, line)
        if written != len(line):
            raise OSError(f"{path}: only {written} of {len(line)} bytes could be written (disk full?)")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Records:
    """The measurements of a run. A step that a resumed trial logged twice counts once, the last time."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._measurements: dict[tuple[TrialKey, int], dict[str, float]] = {}
        self._results: dict[TrialKey, dict[str, JsonValue]] = {}
        for record in records:
            if record.result is not None:
                self._results[record.key] = record.result
            elif record.step is not None and record.metrics is not None:
                self._measurements[record.key, record.step] = record.metrics

    def __iter__(self) -> Iterator[tuple[TrialKey, int, dict[str, float]]]:
        """Iterate over (trial key, step, metrics)."""
        return ((key, step, metrics) for (key, step), metrics in self._measurements.items())

    def results(self) -> dict[TrialKey, dict[str, JsonValue]]:
        """Return the results of the finished trials."""
        return dict(self._results)

    def arms(self, stage: str | None = None) -> list[str]:
        """Return the arms in the order of their first record; with `stage`, those of that stage."""
        keys = [key for key, _ in self._measurements] + list(self._results)
        return list(dict.fromkeys(key.arm for key in keys if stage is None or key.stage == stage))

    def curve(
        self, arm: str, metric: str, stage: str = "", settings_hash: str | None = None
    ) -> dict[int, Curve]:
        """Return {seed: (steps, values)} of `metric`, steps rising; seeds that never logged it are absent.

        Raises `ValueError` if trials of several settings share arm, seed and stage and `settings_hash`
        (`Trial.settings_hash`) does not say which is meant.
        """
        chosen: dict[TrialKey, dict[int, float]] = {}
        for key, step, metrics in self:
            if (key.arm, key.stage) == (arm, stage) and settings_hash in (None, key.settings_hash):
                if metric in metrics:
                    chosen.setdefault(key, {})[step] = metrics[metric]
        if len({key.seed for key in chosen}) != len(chosen):
            hashes = ", ".join(sorted({key.settings_hash for key in chosen}))
            raise ValueError(
                f"arm {arm!r} ran with several settings in stage {stage!r}; give settings_hash, one of {hashes}"
            )
        ordered = {key.seed: dict(sorted(values.items())) for key, values in chosen.items()}
        return {seed: (list(ordered[seed]), list(ordered[seed].values())) for seed in sorted(ordered)}

    def restricted_to(self, keys: Iterable[TrialKey]) -> Records:
        """Return the records of these trials only."""
        wanted = set(keys)
        chosen = Records()
        chosen._measurements = {k: v for k, v in self._measurements.items() if k[0] in wanted}
        chosen._results = {k: v for k, v in self._results.items() if k in wanted}
        return chosen


def load_records(path: Path, tell: Tell) -> Records:
    """Read metrics.jsonl; a missing file has no records.

    At the first line that is cut off, is not JSON or has another schema, the file is kept aside as
    `metrics.jsonl.damaged-<n>`, a new one is started from the sound lines before it, and `tell` is told.
    """
    if not path.exists():
        return Records()
    *lines, rest = path.read_bytes().split(b"\n")
    records: list[Record] = []
    for line in lines:
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            _keep_sound_lines(path, lines[: len(records)], first_problem(error), tell)
            return Records(records)
    if rest:
        _keep_sound_lines(path, lines, "the line is cut off", tell)
    return Records(records)


def _keep_sound_lines(path: Path, sound: list[bytes], problem: str, tell: Tell) -> None:
    aside = free_name(path, "damaged")
    shutil.copyfile(path, aside)  # a copy first, so that a crash here loses nothing
    write_atomically(path, b"".join(line + b"\n" for line in sound))
    tell(
        f"{path} is damaged at line {len(sound) + 1} ({problem}); it was moved to {aside.name}. "
        f"{len(sound)} sound records before it were kept; trials with no sound result run again."
    )
