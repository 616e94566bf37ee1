# SPDX-License-Identifier: Apache-2.0
"""At most so many sets a second, by their stamps. No ROS in here."""

from __future__ import annotations

_SLACK = 0.1
"""Share of a period by which a set may come early: stamps jitter."""
_LONGEST_NS = 1e18
"""Infinity, which the period of the smallest rates is, would be due now and always."""


class RateLimit:
    """Lets sets through that are far enough apart."""

    def __init__(self) -> None:
        """Begin with the next set due, whatever its stamp."""
        self._due_ns: float | None = None

    def passes(self, stamp_ns: int, rate_hz: float) -> bool:
        """Whether a set is due; 0 lets all through. Time that jumps starts it afresh."""
        if rate_hz <= 0:
            self._due_ns = None
            return True
        period_ns = min(1e9 / rate_hz, _LONGEST_NS)
        # More than a period early is time that went back; more than a period late is a pause, after
        # which counting from the old schedule would let a burst through.
        if self._due_ns is None or not -period_ns < self._due_ns - stamp_ns <= period_ns:
            self._due_ns = stamp_ns
        if self._due_ns - stamp_ns > _SLACK * period_ns:
            return False
        # From the schedule and not from the stamp, so that the mean rate is exact although stamps
        # jitter.
        self._due_ns += period_ns
        return True
