"""Checks of settings that come from a file or a command, where anything may stand in a number's place."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from omnirl.errors import OmniRLError


def check_whole(**values: Any) -> None:
    """Raise `OmniRLError` naming the first of the `values` that is no whole number (True is none)."""
    _check(Integral, "a whole number", values)


def check_real(**values: Any) -> None:
    """Raise `OmniRLError` naming the first of the `values` that is no number (True is none)."""
    _check(Real, "a number", values)


def _check(kind: type, words: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, kind):
            raise OmniRLError(f"{key} is {value!r}; it must be {words}")


def check_batches(batch_size: int, seed: int, rank: int, world_size: int, label_temperature: float) -> None:
    """Raise `OmniRLError` for settings that no stream of batches can have."""
    check_whole(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
    check_real(label_temperature=label_temperature)
    if batch_size < 1:
        raise OmniRLError(f"batch_size is {batch_size}; it must be at least 1")
    if not 0 <= rank < world_size:
        raise OmniRLError(f"rank is {rank}; with world_size {world_size} it must be 0..{world_size - 1}")
    if label_temperature < 0:
        raise OmniRLError(f"label_temperature is {label_temperature}; it must not be negative")
