"""A temperature that falls with the steps of a run, as the official evaluation has it (section 2.8)."""

from __future__ import annotations

from dataclasses import dataclass

from omnirl.errors import OmniRLError


@dataclass(frozen=True)
class TemperatureSchedule:
    """From `start` to `end` over `steps` steps, "linear" or "exponential", then `end`."""

    start: float = 1.0
    end: float = 0.1
    steps: int = 10_000
    kind: str = "linear"

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "exponential"):
            raise OmniRLError(f"kind is {self.kind!r}; it may be 'linear' or 'exponential'")
        if min(self.start, self.end) <= 0 or self.steps < 1:
            raise OmniRLError("a schedule needs temperatures above 0 and at least one step")

    def __call__(self, step: int) -> float:
        """The temperature at step `step`, counted from 0."""
        share = min(step / self.steps, 1.0)
        if self.kind == "linear":
            return self.start + share * (self.end - self.start)
        return float(self.start * (self.end / self.start) ** share)
