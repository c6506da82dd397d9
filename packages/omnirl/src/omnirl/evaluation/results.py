"""What an evaluation found: returns by episode or rewards by step, scores with their intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.evaluation.normalisers import Normaliser

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Result:
    """R rows: run j of task i is row i · runs + j; `task_index` (R,) counts in the tasks that were given.

    `skipped` tasks were left out: their oracle is no better than random. `teacher_score` (R,) is the
    score by reward per step of what was demonstrated, None for an online start. `settings` say how it was
    run.
    """

    task_index: Ints
    normaliser: Normaliser | None
    """Of the tasks that were given, all of them; None where the oracle's return is not known."""
    skipped: int = 0
    teacher_score: Floats | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def _normaliser(self) -> Normaliser:
        if self.normaliser is None:
            raise OmniRLError(
                "there is no score: the environment has no table, so its oracle is not known; "
                "evaluate with oracle_return="
            )
        return self.normaliser

    def _interval(self, values: Floats) -> Floats:
        """Half of the 95 % interval of the mean over tasks; over runs where there is one task."""
        return interval(by_task(values, self.task_index))


@dataclass(frozen=True, eq=False, kw_only=True)
class EvalResult(Result):
    """Returns of the first E episodes of each row, all of shape (R, E)."""

    returns: Floats
    """Of the rewards that the agent was shown."""
    raw_returns: Floats
    """Of the environment's own rewards; scores come from these."""
    steps: Ints
    """The lengths of the episodes."""

    @property
    def normalized_score(self) -> Floats:
        """(R, E): 0 is the random policy, 1 the oracle; `OmniRLError` where the oracle is not known."""
        return self._normaliser().scores(self.raw_returns, self.task_index)

    @property
    def ci95(self) -> Floats:
        """(E,) half of the 95 % interval of the mean score of each episode."""
        return self._interval(self.normalized_score)

    def to_pandas(self) -> pandas.DataFrame:
        """One line an episode: task, run, episode, returns, steps and, where known, the score."""
        pandas = _plot_extra("pandas")
        rows, episodes = self.returns.shape
        columns: dict[str, Any] = {
            "task": np.repeat(self.task_index, episodes),
            "run": np.repeat(_runs(self.task_index), episodes),
            "episode": np.tile(np.arange(episodes), rows),
            "return": self.returns.ravel(),
            "raw_return": self.raw_returns.ravel(),
            "steps": self.steps.ravel(),
        }
        if self.normaliser is not None:
            columns["normalized_score"] = self.normalized_score.ravel()
        return pandas.DataFrame(columns)

    def plot(self, ax: Axes | None = None, label: str | None = None) -> Axes:
        """The mean score by episode with its interval (raw returns where the oracle is not known)."""
        known = self.normaliser is not None
        values = self.normalized_score if known else self.raw_returns
        ax = _band(ax, np.arange(1, values.shape[1] + 1), values, self._interval(values), label)
        ax.set(xlabel="episode", ylabel="normalised score" if known else "return")
        return ax


@dataclass(frozen=True, eq=False, kw_only=True)
class StepResult(Result):
    """Rewards of the first T steps of each row's context, all of shape (R, T)."""

    rewards: Floats
    """The environment's own; NaN where the step was the reset after an episode's end."""
    ends: NDArray[np.bool_]
    """Whether the step ended an episode."""

    def score(self, first: int = 0, last: int | None = None) -> Floats:
        """(R,) the reward per real step within steps [first, last): 0 is the random policy's, 1 the oracle's.

        Negative numbers count from the end. NaN for a row without a real step there. It may go beyond 1: the
        oracle earns the most an episode, and where an early end is well paid others earn more per step.
        """
        return self._normaliser().rate_scores(_mean(self.rewards[:, first:last]), self.task_index)

    def success(self, first: int = 0, last: int | None = None) -> Floats:
        """(R,) the mean raw return of episodes that end within steps [first, last); NaN where none does.

        It is the rate of success where the return is 1 or 0, as FrozenLake's.
        """
        totals = np.nan_to_num(self.rewards).cumsum(1)
        at_end = np.where(self.ends, totals, 0.0)
        before = np.maximum.accumulate(np.where(self.ends, np.arange(totals.shape[1]), -1), axis=1)
        earlier = np.pad(before, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        start = np.where(earlier >= 0, np.take_along_axis(totals, np.maximum(earlier, 0), 1), 0.0)
        returns = np.where(self.ends, at_end - start, np.nan)
        return _mean(returns[:, first:last])

    def curve(self, window: int) -> tuple[Floats, Floats]:
        """Mean score and half of its 95 % interval in consecutive windows of steps, both (T // window,)."""
        cuts = range(0, self.rewards.shape[1] - window + 1, window)
        scores = np.stack([self.score(cut, cut + window) for cut in cuts], 1)
        return mean_over_tasks(scores, self.task_index), self._interval(scores)

    def plot(self, window: int = 50, ax: Axes | None = None, label: str | None = None) -> Axes:
        """The mean score by steps with its interval, in windows."""
        mean, half = self.curve(window)
        at = window * (np.arange(len(mean)) + 0.5)
        ax = _band(ax, np.asarray(at, np.float64), mean[None], half, label)
        ax.set(xlabel="step in context", ylabel="normalised score")
        return ax


def by_task(values: Floats, task_index: Ints) -> Floats:
    """Values (R, ...) as means over the runs of each task (N, ...); as they are if there is one task."""
    tasks = np.unique(task_index)
    if len(tasks) == 1:
        return values
    return np.stack([_mean(values[task_index == task].T).T for task in tasks])


def mean_over_tasks(values: Floats, task_index: Ints) -> Floats:
    """The mean over tasks (...) of values (R, ...), leaving out NaN."""
    return _mean(by_task(values, task_index).T).T


def interval(values: Floats) -> Floats:
    """1.96 sd / sqrt(n) over the first axis, leaving out NaN; NaN for fewer than two values."""
    number = np.isfinite(values).sum(0)
    centre = _mean(values.T).T
    square = np.nansum((values - centre) ** 2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1.96 * np.sqrt(square / (number - 1) / number)


def _mean(values: Floats) -> Floats:
    """Over the last axis without NaN; NaN where nothing is left."""
    number = np.isfinite(values).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, np.nansum(values, -1) / np.maximum(number, 1), np.nan)


def _runs(task_index: Ints) -> Ints:
    """The number of each row among those of its task."""
    same = task_index[:, None] == task_index
    return np.tril(same, -1).sum(1)


def _band(ax: Axes | None, x: Floats, values: Floats, half: Floats, label: str | None) -> Axes:
    if ax is None:
        ax = _plot_extra("matplotlib.pyplot").subplots()[1]
    mean = _mean(values.T)
    (line,) = ax.plot(x, mean, label=label)
    ax.fill_between(x, mean - half, mean + half, alpha=0.2, color=line.get_color())
    return ax


def _plot_extra(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("tables and plots need the extra: pip install 'omnirl-icrl[plot]'") from error
