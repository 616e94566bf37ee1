# SPDX-License-Identifier: Apache-2.0
"""Threads that decode images and that nobody has to wait for at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from labeldistill_core.errors import DataError

T = TypeVar("T")


class DecodePool:
    """Calls functions in threads of its own; safe in any thread.

    `concurrent.futures.ThreadPoolExecutor` waits for its threads, at the latest when Python ends.
    A decoder cannot be interrupted, and bytes from outside must not decide when a node stops.
    """

    def __init__(self, threads: int) -> None:
        """Start the threads, which wait for work."""
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"decode {i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """Call a function later, with what it raises or returns in the future.

        After `close` the future is that of an image which was not decoded.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(_given_up())
                return future
            self._open.add(future)
        self._calls.put(lambda: self._call(future, call, args))
        return future

    @property
    def backlog(self) -> int:
        """How many calls have not ended."""
        return len(self._open)

    def close(self) -> None:
        """End at once: who waits for a result gets a `DataError`, and a thread that hangs is left.

        Such a thread ends with the call that it is in, or with the process.
        """
        with self._lock:
            self._closed = True
            for future in self._open:
                if not future.done():
                    _finish(future.set_exception, _given_up())
        for _ in self._threads:
            self._calls.put(None)

    def _run(self) -> None:
        while call := self._calls.get():
            call()
            del call  # or an image lives on while the thread waits

    def _call(self, future: Future[T], call: Callable[..., T], args: tuple[Any, ...]) -> None:
        with self._lock:
            begins = not self._closed and future.set_running_or_notify_cancel()
        if begins:
            try:
                result = call(*args)
            except BaseException as error:
                _finish(future.set_exception, error)
            else:
                _finish(future.set_result, result)
        with self._lock:
            self._open.discard(future)


def _finish(tell: Callable[[T], None], what: T) -> None:
    # The decoder and `close` may want to end a future at the same time; the first one counts.
    with suppress(InvalidStateError):
        tell(what)


def _given_up() -> DataError:
    return DataError("the image was still being decoded when the decoding was ended")
