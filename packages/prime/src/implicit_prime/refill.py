"""Which prompts come next: shuffled epochs, rolled out until enough pass the filter (section 2.1)."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from implicit_prime.errors import NoPromptPassesError, PrimeError, PrimeWarning

logger = logging.getLogger(__name__)


class PromptStream:
    """The numbers 0 .. size-1 of a data set's prompts, each epoch in an order of its own.

    What is put back comes first again. With several processes every one keeps the same stream. `epochs` None
    never ends. The order depends on `seed` and the epoch alone.

    Raises `PrimeError` for a data set without prompts and epochs below 1.
    """

    def __init__(self, size: int, seed: int = 0, epochs: int | None = 1) -> None:
        if size < 1:
            raise PrimeError("the training data has no prompts")
        if epochs is not None and epochs < 1:
            raise PrimeError(f"epochs must be at least 1, or None for no end, not {epochs}")
        self.size = size
        self.seed = seed
        self.epochs = epochs
        self.epoch = 0
        self.position = 0
        self._surplus: deque[int] = deque()
        self._order = self._shuffled()

    def take(self, count: int) -> list[int]:
        """The next `count` prompts; fewer, and in the end none, when the last epoch is over."""
        taken = [self._surplus.popleft() for _ in range(min(count, len(self._surplus)))]
        while len(taken) < count:
            if self.position == self.size:
                if self.epochs is not None and self.epoch + 1 >= self.epochs:
                    break
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._shuffled()
            part = self._order[self.position : self.position + count - len(taken)]
            self.position += len(part)
            taken += part.tolist()
        return taken

    def put_back(self, prompts: Sequence[int]) -> None:
        """Give these prompts again, in this order, before those put back earlier and any others."""
        self._surplus.extendleft(reversed(prompts))

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as JSON can hold it."""
        return {
            "size": self.size,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self.position,
            "surplus": list(self._surplus),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the stream was. Raises `PrimeError` for the state of other data or another seed."""
        for name in ("size", "seed"):
            if state[name] != getattr(self, name):
                raise PrimeError(
                    f"the checkpoint's prompts have {name} {state[name]}, this run's {getattr(self, name)}: "
                    "resume with the data and the seed that the run began with"
                )
        self.epoch, self.position = state["epoch"], state["position"]
        self._surplus = deque(state["surplus"])
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.size)


class Group(Protocol):
    """The responses to one prompt; `accuracy` is their mean outcome, NaN without a verdict."""

    @property
    def prompt(self) -> int: ...  # noqa: D102

    @property
    def accuracy(self) -> float: ...  # noqa: D102


GroupT = TypeVar("GroupT", bound=Group)


@dataclass(frozen=True, slots=True)
class Refilled(Generic[GroupT]):
    """The groups of a step, in the order in which they were drawn.

    kept     what the policy trains on
    others   drawn, but filtered out or too many; the PRM may train on them
    rounds   rounds of rollouts that it took
    passed   groups that passed the filter, the surplus included
    """

    kept: list[GroupT]
    others: list[GroupT]
    rounds: int
    passed: int

    @property
    def pass_rate(self) -> float:
        """Share of the drawn prompts that passed the filter."""
        return self.passed / (len(self.kept) + len(self.others))


def refill(
    stream: PromptStream,
    prompts: int,
    roll_out: Callable[[list[int]], Sequence[GroupT]],
    keep: Callable[[Sequence[GroupT]], Sequence[bool]],
    max_rounds: int = 16,
    multiple_of: int = 1,
    *,
    first: bool = False,
) -> Refilled[GroupT] | None:
    """Draw prompts and roll them out until `prompts` of them pass the filter; None when the data is over.

    roll_out     prompts -> a group each, in the same order
    keep         groups -> whether each passes the filter
    max_rounds   calls of `roll_out` at most
    multiple_of  a step cut short keeps a multiple of this: the number of processes
    first        whether it is the run's first step, without which the end of the data is an error

    The first round draws `prompts`, later ones as many as the pass rate so far asks for. Prompts that passed
    but are too many go back to the stream: the next step draws new responses to them. When the data ends, the
    partial batch is dropped, and when only the rounds end, the step is made of what there is, both with a
    `PrimeWarning`.

    Raises `NoPromptPassesError`, with a histogram of the accuracies, if `max_rounds` rounds make no step, and
    if the data ends before the first one is full.
    """
    passed: list[GroupT] = []
    failed: list[GroupT] = []
    rounds = 0
    while len(passed) < prompts and rounds < max_rounds:
        drawn = stream.take(_to_draw(prompts, len(passed), len(failed)))
        if not drawn:
            _report_end(prompts, passed, failed, rounds, first)
            return None
        groups = roll_out(drawn)
        for group, passes in zip(groups, keep(groups), strict=True):
            (passed if passes else failed).append(group)
        rounds += 1
        logger.info(
            "round %d: %d of %d prompts pass the filter", rounds, len(passed), len(passed) + len(failed)
        )
    size = min(prompts, len(passed) // multiple_of * multiple_of)
    if size < prompts:
        _report_shortfall(prompts, passed, failed, rounds, size)
    surplus = passed[size:]
    stream.put_back([group.prompt for group in surplus])
    return Refilled(passed[:size], failed + surplus, rounds, len(passed))


def _to_draw(prompts: int, passed: int, failed: int) -> int:
    """As many prompts as are missing over the pass rate, and never more than a whole step."""
    if not passed:
        return prompts
    return min(prompts, math.ceil((prompts - passed) * (passed + failed) / passed))


def _report_shortfall(
    wanted: int, passed: Sequence[Group], failed: Sequence[Group], rounds: int, size: int
) -> None:
    found, accuracies = _found(wanted, passed, failed, rounds)
    if not size:
        raise NoPromptPassesError(
            f"{found}. {accuracies}. {_READ_IT}. Change the data, "
            "widen accuracy_range, or raise num_generations or max_refill_rounds"
        )
    warnings.warn(
        f"{found}: the step has {size}. {accuracies}. More rounds: max_refill_rounds",
        PrimeWarning,
        stacklevel=3,
    )


def _report_end(
    wanted: int, passed: Sequence[Group], failed: Sequence[Group], rounds: int, first: bool
) -> None:
    if not rounds:  # the data was over with the step before
        return
    found, accuracies = _found(wanted, passed, failed, rounds)
    if first:
        raise NoPromptPassesError(
            f"the data ended before the first step was full: {found}. {accuracies}. {_READ_IT}. Give more "
            "data or num_train_epochs, lower prompts_per_step, or widen accuracy_range"
        )
    warnings.warn(
        f"the data ended, and its last {len(passed) + len(failed)} prompts make no step: {found}. "
        f"{accuracies}",
        PrimeWarning,
        stacklevel=3,
    )


_READ_IT = (
    "Mostly 0: the task is too hard for the policy, or the verifier does not read its answers. Mostly 1: too "
    "easy"
)


def _found(wanted: int, passed: Sequence[Group], failed: Sequence[Group], rounds: int) -> tuple[str, str]:
    """How many prompts passed, and the accuracies of all that were drawn."""
    drawn = len(passed) + len(failed)
    accuracies = _histogram([group.accuracy for group in (*passed, *failed)])
    return (
        f"{len(passed)} of {drawn} prompts passed the filter in {rounds} round{'s' if rounds > 1 else ''}, "
        f"and {wanted} are wanted",
        f"Mean outcomes of the prompts drawn: {accuracies}",
    )


def _histogram(accuracies: Sequence[float]) -> str:
    """Such as "0: 12, 0.25: 3, no verdict: 1"; more than eight values in tenths."""
    known = [value for value in accuracies if not math.isnan(value)]
    places = 2 if len(set(known)) <= 8 else 1
    counts = Counter(round(value, places) for value in known)
    parts = [f"{value:g}: {count}" for value, count in sorted(counts.items())]
    missing = len(accuracies) - len(known)
    return ", ".join(parts + ([f"no verdict: {missing}"] if missing else []))
