"""Progress of a run's trials: bars with the time left on a terminal, elsewhere a line for each that ended."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tenfold.trials import Trial


class TrialBars:
    """One bar for all trials of a stage and one for each that is running."""

    def __init__(self, trials: int, stage: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            speed_estimate_period=600,  # seconds; trials of minutes would make a shorter one jump
        )
        self._name = stage or "trials"
        self._count = trials
        self._finished = 0
        self._running: dict[Trial, tuple[TaskID, float]] = {}
        self._all = self._progress.add_task(self._title(), total=trials)

    def __enter__(self) -> TrialBars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, trial: Trial) -> None:
        """Show a bar for the trial."""
        task = self._progress.add_task(f"  {trial.arm} seed {trial.seed}", total=None)
        self._running[trial] = (task, 0.0)

    def progressed(self, trial: Trial, done: float, total: float) -> None:
        """Move the trial's bar, and the bar of all by the same share."""
        task, _ = self._running[trial]
        self._running[trial] = (task, min(done / total, 1.0) if total > 0 else 0.0)
        self._progress.update(task, completed=done, total=total)
        self._update()

    def ended(self, trial: Trial) -> None:
        """Remove the trial's bar."""
        task, _ = self._running.pop(trial)
        self._progress.remove_task(task)
        self._finished += 1
        self._update()
        if self._progress.disable:
            print(f"{self._title()}: {trial} ended", file=sys.stderr, flush=True)

    def _update(self) -> None:
        done = self._finished + sum(share for _, share in self._running.values())
        self._progress.update(self._all, completed=done, description=self._title())

    def _title(self) -> str:
        return f"{self._name} {self._finished}/{self._count}"
