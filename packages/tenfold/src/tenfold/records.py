"""metrics.jsonl: one line a measurement or a finished trial, appended by the trials themselves."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pydantic import ConfigDict, JsonValue, ValidationError, model_validator

from tenfold.storage import Stored, Tell, append_line, first_problem, free_name, write_atomically
from tenfold.trials import Trial, TrialKey

Curve: TypeAlias = tuple[list[int], list[float]]


class Record(Stored):
    """One line: `step` and `metrics`, or, when the trial has ended, its `settings` and `result`."""

    model_config = ConfigDict(strict=True)

    arm: str
    seed: int
    stage: str = ""
    settings_hash: str
    step: int | None = None
    metrics: dict[str, float] | None = None
    settings: dict[str, JsonValue] | None = None
    result: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _is_measurement_or_result(self) -> Record:
        parts = [self.step is not None, self.metrics is not None]
        parts += [self.settings is not None, self.result is not None]
        if parts not in ([True, True, False, False], [False, False, True, True]):
            raise ValueError("a record has either step and metrics, or settings and result")
        if self.result is not None and self.trial.settings_hash != self.settings_hash:
            raise ValueError("settings_hash is not that of the settings")
        return self

    @property
    def key(self) -> TrialKey:
        """Which trial wrote it."""
        return TrialKey(self.arm, self.seed, self.stage, self.settings_hash)

    @property
    def trial(self) -> Trial:
        """The trial that ended; only a record with a result has its settings."""
        return Trial(self.arm, self.seed, self.settings or {}, self.stage)


def measurement_of(trial: Trial, step: int, metrics: dict[str, float]) -> Record:
    """Return the record of one measurement of `trial`."""
    return Record(**trial.key._asdict(), step=step, metrics=metrics)


def result_of(trial: Trial, result: dict[str, JsonValue]) -> Record:
    """Return the record of the end of `trial`."""
    return Record(**trial.key._asdict(), settings=dict(trial.settings), result=result)


def append_record(path: Path, record: Record) -> None:
    """Append one line; it is on the disk when this returns. Raises `OSError` naming the file."""
    append_line(path, record.model_dump_json(exclude_unset=True), sync=True)


class Records:
    """The measurements of a run. A step that a resumed trial logged twice counts once, the last time."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._measurements: dict[TrialKey, dict[int, dict[str, float]]] = {}
        self._results: dict[Trial, dict[str, JsonValue]] = {}
        for record in records:
            if record.result is not None:
                self._results[record.trial] = record.result
            elif record.step is not None and record.metrics is not None:
                self._measurements.setdefault(record.key, {})[record.step] = record.metrics

    def __iter__(self) -> Iterator[tuple[TrialKey, int, dict[str, float]]]:
        """Iterate over (trial key, step, metrics), the steps of a trial rising."""
        for key, steps in self._measurements.items():
            for step in sorted(steps):
                yield key, step, steps[step]

    def results(self) -> dict[Trial, dict[str, Any]]:
        """Return {trial: result} of the finished trials."""
        return dict(self._results)

    def arms(self, stage: str | None = None) -> list[str]:
        """Return the arms in the order of their first record; with `stage`, those of that stage."""
        keys = [*self._measurements, *(trial.key for trial in self._results)]
        return list(dict.fromkeys(key.arm for key in keys if stage is None or key.stage == stage))

    def curves(
        self, arm: str, stage: str = "", settings_hash: str | None = None
    ) -> dict[int, dict[str, list[float]]]:
        """Return {seed: {"step": steps, metric: values}}, steps rising; NaN where a step lacks the metric.

        Raises `ValueError` if trials of several settings share arm, seed and stage and `settings_hash`
        (`Trial.settings_hash`) does not say which is meant.
        """
        chosen = self._steps_by_seed(arm, stage, settings_hash)
        return {seed: _columns(steps) for seed, steps in chosen.items()}

    def curve(
        self, arm: str, metric: str, stage: str = "", settings_hash: str | None = None
    ) -> dict[int, Curve]:
        """Return {seed: (steps, values)} of one metric, steps rising, only steps that logged it.

        A seed that never logged it is absent. Raises `ValueError` as `curves` does.
        """
        found: dict[int, Curve] = {}
        for seed, steps in self._steps_by_seed(arm, stage, settings_hash).items():
            logged = {step: metrics[metric] for step, metrics in steps.items() if metric in metrics}
            if logged:
                found[seed] = (list(logged), list(logged.values()))
        return found

    def restricted_to(self, trials: Iterable[Trial]) -> Records:
        """Return the records of these trials only."""
        keys = {trial.key for trial in trials}
        chosen = Records()
        chosen._measurements = {key: steps for key, steps in self._measurements.items() if key in keys}
        chosen._results = {trial: result for trial, result in self._results.items() if trial.key in keys}
        return chosen

    def _steps_by_seed(
        self, arm: str, stage: str, settings_hash: str | None
    ) -> dict[int, dict[int, dict[str, float]]]:
        keys = [
            key
            for key in sorted(self._measurements)
            if (key.arm, key.stage) == (arm, stage) and settings_hash in (None, key.settings_hash)
        ]
        if len({key.seed for key in keys}) != len(keys):
            hashes = ", ".join(sorted({key.settings_hash for key in keys}))
            raise ValueError(
                f"arm {arm!r} ran with several settings in stage {stage!r}; "
                f"give settings_hash, one of {hashes}"
            )
        return {key.seed: dict(sorted(self._measurements[key].items())) for key in keys}


def _columns(steps: dict[int, dict[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for metrics in steps.values() for name in metrics)
    columns = {name: [metrics.get(name, math.nan) for metrics in steps.values()] for name in names}
    return {"step": [float(step) for step in steps]} | columns


class Loaded(NamedTuple):
    """What metrics.jsonl held; `was_damaged` if lines were lost."""

    records: Records
    was_damaged: bool


def load_records(path: Path, tell: Tell) -> Loaded:
    """Read metrics.jsonl; a missing file has no records.

    At the first line that is cut off, is not JSON or has another schema, the file is kept aside as
    `metrics.jsonl.damaged-<n>`, a new one is started from the sound lines before it, and `tell` is told.
    """
    if not path.exists():
        return Loaded(Records(), False)
    *lines, rest = path.read_bytes().split(b"\n")
    records: list[Record] = []
    problem = "the line is cut off" if rest else ""
    for line in lines:
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            problem = first_problem(error)
            break
    if problem:
        _keep_sound_lines(path, lines[: len(records)], problem, tell)
    return Loaded(Records(records), bool(problem))


def _keep_sound_lines(path: Path, sound: list[bytes], problem: str, tell: Tell) -> None:
    aside = free_name(path, "damaged")
    shutil.copyfile(path, aside)  # a copy first, so that a crash here loses nothing
    write_atomically(path, b"".join(line + b"\n" for line in sound))
    tell(
        f"{path} is damaged at line {len(sound) + 1} ({problem}); it was moved to {aside.name}. "
        f"{len(sound)} sound records before it were kept; trials with no sound result run again."
    )
