# SPDX-License-Identifier: Apache-2.0
"""Spinning that outlives a callback that fails."""

from __future__ import annotations

import logging
import time
import traceback

import rclpy.time
from rclpy.executors import Executor

_LOG = logging.getLogger(__name__)
_QUIET_S = 5.0
_MAX_TEXTS = 100


class Spinner:
    """Spins an executor; an exception out of a callback is told and spinning goes on.

    rclpy's own callbacks raise too, as its clock does over a time before 1970.
    """

    def __init__(self, executor: Executor) -> None:
        """Take the executor; nothing is spun before `spin_once`."""
        self._executor = executor
        self._told_s: dict[str, float] = {}
        self.failed = False
        """Whether something failed that no message from outside explains."""

    def spin_once(self, timeout_s: float) -> None:
        """Run what is ready, and wait for it at most `timeout_s`."""
        try:
            self._executor.spin_once(timeout_sec=timeout_s)
        except Exception as error:  # told with its traceback and by the exit code
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        impossible_time = bool(frames) and frames[-1].filename == rclpy.time.__file__
        self.failed |= not impossible_time
        text = f"{type(error).__name__}: {error}"[:300]
        now_s = time.monotonic()
        if now_s - self._told_s.get(text, -_QUIET_S) < _QUIET_S:
            return
        if len(self._told_s) >= _MAX_TEXTS:
            # Texts may hold what came from outside, so their number is bounded.
            self._told_s.clear()
        self._told_s[text] = now_s
        if impossible_time:
            _LOG.warning("a message has a time that ROS cannot tell, and was ignored: %s", text)
        else:
            _LOG.error("a callback failed, and the node goes on: %s", text, exc_info=error)
