# SPDX-License-Identifier: Apache-2.0
"""What each camera's messages tell of it: whether it lives, its rate, and its clock.

A camera's *reading* is the stamp of its newest image, carried on to now. Readings differ where a
clock is off or where images take longer to come; which of the two cannot be seen from here. The
difference says when an image of a given stamp will arrive, and names a camera that disagrees.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, median_low

_NS = 1_000_000_000

MAX_AHEAD_S = 1.0
"""Readings further apart than this belong to different times; nobody waits that long."""
_FIRST_PERIOD_S = 2.0
"""A camera of which only one frame came is given this long for the next."""
_SAMPLES = 15
"""Readings kept for each camera; their median ignores a stray stamp and a joint jump of time."""
_SLOWEST, _FASTEST = 0.01, 100.0
"""Playback rates that are believed."""
_REAL_TIME = 0.1
"""A playback rate that is nearer to 1 than this is 1, measured with jitter."""
_DEAD_PERIODS = 4.5
"""A camera that is silent for longer is dead. At a loss of 10 %, two images in a row are lost every
second or two of six cameras at 12 Hz, four every two or three minutes."""


@dataclass
class _Stream:
    """What is known of one camera's messages."""

    newest_ns: int | None = None
    arrival_s: float = -math.inf
    period_s: float = 0.0
    stamp_period_s: float = 0.0
    samples_s: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))


def _followed(period_s: float, gap_s: float) -> float:
    """An exponential mean of the period, in which a pause counts as at most two periods."""
    if not period_s:
        # A first gap may be a pause, or the step of a clock that is set, from 1970 to now.
        return gap_s if 0.0 < gap_s <= _FIRST_PERIOD_S else 0.0
    return period_s + 0.2 * (min(max(gap_s, 0.0), 2 * period_s) - period_s)


class CameraStreams:
    """Follows the messages of all cameras."""

    def __init__(self, cameras: Sequence[str], preferred: str, max_age_s: float) -> None:
        """Start without knowledge.

        Args:
            cameras: all names.
            preferred: the camera that is believed where as many disagree as agree.
            max_age_s: a camera that is silent for longer, and for 4.5 of its periods, is dead.
        """
        self._streams = {camera: _Stream() for camera in cameras}
        self._preferred, self._max_age_s = preferred, max_age_s
        self._measured_s: dict[str, float] = {}
        self.rate = 1.0
        """Seconds of the stamps in a second of the steady clock: a bag's playback rate, else 1."""
        self.period_s = 0.0
        """Between two images of a camera, on the steady clock; 0 before one is known."""
        self.ahead_s: dict[str, float] = {}
        """By how much a camera's stamps run ahead of most others' when they arrive."""

    def newest_ns(self, camera: str) -> int | None:
        """The latest stamp of a camera so far, nanoseconds; None before its first image."""
        return self._streams[camera].newest_ns

    def forget_stamps(self, camera: str) -> None:
        """Its clock was wrong so far: what it said does not bind what it says from now on."""
        self._streams[camera].newest_ns = None
        self._streams[camera].samples_s.clear()
        self._measured_s.pop(camera, None)

    def lives(self, camera: str, now_s: float) -> bool:
        """Whether it is sending at `now_s`, steady clock, measured by its own rate."""
        stream = self._streams[camera]
        silence_s = now_s - stream.arrival_s
        # Nearly always, and asked ten times for each image.
        if silence_s <= self._max_age_s:
            return True
        # The others' period as well, since images that come in bursts make its own seem short.
        period_s = max(stream.period_s, self.period_s)
        return silence_s <= (_DEAD_PERIODS * period_s if stream.period_s else _FIRST_PERIOD_S)

    def alive(self, now_s: float) -> tuple[str, ...]:
        """Cameras that are sending at `now_s`, seconds of the steady clock."""
        return tuple(camera for camera in self._streams if self.lives(camera, now_s))

    def another_is_at(self, stamp_ns: int, within_ns: int, camera: str, now_s: float) -> bool:
        """Whether a live camera other than this one is at a time, give or take."""
        return any(
            abs(stamp_ns - newest_ns) <= within_ns
            for other in self.alive(now_s)
            if other != camera and (newest_ns := self._streams[other].newest_ns) is not None
        )

    def most_are_before(self, stamp_ns: int, now_s: float) -> bool:
        """Whether the newest images of most live cameras are older than a time."""
        newest_ns = [self._streams[camera].newest_ns for camera in self.alive(now_s)]
        return 2 * sum(n is not None and n < stamp_ns for n in newest_ns) > len(newest_ns)

    def astray(self, camera: str) -> bool:
        """Whether it is at another time than most, so that no image of it can join a set."""
        # A single reading may be the stray stamp of one image; the camera itself is blamed from two
        # on.
        believed = len(self._streams[camera].samples_s) > 1
        return believed and abs(self.ahead_s[camera]) > MAX_AHEAD_S

    def leaps_ahead(self, camera: str, stamp_ns: int, now_s: float) -> bool:
        """Whether a stamp is ahead of its camera's last one and of most cameras' time.

        Args:
            camera: whose it is.
            stamp_ns: time of exposure by the camera's clock.
            now_s: steady clock.
        """
        stream = self._streams[camera]
        if stream.newest_ns is None or not self._measured_s:
            return False
        passed_s = self.rate * (now_s - stream.arrival_s)
        if (stamp_ns - stream.newest_ns) / _NS - passed_s <= MAX_AHEAD_S:  # nearly always
            return False
        return -self._common_s(stamp_ns, now_s) - self._consensus_s() > MAX_AHEAD_S

    def arrived(self, camera: str, stamp_ns: int, now_s: float) -> None:
        """Take note of an image that arrived.

        Args:
            camera: whose it is.
            stamp_ns: time of exposure by the camera's clock.
            now_s: steady clock.
        """
        stream = self._streams[camera]
        if stream.newest_ns is not None:
            stamp_gap_s = (stamp_ns - stream.newest_ns) / _NS
            stream.period_s = _followed(stream.period_s, now_s - stream.arrival_s)
            stream.stamp_period_s = _followed(stream.stamp_period_s, stamp_gap_s)
        # An image out of order does not turn the camera's clock back.
        stream.newest_ns = max(stamp_ns, stream.newest_ns or stamp_ns)
        stream.arrival_s = now_s
        known = [s for s in self._streams.values() if s.period_s]
        self.period_s = median([s.period_s for s in known] or [0.0])
        # Both periods are measured over the same images, so their ratio is the playback rate of a
        # bag, whatever /clock says; the median bears one camera with a broken clock.
        rate = median([s.stamp_period_s / s.period_s for s in known if s.stamp_period_s] or [1.0])
        self.rate = 1.0 if abs(rate - 1.0) < _REAL_TIME else min(max(rate, _SLOWEST), _FASTEST)
        stream.samples_s.append(-self._common_s(stamp_ns, now_s))
        self._measured_s[camera] = median_low(stream.samples_s)
        consensus_s = self._consensus_s()
        self.ahead_s = {c: ahead_s - consensus_s for c, ahead_s in self._measured_s.items()}

    def _common_s(self, zero_ns: int, now_s: float) -> float:
        """The clock that all share, relative to `zero_ns`.

        That is the median reading, from which what the camera was ahead is taken off, so that it
        does not move when a camera joins or dies. The first camera defines it.
        """
        readings_s = [
            (stream.newest_ns - zero_ns) / _NS + self.rate * (now_s - stream.arrival_s) - ahead_s
            for camera, ahead_s in self._measured_s.items()
            if (stream := self._streams[camera]).newest_ns is not None and self.lives(camera, now_s)
        ]
        return median(readings_s or [0.0])

    def _consensus_s(self) -> float:
        """Median of the largest group that is of one time, of equal ones the preferred camera's."""
        measured_s = self._measured_s
        if max(measured_s.values()) - min(measured_s.values()) <= MAX_AHEAD_S:
            return median(measured_s.values())

        def near(center_s: float) -> list[float]:
            return [a for a in measured_s.values() if abs(a - center_s) <= MAX_AHEAD_S]

        def rank(camera: str) -> tuple[int, bool]:
            return len(near(measured_s[camera])), camera == self._preferred

        return median(near(measured_s[max(measured_s, key=rank)]))
