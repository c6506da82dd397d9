"""A measured number with its uncertainty over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Estimate:
    """One metric of a finished run: one sample a seed, in the order of the seeds.

    Two estimates of the same run are paired by index: sample i of both comes from the same seed.
    A sample may be infinite or NaN (an arm that diverged); no criterion holds for NaN.

    Raises `ValueError` if there is no sample, `TypeError` if one is not a number.
    """

    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", tuple(float(sample) for sample in self.samples))
        if not self.samples:
            raise ValueError("an Estimate needs at least one sample")

    @classmethod
    def of(cls, values: Iterable[float] | float | Estimate) -> Estimate:
        """Return `values` as an estimate: a number becomes one sample, an estimate stays as it is."""
        if isinstance(values, Estimate):
            return values
        if isinstance(values, Iterable):
            return cls(tuple(values))
        return cls((values,))

    @property
    def mean(self) -> float:
        """The mean of the samples (exact summation: n equal samples have exactly their value as mean)."""
        return float(statistics.mean(self.samples)) if self._finite else sum(self.samples) / len(self.samples)

    @property
    def low(self) -> float | None:
        """The lower end of the 95% confidence interval of the mean; None with one sample."""
        return None if self._half_width is None else self.mean - self._half_width

    @property
    def high(self) -> float | None:
        """The upper end of the 95% confidence interval of the mean; None with one sample."""
        return None if self._half_width is None else self.mean + self._half_width

    @cached_property
    def _half_width(self) -> float | None:
        """t(0.975, n-1) s / sqrt(n), s the sample standard deviation: Student's t over the seeds."""
        count = len(self.samples)
        if count < 2:
            return None
        if not self._finite:
            return math.nan
        from scipy.special import stdtrit  # scipy is slow to import and most commands never need it

        return float(stdtrit(count - 1, 0.975)) * statistics.stdev(self.samples) / math.sqrt(count)

    @property
    def _finite(self) -> bool:
        return all(math.isfinite(sample) for sample in self.samples)

    def __str__(self) -> str:
        if self.low is None or self.high is None or not self._finite:
            return number_text(self.mean)
        return f"{number_text(self.mean)} [{number_text(self.low)}, {number_text(self.high)}]"


def number_text(value: float) -> str:
    """Return a number for people: a whole number in full (parameter counts), others to four digits."""
    return f"{value:,.0f}" if abs(value) < 1e15 and value == round(value) else f"{value:.4g}"


def less(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the first less the second, sample by sample: what an `Estimate` of a paired difference is of.

    Raises `ValueError` if one has more samples.
    """
    return [one - other for one, other in zip(ones, others, strict=True)]
