"""Makes `from_pretrained` of transformers know saved models once `memoryformer` was imported.

Importing the models of transformers takes several times as long as all the rest, so nothing is imported for
that until somebody imports them: then `memoryformer.hf` is imported right after, and registers its models,
and the loading of changed ones, which a model's own class does without asking the Auto classes.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from memoryformer.errors import MemoryFormerWarning

# With one of these, `from_pretrained` can be called.
LOADERS = ("transformers.models.auto.configuration_auto", "transformers.modeling_utils")


def register_with_transformers() -> None:
    """Register at once if the models of transformers are imported, else as soon as they are."""
    if not _register_if_loaded():
        sys.meta_path.insert(0, _Watch())


def _register_if_loaded() -> bool:
    if not any(name in sys.modules for name in LOADERS):
        return False
    if "memoryformer.hf" not in sys.modules:
        try:
            importlib.import_module("memoryformer.hf")
        except Exception as error:  # of another version of transformers: its own import must not fail for it
            warnings.warn(
                f"transformers does not know the models of memoryformer: {error}",
                MemoryFormerWarning,
                stacklevel=2,
            )
    return True


class _Watch:
    """A finder that finds nothing itself, and notices when an import of transformers is complete.

    Modules of transformers import each other in circles; only when the outermost import has ended, all that
    `memoryformer.hf` needs can be imported.
    """

    def __init__(self) -> None:
        self._running = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find for a module of transformers; the end of its import is noted."""
        if not name.startswith("transformers."):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            loader: Any = spec.loader
            loader.exec_module = functools.partial(self._execute, loader.exec_module)
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        outermost = not getattr(self._running, "an_import", False)
        self._running.an_import = True
        try:
            execute(module)
        finally:
            if outermost:
                self._running.an_import = False
        if outermost and _register_if_loaded() and self in sys.meta_path:
            sys.meta_path.remove(self)
