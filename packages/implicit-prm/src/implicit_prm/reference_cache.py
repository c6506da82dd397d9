"""The reference's log-probs of a whole data set, in one memory-mapped file that says what it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.token_store import Integers, TokenStore

Floats = npt.NDArray[np.float32]

# What configs say of where a model came from and how it is used, and not of what it computes.
_WHENCE = {"_name_or_path", "transformers_version", "use_cache"}
_WHENCE |= {"base_model_name_or_path", "peft_version", "revision", "inference_mode"}


def model_digest(model: nn.Module, *, adapter_off: bool = False) -> str:
    """SHA-256 of what a model computes: its config, and names, shapes and bytes of its weights.

    Of a PEFT model with its adapters, their configs and which is active; `adapter_off` leaves them out, as
    what the base computes does not depend on them.
    """
    digest = hashlib.sha256()
    for settings in _settings(model, adapter_off):
        kept = {key: value for key, value in settings.items() if key not in _WHENCE}
        digest.update(json.dumps(kept, sort_keys=True, default=_readable).encode())
    adapter = getattr(getattr(model, "base_model", None), "prefix", None) if adapter_off else None
    for name, weight in model.state_dict().items():
        if adapter is not None and (adapter in name or "modules_to_save" in name):
            continue
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class ReferenceCache:
    """float32 log-probs of the completion tokens of a store, end to end; NaN where they are not yet known.

    The file is made whole before it gets its name, and filled row by row, so that a run that was interrupted
    goes on. Processes share it; each writes rows of its own.
    """

    def __init__(self, folder: str | Path, key: str, store: TokenStore) -> None:
        self.path = Path(folder) / f"{key}.npy"
        ends = np.cumsum(store.completion_lengths)
        self._bounds = np.concatenate([[0], ends])

    def create(self) -> None:
        """Make the file where there is none; the disk's space is taken now, not while rows are written."""
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.save(file, np.full(int(self._bounds[-1]), np.nan, np.float32))
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def open(self, writable: bool = False) -> Floats:
        """The values, memory-mapped. Raises `ImplicitPRMError` where the file is missing or of other data."""
        try:
            values = np.load(self.path, mmap_mode="r+" if writable else "r")
        except FileNotFoundError:
            raise ImplicitPRMError(
                f"{self.path} is not there; reference_cache_dir must be on a file system that all "
                "processes share"
            ) from None
        except (ValueError, EOFError) as error:
            raise ImplicitPRMError(f"{self.path} cannot be read ({error}); remove it") from error
        if values.shape != (self._bounds[-1],) or values.dtype != np.float32:
            raise ImplicitPRMError(
                f"{self.path} has {values.shape[0]} log-probs for {self._bounds[-1]} tokens; remove it"
            )
        return values

    def missing(self, values: Floats) -> Integers:
        """The rows that are not known yet."""
        return np.flatnonzero(np.isnan(np.add.reduceat(values, self._bounds[:-1])))

    def write(self, values: Floats, row: int, log_probs: Floats) -> None:
        """Put the log-probs of a row's completion into the file."""
        values[self._bounds[row] : self._bounds[row + 1]] = log_probs


def _settings(model: Any, adapter_off: bool) -> Iterator[Mapping[str, Any]]:
    """The config, and those of its adapters: their weights alone do not say by how much they count."""
    if getattr(model, "config", None) is not None:
        yield model.config.to_dict()
    if hasattr(model, "peft_config") and not adapter_off:
        active = model.active_adapters
        yield {"active": active() if callable(active) else active}
        for name, config in model.peft_config.items():
            yield {"adapter": name} | config.to_dict()


def _readable(value: Any) -> Any:
    """A set has another order in every process."""
    return sorted(value) if isinstance(value, set) else str(value)
