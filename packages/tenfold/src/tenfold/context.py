"""What a trial function gets beside its trial: a log, a checkpoint folder and a progress bar."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tenfold.records import append_record, measurement_of, result_of
from tenfold.trials import Trial

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"


class TrialContext:
    """The hand that a run lends to one trial."""

    def __init__(self, trial: Trial, run_directory: Path, report: Callable[[float, float], None]) -> None:
        self.trial = trial
        self.checkpoint_dir = run_directory / CHECKPOINTS / trial.folder_name
        """Exists while the trial runs, survives an interrupt, and is removed when the trial has finished."""
        self._metrics_file = run_directory / METRICS_FILE
        self._report = report
        self._last_report = 0.0
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)

    def log(self, step: int, **metrics: float) -> None:
        """Append one measurement to metrics.jsonl; it is on the disk when this returns.

        A trial that continues from a checkpoint may log a step again: the last time counts.
        """
        numbers = {name: float(value) for name, value in metrics.items()}
        append_record(self._metrics_file, measurement_of(self.trial, int(step), numbers))

    def progress(self, done: float, total: float) -> None:
        """Say how far the trial is, for the progress bar; cheap enough to call at every step."""
        now = time.monotonic()
        if now - self._last_report > 0.2 or done >= total:
            self._last_report = now
            self._report(float(done), float(total))

    def finish(self, result: Mapping[str, Any]) -> dict[str, JsonValue]:
        """Record the end of the trial, remove its checkpoints, and return the result as plain JSON.

        Called once by the run, after the trial function has returned. Raises `TypeError` if the result is
        not a mapping of names to JSON values (scalars of NumPy and torch count as numbers).
        """
        plain = _plain_json(result)
        append_record(self._metrics_file, result_of(self.trial, plain))
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)
        return plain


def _plain_json(result: Any) -> dict[str, JsonValue]:
    if not isinstance(result, Mapping):
        raise TypeError(f"a trial function returns a dict of results, not {type(result).__name__}")
    try:
        plain = json.loads(json.dumps(dict(result), default=lambda value: value.item()))
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(f"the result of a trial must be plain JSON: {error}") from error
    return dict(plain)
