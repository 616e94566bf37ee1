# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM, as one stop however often they come."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from typing_extensions import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_STOP_S = 2.0
"""Signals so near to each other are one stop."""


class StopRequest:
    """Calls a function in the main thread when Ctrl-C or SIGTERM asks for a stop in its block.

    A terminal, a scheduler or `timeout` may signal a process and those that it started, which it
    tells to stop as well, or one process twice. What comes shortly after a signal is therefore
    passed over; whoever really asks a second time does so later.
    """

    def __init__(self, on_stop: Callable[[int], None]) -> None:
        """Call `on_stop` with the number of the signal; what it raises comes up where code is."""
        self._on_stop = on_stop
        self._last_s = -math.inf
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals; only a main thread is given them."""
        # Work in a thread, as in a notebook or a test, is ended by whoever started it.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Take them over again, where a library has them by now."""
        for number in self._before:
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: object) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= ONE_STOP_S:
            self._last_s = now_s
            self._on_stop(number)
