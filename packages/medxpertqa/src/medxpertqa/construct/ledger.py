"""Every call of a model, kept line by line: what was once asked is never asked again.

A call is known by the hash of model, messages, parameters and sample number, so that a run with other
thresholds, or one that was killed, asks only what is new. The file holds questions: keep it out of version
control.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Any, Protocol

from medxpertqa.errors import DataError, MedXpertQAError


class ChatModel(Protocol):
    """Something that answers messages in the OpenAI form; `name` says which model and whose it is."""

    name: str

    def __call__(self, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> str:
        """Return the text of the reply; raise if there is none."""


class Ledger:
    """Use as a context manager: it holds a lock, so that two runs on one folder do not pay twice."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.new_calls = 0
        self._replies: dict[str, str] = {}
        self._under_way: dict[str, Event] = {}
        self._stopped = False
        self._lock = Lock()

    def __enter__(self) -> Ledger:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+")
        try:
            _lock_file(self._file)
        except OSError:
            self._file.close()
            raise MedXpertQAError(
                f"{self.path} is in use by another run: wait for it, or choose another folder"
            ) from None
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def stop(self) -> None:
        """Make no new call: what is under way in other threads is still kept."""
        self._stopped = True

    def ask(
        self, model: ChatModel, messages: Sequence[Mapping[str, Any]], sample: int = 0, **parameters: Any
    ) -> str:
        """Return the model's reply to the messages, from the file if it is there.

        `sample` tells repeated calls with the same messages apart. A reply is on disk before it is returned.
        Threads may ask at once; a call that another thread is making is waited for.
        """
        asked = json.dumps([model.name, list(messages), sample, parameters], sort_keys=True)
        key = hashlib.sha256(asked.encode()).hexdigest()
        while True:
            with self._lock:
                if key in self._replies:
                    return self._replies[key]
                answered = self._under_way.get(key)
                if answered is None:
                    self._under_way[key] = Event()
                    break
            answered.wait()  # if the other thread got no reply, this one tries
        try:
            if self._stopped:
                raise MedXpertQAError("the run was stopped")
            reply = model(messages, **parameters)
            about = {"key": key, "model": model.name, "sample": sample}
            self._write(key, {**about, "messages": list(messages), "reply": reply})
        finally:
            with self._lock:
                self._under_way.pop(key).set()
        return reply

    def _write(self, key: str, line: Mapping[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._replies[key] = line["reply"]
            self.new_calls += 1

    def _read(self) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break  # a killed run's half line
            try:
                record = json.loads(line)
                self._replies[record["key"]] = record["reply"]
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{self.path}, line {number}: no call of a model; mend or remove the line"
                ) from None
            end += len(line)
        self._file.truncate(end)


def _lock_file(file: Any) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
