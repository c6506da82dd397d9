"""log.txt of a run, and what the person at the terminal is told."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tenfold.storage import Tell, append_line


class RunLog:
    """Appends lines with the time to log.txt; the trial processes write to the same file."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.path = path
        self._tell = tell

    def write(self, text: str) -> None:
        """Append `text` to the log."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        append_line(self.path, f"{now} {text.rstrip()}", sync=False)

    def tell(self, text: str) -> None:
        """Append `text` to the log and show it to the person."""
        self.write(text)
        self._tell(text)
