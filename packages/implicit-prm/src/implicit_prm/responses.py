"""A scored response: the reward of every token, of every step and of the whole, as arrays or a JSON line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.steps import Step

_NOT_WHOLE = "is not as `ScoredResponse.to_dict` writes it; score it again"

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
        """Read back what `to_dict` wrote, leaving other keys alone.

        Raises `ImplicitPRMError`, naming the response, where a key is missing or its value does not fit.
        """
        try:
            found = cls._read(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ImplicitPRMError(f"the response {row.get('id')!r} {_NOT_WHOLE}: {error!r}") from error
        tokens = {len(found.token_rewards), len(found.q_values), len(found.token_ids), len(found.offsets)}
        if len(tokens) > 1 or len(found.step_rewards) != len(found.steps) or not found.steps:
            raise ImplicitPRMError(
                f"the response {found.id!r} {_NOT_WHOLE}: rewards are more or fewer than tokens or steps"
            )
        rewards = (found.token_rewards, found.q_values, found.step_rewards, found.outcome_reward)
        if not all(np.isfinite(values).all() for values in rewards):
            raise ImplicitPRMError(
                f"the response {found.id!r} has a reward that is not finite; score it again"
            )
        return found

    @classmethod
    def _read(cls, row: Mapping[str, Any]) -> ScoredResponse:
        return cls(
            id=str(row["id"]),
            token_rewards=_array(row["token_rewards"]),
            q_values=_array(row["q_values"]),
            step_rewards=_array(row["step_rewards"]),
            outcome_reward=float(row["outcome_reward"]),
            steps=[Step(step["text"], step["start"], step["end"]) for step in row["steps"]],
            token_ids=tuple(row["token_ids"]),
            offsets=tuple((start, end) for start, end in row["offsets"]),
            truncated=bool(row["truncated"]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScoredResponse) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def _array(values: Any) -> Floats:
    found = np.asarray(values, dtype=np.float32)
    if found.ndim != 1:
        raise ValueError(f"{values!r} is no list of numbers")
    return found


def _numbers(values: Floats) -> list[float]:
    """The shortest decimals that name these float32 values: half the digits that doubles would take."""
    return [float(str(value)) for value in values]
