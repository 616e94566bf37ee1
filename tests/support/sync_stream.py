# SPDX-License-Identifier: Apache-2.0
"""A stream of stamps through the synchronizer, by a clock that the test has in hand."""

from __future__ import annotations

from dataclasses import dataclass

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.sync.synchronizer import CameraSet, Synchronizer, SyncOptions

Event = tuple[float, str, int, int]
"""Arrival on the steady clock in seconds, camera, stamp in nanoseconds, cycle."""


@dataclass
class Outcome:
    """What the synchronizer made of it."""

    sync: Synchronizer[int]
    sets: list[CameraSet[int]]

    @property
    def usable(self) -> list[CameraSet[int]]:
        return [found for found in self.sets if found.usable]


def feed(events: list[Event], beyond_s: float, **options: object) -> Outcome:
    """Feed a stream, polling whenever a deadline passes, and for some seconds beyond its end."""
    sync = Synchronizer[int](SyncOptions(CAMERAS, "CAM_FRONT", **options))  # type: ignore[arg-type]
    sets: list[CameraSet[int]] = []

    def poll_until(now_s: float) -> None:
        while (due_s := sync.next_deadline_s()) is not None and due_s < now_s:
            sets.extend(sync.poll(due_s + 1e-6))

    for arrival_s, camera, stamp_ns, cycle in events:
        poll_until(arrival_s)
        sets.extend(sync.add(camera, stamp_ns, cycle, arrival_s).sets)
    poll_until(events[-1][0] + beyond_s)
    return Outcome(sync, sets)
