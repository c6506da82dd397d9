"""What a run has used of its budget."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from proteus_omics.errors import BudgetError
from proteus_omics.models import Budget


@dataclass
class Spent:
    """Counters of a run; each `take_` raises `BudgetError` before it would go over."""

    budget: Budget
    objectives: int = 0
    steps: int = 0
    requests: int = 0
    tokens: int = 0
    cost: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def take_step(self) -> None:
        """Count a step that is about to run; one that was found finished costs nothing."""
        self._below("max_steps", self.steps)
        self._time()
        self.steps += 1

    def take_request(self) -> None:
        """Count a request to a language model."""
        self._below("max_requests", self.requests)
        self._below("max_tokens", self.tokens)
        self._below("max_cost", self.cost)
        self._time()
        self.requests += 1

    def used(self, tokens: int, cost: float = 0.0) -> None:
        """Count what a request took."""
        self.tokens += tokens
        self.cost += cost

    def _time(self) -> None:
        self._below("max_seconds", time.monotonic() - self.began)

    def _below(self, name: str, value: float) -> None:
        limit = getattr(self.budget, name)
        if limit is not None and value >= limit:
            option = "--" + name.replace("_", "-")
            raise BudgetError(f"the budget {name}={limit:g} is spent; resume with a larger {option}")
