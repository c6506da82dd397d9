"""log.txt of a run, and what the person at the terminal is told."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from tenfold.storage import Tell


class RunLog:
    """Appends lines with the time to log.txt; the trial processes write to the same file."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.path = path
        self._tell = tell

    def write(self, text: str) -> None:
        """Append `text` to the log."""
        line = f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text.rstrip()}\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode(errors="replace"))
        finally:
            os.close(descriptor)

    def tell(self, text: str) -> None:
        """Append `text` to the log and show it to the person."""
        self.write(text)
        self._tell(text)
