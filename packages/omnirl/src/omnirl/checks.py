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
