"""Scored responses as a pandas frame: a row a response, a step or a token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from implicit_prm.errors import ImplicitPRMError, MissingExtraError
from implicit_prm.responses import ScoredResponse
from implicit_prm.steps import step_token_ends

if TYPE_CHECKING:
    import pandas as pd

Scored: TypeAlias = ScoredResponse | Mapping[str, Any]
"""A scored response, or a line that `implicit-prm score` wrote, with the other columns of its row."""

_OF_A_RESPONSE = frozenset(ScoredResponse.__dataclass_fields__)


def to_frame(
    scored: Iterable[Scored], level: Literal["response", "step", "token"] = "response"
) -> pd.DataFrame:
    """The scores as a frame; every level has the column `id`, by which they join.

    response  outcome_reward (h), lowest_step_reward, n_steps, n_tokens, truncated, completion, and every
              other column of a line (its prompt, its label)
    step      step (from 0), start, end (characters), text, reward (R_s), q_value (q at its last token)
    token     token (from 0), step, token_id, start, end, text, reward (r_t), q_value (q_t)

    Raises `ImplicitPRMError` for another level and where pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingExtraError("a frame needs pandas: pip install 'implicit-prm[analysis]'") from error

    if level not in _ROWS:
        raise ImplicitPRMError(f"there is no level {level!r} of a frame; there are: {', '.join(_ROWS)}")
    return pd.DataFrame(row for entry in scored for row in _ROWS[level](entry))


def _response(entry: Scored) -> ScoredResponse:
    return entry if isinstance(entry, ScoredResponse) else ScoredResponse.from_dict(entry)


def _response_rows(entry: Scored) -> Iterator[dict[str, Any]]:
    scored = _response(entry)
    row = {
        "id": scored.id,
        "outcome_reward": scored.outcome_reward,
        "lowest_step_reward": scored.step_rewards.min(),
        "n_steps": len(scored.steps),
        "n_tokens": len(scored.token_ids),
        "truncated": scored.truncated,
        "completion": scored.completion,
    }
    given = {} if isinstance(entry, ScoredResponse) else entry
    yield row | {key: value for key, value in given.items() if key not in _OF_A_RESPONSE | row.keys()}


def _step_rows(entry: Scored) -> Iterator[dict[str, Any]]:
    scored = _response(entry)
    ends = step_token_ends(scored.offsets, [(step.start, step.end) for step in scored.steps])
    q_values = scored.q_values[ends]
    for number, step in enumerate(scored.steps):
        yield {
            "id": scored.id,
            "step": number,
            "start": step.start,
            "end": step.end,
            "text": step.text,
            "reward": scored.step_rewards[number],
            "q_value": q_values[number],
        }


def _token_rows(entry: Scored) -> Iterator[dict[str, Any]]:
    scored, text = _response(entry), _response(entry).completion
    ends = step_token_ends(scored.offsets, [(step.start, step.end) for step in scored.steps])
    step = 0
    for token, (start, end) in enumerate(scored.offsets):
        step += token > ends[step]
        yield {
            "id": scored.id,
            "token": token,
            "step": step,
            "token_id": scored.token_ids[token],
            "start": start,
            "end": end,
            "text": text[start:end],
            "reward": scored.token_rewards[token],
            "q_value": scored.q_values[token],
        }


_ROWS: dict[str, Callable[[Scored], Iterator[dict[str, Any]]]] = {
    "response": _response_rows,
    "step": _step_rows,
    "token": _token_rows,
}
