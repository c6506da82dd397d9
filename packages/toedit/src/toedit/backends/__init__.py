"""Where the prior's scores come from: one module a library, imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toedit.errors import ToEditError

if TYPE_CHECKING:
    from toedit.backends.base import Backend

_CLASSES = {
    "transformers": "TransformersBackend",
    "vllm": "VllmBackend",
    "llama_cpp": "LlamaCppBackend",
}

NAMES = tuple(_CLASSES)


def backend_class(name: str) -> Any:
    """The class behind a name of `NAMES`: `cls(model, **options)` and `cls.from_pretrained(name, cfg, ...)`.

    Raises `ToEditError` for other names.
    """
    if name not in _CLASSES:
        raise ToEditError(f"there is no backend {name!r}; there are: {', '.join(NAMES)}")
    return getattr(import_module(f"toedit.backends.{name}"), _CLASSES[name])


def is_backend(model: Any) -> bool:
    """Whether `model` already is a `Backend`, one of ours or the user's own."""
    return all(hasattr(model, name) for name in ("score", "vocab_size", "max_window", "workload"))


__all__ = ["NAMES", "Backend", "backend_class", "is_backend"]
