"""A scored response: the reward of every token, of every step and of the whole, as arrays or a JSON line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from implicit_prm.steps import Step

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredResponse:
    """The implicit rewards of one response of T tokens in S steps (section 2.1).

    token_rewards: float32 [T], r_t = beta * log(pi/pi_ref); q_values: float32 [T], their running sum;
    step_rewards: float32 [S], the sum of r over the tokens of each step; outcome_reward: h = q_T.
    steps: the S steps, each a `Step(text, start, end)` with its character span in the response's text.
    token_ids and offsets: the T tokens and the character span of each; truncated: it was cut to fit.
    """

    id: str
    token_rewards: Floats
    q_values: Floats
    step_rewards: Floats
    outcome_reward: float
    steps: list[Step]
    token_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    truncated: bool

    @property
    def completion(self) -> str:
        """The response's text: its steps cover it without a gap."""
        return "".join(step.text for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for `json.dumps`; `from_dict` gives back the same float32 values."""
        return {
            "id": self.id,
            "outcome_reward": self.outcome_reward,
            "step_rewards": _numbers(self.step_rewards),
            "token_rewards": _numbers(self.token_rewards),
            "q_values": _numbers(self.q_values),
            "steps": [{"text": step.text, "start": step.start, "end": step.end} for step in self.steps],
            "token_ids": list(self.token_ids),
            "offsets": [list(span) for span in self.offsets],
            "truncated": self.truncated,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ScoredResponse:
        """Read back what `to_dict` wrote, leaving other keys alone. Raises `KeyError` for a missing one."""
        return cls(
            id=row["id"],
            token_rewards=np.asarray(row["token_rewards"], dtype=np.float32),
            q_values=np.asarray(row["q_values"], dtype=np.float32),
            step_rewards=np.asarray(row["step_rewards"], dtype=np.float32),
            outcome_reward=float(row["outcome_reward"]),
            steps=[Step(step["text"], step["start"], step["end"]) for step in row["steps"]],
            token_ids=tuple(row["token_ids"]),
            offsets=tuple((start, end) for start, end in row["offsets"]),
            truncated=bool(row["truncated"]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScoredResponse) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def _numbers(values: Floats) -> list[float]:
    """The shortest decimals that name these float32 values: half the digits that doubles would take."""
    return [float(str(value)) for value in values]
