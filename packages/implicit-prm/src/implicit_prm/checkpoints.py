"""Which checkpoint of an interrupted run is whole."""

from __future__ import annotations

import json
from pathlib import Path


def last_checkpoint(folder: str | Path, processes: int = 1) -> Path | None:
    """The newest whole checkpoint of a `transformers.Trainer` in `folder`, or None.

    The Trainer writes straight into the checkpoint's folder, so a run that was killed may leave a part of
    one. `trainer_state.json` is what it writes last, and every one of `processes` writes a random state.
    """
    found = {int(path.name.rsplit("-", 1)[1]): path for path in Path(folder).glob("checkpoint-*[0-9]")}
    for _, path in sorted(found.items(), reverse=True):
        if _is_whole(path, processes):
            return path
    return None


def _is_whole(path: Path, processes: int) -> bool:
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    try:
        json.loads((path / "trainer_state.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return all((path / state).is_file() for state in states)
