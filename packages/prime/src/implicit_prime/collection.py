"""Responses drawn and judged: every process does its share, and all get the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object

from implicit_prime.clock import Clock
from implicit_prime.core import accuracy_filter
from implicit_prime.data import PromptRow
from implicit_prime.responses import PromptGroup
from implicit_prime.rollout import RolloutEngine, Sampling
from implicit_prime.verifiers.base import Verifier, verify

if TYPE_CHECKING:
    from accelerate import Accelerator

    from implicit_prime.config import PrimeConfig


class Collector:
    """Draws responses with an engine, and asks a verifier for their outcomes.

    statuses  how many responses were judged "ok", "unparsed", "timeout" or "error" since it was last cleared
    """

    def __init__(
        self,
        engine: RolloutEngine,
        verifier: Verifier,
        args: PrimeConfig,
        accelerator: Accelerator,
        clock: Clock,
    ) -> None:
        self.engine = engine
        self.verifier = verifier
        self.args = args
        self.accelerator = accelerator
        self.clock = clock
        self.statuses: Counter[str] = Counter()

    def draw(
        self,
        rows: Sequence[PromptRow],
        numbers: Sequence[int],
        seed: Sequence[int],
        n: int,
        temperature: float,
    ) -> list[PromptGroup]:
        """`n` responses to each of the rows with these numbers, in their order; the same on every process."""
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        mine = numbers[rank::count]
        found = (
            self._draw([rows[number] for number in mine], mine, [*seed, rank], n, temperature)
            if mine
            else ([], {})
        )
        every = gather_object([found]) if count > 1 else [found]
        for _, statuses in every:
            self.statuses.update(statuses)
        return [every[at % count][0][at // count] for at in range(len(numbers))]

    def keep(self, groups: Sequence[PromptGroup]) -> list[bool]:
        """Which groups the policy trains on: with two verdicts, and as the settings of the filter say."""
        low, high = self.args.accuracy_range or (0.0, 1.0)
        outcomes = torch.tensor(np.stack([group.outcomes for group in groups]))
        inside = accuracy_filter(outcomes, low, high).tolist()
        return [
            passes and not (self.args.filter_truncated and any(group.truncated))
            for passes, group in zip(inside, groups, strict=True)
        ]

    def _draw(
        self, rows: list[PromptRow], numbers: Sequence[int], seed: list[int], n: int, temperature: float
    ) -> tuple[list[PromptGroup], dict[str, int]]:
        sampling = Sampling(
            max_tokens=self.args.max_completion_length,
            temperature=temperature,
            seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
        )
        with self.clock("rollout"):
            drawn = self.engine.generate([row.ids for row in rows], n, sampling)
        with self.clock("verify"):
            answers: list[Any] = [row.answer for row in rows for _ in range(n)]
            results = verify(self.verifier, drawn.texts, answers)
        outcomes = np.array([np.nan if one.status == "error" else one.score for one in results])
        groups = []
        for at, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            span = slice(at * n, (at + 1) * n)
            group = PromptGroup(
                prompt=number,
                prompt_ids=row.ids,
                ids=drawn.ids[span],
                log_probs=drawn.log_probs[span],
                truncated=drawn.truncated[span],
                outcomes=outcomes[span],
            )
            groups.append(group)
        return groups, dict(Counter(one.status for one in results))
