"""Opening the model, and a look at its endpoint before questions are asked: failing early costs nothing."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medxpertqa.engine.solving import told
from medxpertqa.errors import MedXpertQAError, MedXpertQAWarning
from medxpertqa.secrecy import without_secrets

if TYPE_CHECKING:
    from inspect_ai.model import Model

CHARACTERS_PER_TOKEN = 5
"""More than any tokenizer makes of English: what does not fit by this measure certainly does not fit."""
_LOCAL = ("127.0.0.1", "localhost", "::1")


def open_model(name: str, base_url: str | None = None, arguments: Mapping[str, Any] | None = None) -> Model:
    """The model by inspect-ai's name, such as openai/gpt-4o, vllm/ORG/NAME, hf/ORG/NAME, openai-api/local/m.

    Keys come from the environment by inspect-ai's rule; an endpoint on this machine needs none. Those among
    the `arguments` are used and not logged. Raises `MedXpertQAError` for a name, a key or a provider's
    package that is missing.
    """
    model = _open_model(name, base_url, dict(arguments or {}))
    model.model_args = without_secrets(model.model_args)  # what inspect-ai writes into its logs, as the next
    model._explicit_base_url = without_secrets(base_url)
    return model


def _open_model(name: str, base_url: str | None, given: dict[str, Any]) -> Model:
    from inspect_ai.model import get_model

    try:
        return get_model(name, base_url=base_url, **given)
    except Exception as error:
        message = _plain(getattr(error, "message", error))
        if "API_KEY" in message and base_url and urlsplit(base_url).hostname in _LOCAL:
            return get_model(name, base_url=base_url, api_key="none", **given)
        if type(error).__name__ not in ("PrerequisiteError", "ValueError"):
            raise
        raise MedXpertQAError(f"the model {name} cannot be used: {message}") from None


def set_price(model: Model, dollars: tuple[float, float]) -> None:
    """Tell inspect-ai what a million input and a million output tokens of the model cost, in US dollars."""
    from inspect_ai.model import ModelCost, ModelInfo, get_model_info, set_model_info

    cost = ModelCost(
        input=dollars[0], output=dollars[1], input_cache_write=dollars[0], input_cache_read=dollars[0]
    )
    known = get_model_info(model) or ModelInfo()
    set_model_info(str(model), known.model_copy(update={"cost": cost}))


def price_of(model: Model) -> tuple[float, float] | None:
    """US dollars for a million input and a million output tokens, None if not known."""
    from inspect_ai.model import get_model_info

    known = get_model_info(model)
    return (known.cost.input, known.cost.output) if known and known.cost else None


def check_endpoint(model: Model, longest: int, max_tokens: int, turns: int = 1) -> None:
    """Raise `MedXpertQAError` if an OpenAI-compatible endpoint is not there, refuses the key or is too small.

    `longest` is the number of characters of the longest request, `max_tokens` what its reply may have. Warns
    if the replies of all `turns` might not fit together, each as long as allowed. Other providers are not
    looked at; an endpoint that does not tell the context of the model is taken to be large enough.
    """
    from openai import APIConnectionError, APIStatusError, OpenAI

    base_url, key = getattr(model.api, "base_url", None), getattr(model.api, "api_key", None)
    if not base_url or not hasattr(model.api, "client"):
        return
    address = without_secrets(base_url)
    try:
        with OpenAI(base_url=base_url, api_key=key or "none", max_retries=1, timeout=20) as client:
            served = client.models.list().data
    except APIConnectionError as error:
        raise MedXpertQAError(f"nobody answers at {address} ({told(error, key)}); is it up?") from None
    except APIStatusError as error:
        if error.status_code in (401, 403):
            raise MedXpertQAError(f"{address} refuses the key: {told(error, key)}") from None
        return  # not every endpoint lists its models
    limit = _context(served, getattr(model.api, "service_model_name", lambda: model.name)())
    if limit is None:
        return
    if longest / CHARACTERS_PER_TOKEN + max_tokens > limit:
        raise MedXpertQAError(
            f"{address} has a context of {limit} tokens, but the longest question needs about "
            f"{longest // 4} and its reply may have {max_tokens}; start the server with a longer context, "
            "or lower --max-tokens"
        )
    if longest / CHARACTERS_PER_TOKEN + max_tokens * turns > limit:
        message = (
            f"{address} has a context of {limit} tokens: a question may fail in its second turn if its "
            f"first reply comes near {max_tokens}"
        )
        warnings.warn(message, MedXpertQAWarning, stacklevel=3)


def _context(served: Sequence[Any], name: str) -> int | None:
    """The context of a served model, None if it is not told; one that is alone may go by another name."""
    named = [entry for entry in served if entry.id == name] or (served if len(served) == 1 else [])
    return getattr(named[0], "max_model_len", None) if named else None


def _plain(message: object) -> str:
    return " ".join(re.sub(r"\[/?(?:bold|blue|red|yellow|italic)\]", "", str(message)).split())
