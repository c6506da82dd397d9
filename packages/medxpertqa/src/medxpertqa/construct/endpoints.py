"""A model behind an OpenAI-compatible endpoint, for the stages of the construction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from medxpertqa.construct.settings import ModelSettings
from medxpertqa.engine.messages import Images, openai_messages
from medxpertqa.errors import DataError, MedXpertQAError, MissingExtraError


class EndpointModel:
    """Answers messages by the `openai` client, which waits and tries again when the endpoint is busy.

    `images` gives type and bytes of the images that messages name.
    """

    def __init__(self, settings: ModelSettings, images: Images | None = None) -> None:
        try:
            from openai import OpenAI
        except ImportError:
            raise MissingExtraError("asking a model", "eval") from None
        key = os.environ.get(settings.key_variable)
        if not key and not settings.is_local:
            raise MedXpertQAError(f"{settings.model}: set {settings.key_variable} to the endpoint's key")
        self.name = f"{settings.model} at {settings.base_url}"
        self._model, self._images = settings.model, images or _no_images
        self._client = OpenAI(base_url=settings.base_url, api_key=key or "none", max_retries=10)

    def __call__(self, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> str:
        """Return the reply's text. Raises `MedXpertQAError` if the endpoint fails or the reply is empty."""
        from openai import OpenAIError

        plain: Any = openai_messages([dict(message) for message in messages], self._images)
        try:
            reply = self._client.chat.completions.create(model=self._model, messages=plain, **parameters)
        except OpenAIError as error:
            raise MedXpertQAError(f"{self.name}: {type(error).__name__}; what was answered is kept") from None
        text = reply.choices[0].message.content if reply.choices else None
        if not text:
            raise MedXpertQAError(f"{self.name}: an empty reply (a refusal, or too few tokens for reasoning)")
        return str(text)


def _no_images(name: str) -> tuple[str, bytes]:
    raise DataError(f"there is nowhere to take the image {name} from")
