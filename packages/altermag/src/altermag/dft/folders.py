"""A folder that belongs to one calculation: locked while it runs, and never mistaken for another's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from altermag.dft.results import write_whole
from altermag.errors import AltermagError

INPUTS, RESULT, LOCK = "inputs.json", "result.json", ".lock"


@contextmanager
def own_folder(folder: Path, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder that of these inputs for as long as the `with` lasts.

    Raises `AltermagError` if another process computes there, or the folder is that of other inputs.
    """
    import fcntl  # no Windows: neither has GPAW

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AltermagError(
                f"{folder}: another process computes here; wait, or use another folder"
            ) from error
        claim(folder, inputs)
        yield


def claim(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Write what the folder is of, with its sum. Raises `AltermagError` if it is that of other inputs."""
    marker, wanted = folder / INPUTS, digest(inputs)
    if not marker.exists():
        write_whole(marker, json.dumps({"sha256": wanted, "inputs": inputs}, indent=1))
        return
    found = json.loads(marker.read_text(encoding="utf-8"))
    if found["sha256"] != wanted:
        before = found["inputs"]
        changed = [name for name in inputs if digest({"": before.get(name)}) != digest({"": inputs[name]})]
        raise AltermagError(
            f"{folder} holds a calculation with another {' and '.join(changed)}; "
            "use another folder, or remove this one"
        )


def digest(inputs: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the inputs as canonical JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
