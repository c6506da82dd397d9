"""Tasks on disk: one .npz, written whole or not at all, read without pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnirl.errors import OmniRLError

FORMAT = 1


def save_arrays(path: str | Path, kind: str, values: Mapping[str, Any]) -> None:
    """Write arrays, numbers and strings to `path`, through a temporary file beside it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, omnirl=np.array([kind, str(FORMAT)]), **values)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_arrays(path: str | Path, kind: str) -> dict[str, Any]:
    """Read what `save_arrays` wrote; scalars come back as Python values.

    Raises `OmniRLError` if the file is missing, broken, or holds another kind of thing.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise OmniRLError(f"{path}: there is no such file") from None
    except ValueError as error:  # numpy's own words are about reading it as a pickle, which is never done
        raise OmniRLError(f"{path} cannot be read as a saved {kind}: it is no .npz file of arrays") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise OmniRLError(f"{path} cannot be read as a saved {kind}: {error}") from error
    header = values.pop("omnirl", None)
    if header is None or header.tolist() != [kind, str(FORMAT)]:
        found = "no omnirl file" if header is None else " ".join(header.tolist())
        raise OmniRLError(f"{path} is not a {kind} of format {FORMAT}; it is: {found}")
    return {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
