"""A run in progress: its trials, its records, and the data that it may use."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tenfold.environment import usable_cores
from tenfold.errors import TenfoldError
from tenfold.log import RunLog
from tenfold.pool import (
    Failed,
    Finished,
    Progressed,
    Started,
    TrialFunction,
    TrialFunctions,
    run_in_processes,
)
from tenfold.progress import TrialBars
from tenfold.records import Records, load_records
from tenfold.results import RunFolder
from tenfold.trials import Trial


class TrialsFailedError(TenfoldError):
    """Some trials failed; the message names them, and the log has their tracebacks."""


class Run:
    """What an experiment's `run` function works with.

    `directory` is results/<paper>/<scale>/, `scale` one of quick, laptop, paper; `jobs`, if given, is the
    most trials that may run at the same time.
    """

    def __init__(self, directory: Path, scale: str, log: RunLog, jobs: int | None = None) -> None:
        self.directory = directory
        self.scale = scale
        self.log = log
        self.jobs = jobs
        self.trials: set[Trial] = set()
        """Every trial that was asked for so far."""
        self._folder = RunFolder(directory)
        self._data: dict[str, bool] = {}

    def map(
        self,
        function: TrialFunctions,
        trials: Iterable[Trial],
        jobs: int | None = None,
        threads: int = 1,
    ) -> dict[Trial, dict[str, Any]]:
        """Run `function(trial, context)` for every trial and return {trial: result} in their order.

        `function` is defined at the top level of a module; it runs in a spawned process with `threads`
        threads and returns a dict that is plain JSON. Of several stages it may be {stage: function}, so that
        unlike work fills the cores together. At most `jobs` trials run side by side, and no more than the
        user's `--jobs` (where neither is given, as many as there are cores for). A trial that finished before
        is not run again. A trial that raises does not stop the others.

        Raises `TrialsFailedError` after the others are done, `TypeError` for a function that a new process
        cannot import, `ValueError` for a trial given twice or of a stage that has no function.
        """
        wanted = list(trials)
        if isinstance(function, Mapping) and (lacking := {trial.stage for trial in wanted} - function.keys()):
            raise ValueError(f"no function for the stages {', '.join(map(repr, sorted(lacking)))}")
        for one in function.values() if isinstance(function, Mapping) else [function]:
            _check_importable(one)
        if len(set(wanted)) != len(wanted):
            twice = next(trial for trial in wanted if wanted.count(trial) > 1)
            raise ValueError(f"{twice} with the same settings was given twice")
        self.trials.update(wanted)
        finished = self._load().results()
        pending = [trial for trial in wanted if trial not in finished]
        if len(pending) < len(wanted):
            self.log.write(f"{len(wanted) - len(pending)} of {len(wanted)} trials had finished before")
        if pending:
            limits = [limit for limit in (jobs, self.jobs) if limit is not None]
            limit = min(limits) if limits else max(1, usable_cores() // threads)
            finished |= self._run(function, pending, min(limit, len(pending)), threads)
        return {trial: finished[trial] for trial in wanted}

    def has_data(self, name: str) -> bool:
        """Say whether the named data set can be had on this machine; the answer stays for the whole run.

        It is fetched if need be, so that what needs it can then run; if that fails, the person is told why.
        Raises `UsageError` if no installed package names such a data set.
        """
        if name not in self._data:
            from tenfold.data import DataUnavailableError, get

            try:
                self.log.write(f"data {name}: {get(name)}")
                self._data[name] = True
            except DataUnavailableError as error:
                self.log.tell(str(error))
                self._data[name] = False
        return self._data[name]

    def records(self) -> Records:
        """Return what the trials of this run have logged so far; of trials no longer asked for, nothing."""
        return self._load().restricted_to(self.trials)

    def _load(self) -> Records:
        records, was_damaged = load_records(self._folder.records_file, self.log.tell)
        if was_damaged:
            # An unfinished trial that went on from its checkpoint would not log the lost steps again.
            shutil.rmtree(self._folder.checkpoints, ignore_errors=True)
        return records

    def _run(
        self, function: TrialFunctions, pending: list[Trial], jobs: int, threads: int
    ) -> dict[Trial, dict[str, Any]]:
        self.log.write(f"{len(pending)} trials, {jobs} at a time, {threads} threads each")
        results: dict[Trial, dict[str, Any]] = {}
        failures: list[Failed] = []
        events = run_in_processes(function, pending, self.directory, jobs, threads)
        with TrialBars(len(pending), pending[0].stage) as bars, contextlib.closing(events):
            for event in events:
                match event:
                    case Started(trial):
                        self.log.write(f"started {trial}")
                        bars.started(trial)
                    case Progressed(trial, done, total):
                        bars.progressed(trial, done, total)
                    case Finished(trial, result):
                        self.log.write(f"finished {trial}")
                        results[trial] = result
                        bars.ended(trial)
                    case Failed(trial, error, details):
                        self.log.write(f"failed {trial}: {error}\n{details}")
                        failures.append(event)
                        bars.ended(trial)
        if failures:
            raise TrialsFailedError(self._describe(failures, len(pending)))
        return results

    def _describe(self, failures: list[Failed], count: int) -> str:
        lines = [f"{len(failures)} of {count} trials failed; those that finished are kept."]
        lines += [f"  {failure.trial}: {failure.error}" for failure in failures]
        lines += [f"The tracebacks are in {self._folder.log_file}."]
        return "\n".join(lines)


def _check_importable(function: TrialFunction) -> None:
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
    if getattr(sys.modules.get(module), name, None) is not function:
        raise TypeError(
            f"the trial function {name or function!r} must be defined at the top level of a module, "
            "so that another process can import it"
        )
