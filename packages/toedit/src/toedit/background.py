"""Work beside the forward pass: one thread that reads ahead, one that writes behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_PATIENCE = 0.1  # seconds between two looks whether the other side is still there
_END = object()


@contextmanager
def reading_ahead(items: Iterable[T], size: int) -> Iterator[Iterator[T]]:
    """The same items, made in a thread, up to `size` in advance; its errors are raised here."""
    queue: Queue[Any] = Queue(size)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=_PATIENCE)
            except Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    def consume() -> Iterator[T]:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    thread = threading.Thread(target=produce, name="toedit-reader", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()


class WritingBehind(Generic[T]):
    """Calls `work` with each item in a thread, in order, at most `size` behind.

    Leaving the `with` block waits for the rest, also after an error or Ctrl-C in the block. An error in the
    thread is raised at the next `put` or at the end.
    """

    def __init__(self, work: Callable[[T], None], size: int) -> None:
        self._work = work
        self._queue: Queue[Any] = Queue(size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._consume, name="toedit-writer", daemon=True)

    def put(self, item: T) -> None:
        """Hand over an item."""
        while True:
            self._raise()
            try:
                return self._queue.put(item, timeout=_PATIENCE)
            except Full:
                continue

    def __enter__(self) -> WritingBehind[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(_END, timeout=_PATIENCE)
                break
            except Full:
                continue
        self._thread.join()
        if kind is None:
            self._raise()

    def _consume(self) -> None:
        try:
            while (item := self._queue.get()) is not _END:
                self._work(item)
        except BaseException as error:
            self._error = error
            while not self._queue.empty():  # nobody is to wait for room
                try:
                    self._queue.get_nowait()
                except Empty:
                    break

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
