# SPDX-License-Identifier: Apache-2.0
"""When a detector that was given up is tried again. No ROS in here."""

from __future__ import annotations

import math

FIRST_S = 5.0
"""Pause after the detector was given up for the first time."""
LONGEST_S = 320.0
"""No pause is longer."""


class RestartPause:
    """A pause that doubles each time, until the detector has worked for longer than it."""

    def __init__(self, first_s: float = FIRST_S) -> None:
        """Nothing has failed yet."""
        self._first_s, self._pause_s = first_s, 0.0
        self._due_s = -math.inf

    def next_s(self, now_s: float) -> float:
        """How long to wait now that the detector was given up; steady clock."""
        # Measured from the end of the last pause: a detector that outlives what the next pause
        # would be is taken as well, and begins with the first again.
        worked_s = now_s - self._due_s
        doubled_s = min(2 * self._pause_s, LONGEST_S)
        self._pause_s = max(self._first_s, 0.0 if worked_s > doubled_s else doubled_s)
        self._due_s = now_s + self._pause_s
        return self._pause_s
