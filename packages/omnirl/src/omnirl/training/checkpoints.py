"""One file that holds a whole run: replaced in one go, so that there is always a good one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from omnirl.errors import OmniRLError

LAST = "last.pt"


def save_state(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` (tensors and plain values) to `folder`/last.pt; a kill leaves the old file or the new."""
    path, part = folder / LAST, folder / f"{LAST}.part"
    with part.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    return path


def load_state(folder: Path) -> dict[str, Any] | None:
    """What `save_state` wrote, on whatever device, with its tensors on the CPU; None where there is nothing.

    Raises `OmniRLError` for a damaged file.
    """
    path = folder / LAST
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise OmniRLError(f"{path} is damaged ({error}); delete it to begin anew") from error
    return state
