"""What must not be written down or shown: keys, tokens and passwords among settings, told by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(
    r"((^|_)(api_?)?key|secret|password|passwd|authorization|credentials?|cookie"
    r"|^token|(hf|hub|auth|access|bearer|api|session)_token)$"
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/?#\s]+@")  # user:password@, where a password may have an @ too


def without_secrets(value: Any) -> Any:
    """A copy of JSON values without the secrets: entries named like one, and the password of an address."""
    if isinstance(value, Mapping):
        return {name: without_secrets(part) for name, part in value.items() if not is_secret(str(name))}
    if isinstance(value, list):
        return [without_secrets(part) for part in value]
    return _IN_ADDRESS.sub("", value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Whether what has this name is nobody's business: api_key, token, hf_token, password, Authorization."""
    return _SECRET.search(name.lower().replace("-", "_")) is not None
