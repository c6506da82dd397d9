"""The key-value cache by its name: `past_key_values` in transformers before 5.24, `cache` from then on.

A model that knows only the first generates from the last token alone in newer versions, and is not told.
"""

from __future__ import annotations

import dataclasses

from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

NAMES = ("past_key_values", "cache")
_FIELDS = {field.name for field in dataclasses.fields(BaseModelOutputWithPast)}
NAME = "cache" if "cache" in _FIELDS else "past_key_values"
"""What this version of transformers calls it, in arguments and in outputs."""


def either(past_key_values: Cache | None, cache: Cache | None) -> Cache | None:
    """The cache, by whichever name a caller gave it."""
    return past_key_values if cache is None else cache
