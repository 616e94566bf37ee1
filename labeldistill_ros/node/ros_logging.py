# SPDX-License-Identifier: Apache-2.0
"""Logging of a node: the same complaint at most once in a while, and Python's loggers as ROS's."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.logging import get_logger_level, set_logger_level

_LIFECYCLE = "rcl_lifecycle"
"""Name of rcl's logger of lifecycle nodes."""


class ThrottledLog:
    """Says a thing again only after a pause, with how often it was true; from any thread."""

    def __init__(self, logger: RcutilsLogger, period_s: float = 5.0) -> None:
        """Log through `logger`."""
        self._logger, self._period_s = logger, period_s
        self._lock = threading.Lock()
        self._said_s: dict[str, float] = {}
        self._silent: Counter[str] = Counter()

    def _due(self, key: str, text: str, period_s: float | None = None) -> str:
        """The text to log, or nothing."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._said_s.get(key, -1e9) < (period_s or self._period_s):
                self._silent[key] += 1
                return ""
            self._said_s[key] = now_s
            # What was kept silent is told with the next line, so that a rare complaint and one at
            # every image can be told apart.
            again = self._silent.pop(key, 0)
        return f"{text} (and {again} times before)" if again else text

    def warning(self, key: str, text: str, period_s: float | None = None) -> None:
        """Log a warning; `key` says which complaints are the same.

        Args:
            key: names the complaint.
            text: what is wrong.
            period_s: the pause, where it is not the usual one.
        """
        if line := self._due(key, text, period_s):
            self._logger.warning(line)

    def info(self, key: str, text: str) -> None:
        """Log what is no complaint; `key` says which texts are the same."""
        if line := self._due(key, text):
            self._logger.info(line)

    def error(self, key: str, text: str) -> None:
        """Log an error; `key` says which complaints are the same."""
        if line := self._due(key, text):
            self._logger.error(line)


class RosHandler(logging.Handler):
    """Passes records of Python's `logging` on to a node's logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Log through `logger`."""
        super().__init__()
        self._logger = logger
        # ROS writes level, time and node in front of each line by itself.
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record at the level of ROS that is nearest to its own."""
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def log_through(logger: RcutilsLogger) -> RosHandler:
    """Send what Python's loggers say through a node's, at its level; remove the handler at the end.

    rcl warns of a lifecycle transition that does not exist with the name that the caller sent,
    however long and with whatever control characters. The caller is answered; the log goes without,
    unless `--log-level rcl_lifecycle:=...` wants it.
    """
    handler = RosHandler(logger)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    if logger.is_enabled_for(LoggingSeverity.DEBUG):
        logging.getLogger("labeldistill_core").setLevel(logging.DEBUG)
        logging.getLogger("labeldistill_ros").setLevel(logging.DEBUG)
    if get_logger_level(_LIFECYCLE) == LoggingSeverity.UNSET:
        set_logger_level(_LIFECYCLE, LoggingSeverity.ERROR)
    return handler
