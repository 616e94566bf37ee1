# SPDX-License-Identifier: Apache-2.0
"""A worker thread whose queue has a single slot: the newest item wins. No ROS in here."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


class SingleSlotWorker(Generic[T]):
    """Calls `work` with one item after the other, in a thread of its own.

    While it is busy, a new item takes the place of the one that waits, so that the delay never
    grows beyond two calls.
    """

    def __init__(self, work: Callable[[T], None], name: str) -> None:
        """Start the thread, which waits for its first item."""
        self.work = work
        """What is done with an item; another function counts from the next item on."""
        self.failed = False
        """Whether an exception came out of `work`; the log has its traceback."""
        self._changed = threading.Condition()
        self._waiting: T | None = None
        self._stopped = self._busy = False
        self._submitted_s, self._period_s = -math.inf, math.inf
        self._free_s = -math.inf
        self._took_s = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: T) -> T | None:
        """Hand in an item, which replaces the one that waits.

        Returns:
            The item whose place it took.
        """
        with self._changed:
            # The time between the last two items foretells when the next one comes; see
            # `will_take`.
            now_s = time.monotonic()
            self._period_s, self._submitted_s = now_s - self._submitted_s, now_s
            replaced, self._waiting = self._waiting, item
            self._changed.notify()
        return replaced

    @property
    def idle(self) -> bool:
        """Whether nothing is in work and nothing waits."""
        return not self._busy and self._waiting is None

    @property
    def will_take(self) -> bool:
        """Whether the newest item is likely to be worked on.

        So it is when the work in hand, if it takes as long as the last, ends before the next item
        comes, if that comes as long after this one as this one came after the one before. Of work
        that has taken twice as long as the last nothing is known.
        """
        stalled = self._busy and self._submitted_s > self._free_s + self._took_s
        return not stalled and self._free_s <= self._submitted_s + self._period_s

    def withdraw(self) -> T | None:
        """Take back the item that waits."""
        with self._changed:
            waiting, self._waiting = self._waiting, None
        return waiting

    def stop(self, timeout_s: float) -> bool:
        """End after the item that is in work; the one that waits is dropped.

        Returns:
            Whether the thread ended in time.
        """
        with self._changed:
            self._stopped, self._waiting = True, None
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._waiting is not None)
                if self._stopped:
                    return
                item, self._waiting = self._waiting, None
                self._busy = True
            assert item is not None
            start_s = time.monotonic()
            self._free_s = start_s + self._took_s
            try:
                self.work(item)
            except Exception:  # the thread outlives whatever one item does
                self.failed = True
                _LOG.exception("an item was dropped")
            self._took_s = time.monotonic() - start_s
            del item  # or what it holds lives on beside that of the next
            self._busy = False
