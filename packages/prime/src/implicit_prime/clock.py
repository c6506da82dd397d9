"""Where the time of a step goes (Table 2 of the paper)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds of each phase since it was last read."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time until the block ends to the phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # else a phase would pay for what the one before it left running
            self._seconds[phase] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Seconds by phase, as "time/<phase>"; the clock starts anew."""
        found = {f"time/{phase}": seconds for phase, seconds in self._seconds.items()}
        self._seconds.clear()
        return found
