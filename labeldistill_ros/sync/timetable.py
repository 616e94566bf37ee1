# SPDX-License-Identifier: Apache-2.0
"""Until when a camera's frame is waited for, in seconds of the steady clock. No ROS in here.

When each camera's frame of a cycle will come is known from its phase (`camera_phases`) and from how
far its stamps run ahead of the others' when they arrive (`camera_streams`). The deadline counts
from then on. Under simulated time that runs slowly, all that is given in seconds of the stamps
takes longer on the steady clock.
"""

from __future__ import annotations

import math
from typing import TypeVar

from labeldistill_ros.sync.camera_phases import PhaseTracker
from labeldistill_ros.sync.camera_set import FrameGroup, SyncOptions
from labeldistill_ros.sync.camera_streams import MAX_AHEAD_S, CameraStreams

T = TypeVar("T")

_NS = 1_000_000_000

_DEADLINE_PERIODS = 2.4
"""Deadline where none is given: at 12 Hz 0.2 s. On a busy processor 65 ms lost 13 to 26 % of the
sets, 0.2 s none."""


class Timetable:
    """Says when frames should come, and when they are overdue."""

    def __init__(self, options: SyncOptions, streams: CameraStreams, phases: PhaseTracker) -> None:
        """Look things up in what is learned of the cameras."""
        self._options, self._streams, self._phases = options, streams, phases
        self.started_s = -math.inf
        """When the first frame came, or the first after a silence of all cameras."""

    @property
    def deadline_s(self) -> float:
        """How long after its time a frame is overdue: as given, or by the learned period."""
        # A rate above 1 shortens nothing that was given, since the transport is as fast as ever.
        slower = min(self._streams.rate, 1.0)
        if self._options.deadline_s is not None:
            return self._options.deadline_s / slower
        period_s, limit_s = self._streams.period_s, self._options.max_age_s / slower
        return min(_DEADLINE_PERIODS * period_s, limit_s) if period_s else limit_s

    @property
    def longest_delay_s(self) -> float:
        """By how much an image may be later than the others' to be waited for."""
        return MAX_AHEAD_S / self._streams.rate

    def expects(self, camera: str, now_s: float, grace_s: float) -> bool:
        """Whether it lives and is at the others' time; all live for `grace_s` after the start."""
        living = now_s - self.started_s <= grace_s or self._streams.lives(camera, now_s)
        return living and not self._streams.astray(camera)

    def content_s(self, group: FrameGroup[T], anchor: str) -> float:
        """When the cameras that are there are enough, if the policy is content with them."""
        offsets = self._phases.offsets_ns
        last_ns = max(offsets.values(), default=0) - offsets.get(anchor, 0)
        spread_s = (last_ns + self._phases.tolerance_ns) / _NS / self._streams.rate
        return self._arrival_s(group, anchor) + max(self.deadline_s, spread_s)

    def waits(self, group: FrameGroup[T], camera: str, now_s: float) -> bool:
        """Whether the camera's frame of this cycle is not overdue yet."""
        # The deadline counts from the group's beginning or from later, so that within it there is
        # nothing to look up: that is so at nine of ten questions, three for each image.
        if camera in self._streams.ahead_s and now_s < _opened_s(group) + self.deadline_s:
            return True
        return now_s < self.overdue_s(group, camera)

    def overdue_s(self, group: FrameGroup[T], camera: str) -> float:
        """From when on the camera's frame of this cycle is not waited for any more."""
        if camera not in self._streams.ahead_s:
            return self.started_s + self.longest_delay_s
        # In a burst all are late at once.
        return max(self._arrival_s(group, camera), _opened_s(group)) + self.deadline_s

    def _arrival_s(self, group: FrameGroup[T], camera: str) -> float:
        """When its frame of this cycle should come, by that of the first camera."""
        first, frame = next(iter(group.frames.items()))
        return frame.arrival_s + self._delay_s(camera) - self._delay_s(first)

    def _delay_s(self, camera: str) -> float:
        """How much later than its cycle its frame comes, but for what all have in common."""
        offset_s = self._phases.offsets_ns.get(camera, 0) / _NS
        return (offset_s - self._streams.ahead_s.get(camera, 0.0)) / self._streams.rate


def _opened_s(group: FrameGroup[T]) -> float:
    """When its first frame came."""
    return next(iter(group.frames.values())).arrival_s
