"""A protocol's messages with the bytes of their images in them: for OpenAI's JSON and for inspect-ai."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from medxpertqa.protocols import Message

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage

Images = Callable[[str], tuple[str, bytes]]
"""From the file name of an image to its MIME type, sniffed from the content, and its bytes."""


def data_uri(images: Images, name: str) -> str:
    """The image as base64 with its type, the one form that every provider takes."""
    mime, data = images(name)
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def openai_messages(messages: Sequence[Message], images: Images) -> list[dict[str, Any]]:
    """The messages as /chat/completions takes them."""

    def part(shown: Message) -> dict[str, Any]:
        if shown["type"] == "image":
            return {"type": "image_url", "image_url": {"url": data_uri(images, shown["image"])}}
        return shown

    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [part(shown) for shown in message["content"]]}
        for message in messages
    ]


def chat_messages(messages: Sequence[Message], images: Images) -> list[ChatMessage]:
    """The messages as inspect-ai takes them."""
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        Content,
        ContentImage,
        ContentText,
    )

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}

    def part(shown: Message) -> Content:
        if shown["type"] == "image":
            return ContentImage(image=data_uri(images, shown["image"]))
        return ContentText(text=shown["text"])

    return [
        kinds[message["role"]](
            content=message["content"]
            if isinstance(message["content"], str)
            else [part(shown) for shown in message["content"]]
        )
        for message in messages
    ]
