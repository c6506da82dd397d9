"""The parameters of a request: those of the protocol with what a user changes, and which may be changed."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from medxpertqa.errors import MedXpertQAError
from medxpertqa.protocols import Protocol
from medxpertqa.secrecy import without_secrets


def request_settings(protocol: Protocol, altered: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters of a request in inspect-ai's names; each provider writes max_tokens in its own way.

    One that is altered to None is left out, which `max_tokens` cannot be: `MedXpertQAError`.
    """
    if (altered or {}).get("max_tokens", 1) is None:
        raise MedXpertQAError("max_tokens = null: it must be at least 1")
    names = {"max_completion_tokens": "max_tokens"}
    settings = {names.get(key, key): value for key, value in protocol.generate_config.items()}
    return {key: value for key, value in (settings | dict(altered or {})).items() if value is not None}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `MedXpertQAError` for a setting that is unknown, cannot be, or holds a secret.

    inspect-ai itself passes over a setting that it does not know, and stands still with no connection.
    """
    from inspect_ai.model import GenerateConfig
    from pydantic import ValidationError

    if without_secrets(settings) != settings:  # settings are told with the results, and inspect-ai logs them
        raise MedXpertQAError(
            "a setting holds a key, a token or a password, and settings are logged: give it in the "
            "environment, or to the client by --model-arg default_headers=..., which is not"
        )
    unknown = sorted(settings.keys() - GenerateConfig.model_fields.keys())
    if unknown:
        near = get_close_matches(unknown[0], GenerateConfig.model_fields, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise MedXpertQAError(f"inspect-ai has no setting {unknown[0]}{meant}")
    try:
        config = GenerateConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise MedXpertQAError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None
    for name in ("max_connections", "max_tokens"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise MedXpertQAError(f"{name} = {value}: it must be at least 1")
