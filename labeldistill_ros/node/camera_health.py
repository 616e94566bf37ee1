# SPDX-License-Identifier: Apache-2.0
"""What came from one camera, and what that says of it. Times are of the steady clock."""

from __future__ import annotations

from collections import Counter, deque
from itertools import pairwise
from statistics import median
from typing import Any

from labeldistill_core.names import plain_text

RECENT_S = 5.0
"""Time over which a camera's rate is taken; problems are reported for as long."""
FAR_S = 5.0
"""No queue and no playback make stamps that far from the node's clock; a wrong clock does."""
_LOST = 2.5
"""Periods without an image after which a camera is silent: one lost image makes a gap of two."""
_GAPS = 16
"""Gaps between images whose median is the period."""
_STAMPS = 15
"""Stamps whose median is compared with the node's clock, so that a single stray one is none."""
_MOVED_S = 0.005
"""A camera's phase that moves further is reported."""


class CameraHealth:
    """Counters of one camera; not thread-safe."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.encoding = self.frame_id = self.size = ""
        self.offset_s: float | None = None
        self._moved, self._moved_s = "", -1e9
        self._arrivals_s: deque[float] = deque(maxlen=256)
        self._ahead_s: deque[float] = deque(maxlen=_STAMPS)
        self.problems: Counter[str] = Counter()
        """Images that could not be used, by cause."""
        self._last_problem = ""
        self._last_problem_s = -1e9

    def arrived(
        self, now_s: float, encoding: str, frame_id: str, ahead_s: float | None = None
    ) -> None:
        """An image arrived; `ahead_s` is its stamp less the node's clock, where that runs."""
        self._arrivals_s.append(now_s)
        # Any text may come, and it is told twice a second.
        self.encoding, self.frame_id = plain_text(encoding), plain_text(frame_id)
        if ahead_s is not None:
            self._ahead_s.append(ahead_s)

    def problem(self, cause: str, text: str, now_s: float) -> None:
        """An image could not be used."""
        self.problems[cause] += 1
        self._last_problem, self._last_problem_s = text, now_s

    def time_jumped(self) -> None:
        """What the stamps were compared with holds no more."""
        self._ahead_s.clear()

    @property
    def seen(self) -> bool:
        """Whether an image has ever come."""
        return bool(self._arrivals_s)

    def age_s(self, now_s: float) -> float | None:
        """Time since the last image; None before the first."""
        return now_s - self._arrivals_s[-1] if self._arrivals_s else None

    def rate_hz(self, now_s: float) -> float:
        """Images a second lately; 0 where fewer than two came."""
        # From image to image: counting within a window would depend on where the window begins.
        recent = [t for t in self._arrivals_s if now_s - t <= RECENT_S]
        # A converter of bags may give all of them one log time.
        took_s = recent[-1] - recent[0] if recent else 0.0
        return (len(recent) - 1) / took_s if took_s > 0 else 0.0

    def silent(self, now_s: float, timeout_s: float) -> bool:
        """Whether no image has come for longer than the time-out and 2.5 of its periods."""
        age_s = self.age_s(now_s)
        return age_s is None or age_s > max(timeout_s, self.patience_s)

    @property
    def patience_s(self) -> float:
        """2.5 of its periods: nothing is amiss in so long without an image, even if one is lost."""
        gaps_s = [b - a for a, b in pairwise(list(self._arrivals_s)[-_GAPS - 1 :])]
        return _LOST * median(gaps_s) if gaps_s else 0.0

    def follow(self, offset_s: float | None, now_s: float) -> None:
        """Note when the phase moves."""
        if offset_s is not None and self.offset_s is not None:
            moved_s = offset_s - self.offset_s
            if abs(moved_s) > _MOVED_S:
                self._moved, self._moved_s = f"its phase moved by {moved_s * 1e3:.0f} ms", now_s
            else:
                # Small moves add up against the same offset, so that a slow drift is told as well.
                offset_s = self.offset_s
        self.offset_s = offset_s

    def moved(self, now_s: float) -> str:
        """How its phase moved lately; empty when it did not."""
        return self._moved if now_s - self._moved_s < RECENT_S else ""

    def last_problem(self, now_s: float) -> str:
        """Why a late image could not be used; empty when all could."""
        return self._last_problem if now_s - self._last_problem_s < RECENT_S else ""

    @property
    def ahead_s(self) -> float | None:
        """How far its stamps are ahead of the node's clock; None where nothing is known."""
        return median(self._ahead_s) if self._ahead_s else None

    @property
    def far_s(self) -> float | None:
        """How far its stamps are ahead of the node's clock, where that is too far to be delay."""
        ahead_s = self.ahead_s
        return ahead_s if ahead_s is not None and abs(ahead_s) > FAR_S else None

    def values(self, now_s: float, topic: str, offset_s: float | None) -> dict[str, Any]:
        """What /diagnostics lists."""
        values: dict[str, Any] = {
            "topic": topic,
            "rate_hz": self.rate_hz(now_s),
            "encoding": self.encoding,
            "frame": self.frame_id,
            "size": self.size,
        }
        if (age_s := self.age_s(now_s)) is not None:
            values["age_ms"] = age_s * 1e3
        if offset_s is not None:
            values["offset_ms"] = offset_s * 1e3
        if (ahead_s := self.ahead_s) is not None:
            values["stamp_ahead_of_clock_s"] = ahead_s
        values.update({f"refused_{cause}": count for cause, count in self.problems.items()})
        return values
