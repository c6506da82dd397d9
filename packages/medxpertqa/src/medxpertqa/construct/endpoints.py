"""A model behind an OpenAI-compatible endpoint, for the stages of the construction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from threading import Semaphore
from typing import Any

from medxpertqa.construct.settings import ModelSettings
from medxpertqa.engine.messages import Images, openai_messages
from medxpertqa.engine.running import RETRIES
from medxpertqa.errors import DataError, MedXpertQAError, MissingExtraError, RequestError
from medxpertqa.secrecy import without_secrets


class EndpointModel:
    """Answers messages by the `openai` client, which waits and tries again when the endpoint is busy.

    Threads may share it: it lets `max_connections` of them through at once. `images` gives type and bytes of
    the images that messages name.
    """

    def __init__(self, settings: ModelSettings, images: Images | None = None) -> None:
        try:
            from openai import OpenAI
        except ImportError:
            raise MissingExtraError(
                "asking a model needs an optional extra: pip install 'medxpertqa[eval]'"
            ) from None
        key = os.environ.get(settings.key_variable)
        if not key and not settings.is_local:
            raise MedXpertQAError(f"{settings.model}: set {settings.key_variable} to the endpoint's key")
        self.name = f"{settings.model} at {without_secrets(settings.base_url)}"
        self._model, self._images = settings.model, images or _no_images
        self._places = Semaphore(settings.max_connections)
        self._client = OpenAI(base_url=settings.base_url, api_key=key or "none", max_retries=RETRIES)

    def __call__(self, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> str:
        """Return the reply's text, "" if there is none: a refusal, or too few tokens for reasoning.

        Raises:
            RequestError: the endpoint does not take this request.
            MedXpertQAError: the endpoint fails, after ten tries if it is one that may pass.
        """
        from openai import APIStatusError, OpenAIError

        plain: Any = openai_messages([dict(message) for message in messages], self._images)
        try:
            with self._places:
                reply = self._client.chat.completions.create(model=self._model, messages=plain, **parameters)
        except OpenAIError as error:
            status = error.status_code if isinstance(error, APIStatusError) else 0
            problem = f"{self.name}: {type(error).__name__}{f' (HTTP {status})' if status else ''}"
            if status in (400, 413, 422):
                raise RequestError(problem) from None
            raise MedXpertQAError(
                f"{problem}; what was answered is kept, and the same again goes on"
            ) from None
        if not reply.choices or reply.choices[0].finish_reason == "content_filter":
            return ""  # what a filter leaves is no reply
        return str(reply.choices[0].message.content or "")


def _no_images(name: str) -> tuple[str, bytes]:
    raise DataError(f"there is nowhere to take the image {name} from")
