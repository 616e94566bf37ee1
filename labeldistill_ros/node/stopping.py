# SPDX-License-Identifier: Apache-2.0
"""Signals that end the node: its loop ends, and all is released while ROS still works.

rclpy's own handlers would take the context away under the worker's thread.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


class StopSignals:
    """Remembers a signal; only for the main thread, which alone is given them."""

    def __init__(self) -> None:
        """Take the signals over; they end the start, see `running`."""
        self.number = 0
        """Of the signal that came; 0 before one has come."""
        self.running = False
        """Whether the start is over. Before, a signal raises `KeyboardInterrupt`, since loading and
        warming up take long; afterwards whoever loops looks at `number`."""
        self.loading: Callable[[], bool] = lambda: False
        """Says whether what is loaded holds the loop up, when a lifecycle manager configures."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)
        # As when a terminal is closed; whoever starts the node by nohup wants it to go on.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        first, self.number = not self.number, number
        if first and (self.loading() or not self.running):
            raise KeyboardInterrupt
