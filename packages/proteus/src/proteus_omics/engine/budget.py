"""Steps and time of a run against its budget; requests are counted by the planner that makes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from proteus_omics.errors import BudgetError
from proteus_omics.models import Budget


@dataclass
class Meter:
    """Counts what this session does; a step that was found finished costs nothing."""

    budget: Budget
    steps: int = 0
    began: float = field(default_factory=time.monotonic)

    def take_step(self) -> None:
        """Count a step that is about to run. Raises `BudgetError` where that would be one too many."""
        if self.steps >= self.budget.max_steps:
            raise BudgetError(
                f"the budget of {self.budget.max_steps} steps is spent: resume --max-steps N goes on"
            )
        seconds = self.budget.max_seconds
        if seconds is not None and time.monotonic() - self.began >= seconds:
            raise BudgetError(f"the budget of {seconds:g} seconds is spent: resume --max-seconds S goes on")
        self.steps += 1
