"""The reference's log-probs of a whole data set, in one memory-mapped file that says what it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.token_store import Integers, TokenStore

Floats = npt.NDArray[np.float32]


def model_digest(model: nn.Module) -> str:
    """SHA-256 of what a model computes: its config, and names, shapes and bytes of its weights.

    Of a PEFT model that of its base: the adapter's weights are left out.
    """
    digest = hashlib.sha256()
    config = getattr(model, "config", None)
    if config is not None:
        where_it_came_from = {"_name_or_path", "transformers_version", "use_cache"}
        kept = {key: value for key, value in config.to_dict().items() if key not in where_it_came_from}
        digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    adapter = getattr(getattr(model, "base_model", None), "prefix", None) if _is_peft(model) else None
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


def _is_peft(model: nn.Module) -> bool:
    return hasattr(model, "peft_config")
