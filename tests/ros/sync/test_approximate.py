# SPDX-License-Identifier: Apache-2.0
"""The policy `approximate_time`; where `message_filters` is not installed, with a stand-in.

The stand-in pairs as the library does in the simplest case: the newest messages of all topics, once
their stamps lie within the slop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.errors import ConfigError
from labeldistill_ros.sync.approximate import ApproximateSynchronizer
from labeldistill_ros.sync.synchronizer import CameraSet, SyncOptions
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle

S = 1_000_000_000


class SimpleFilter:
    def __init__(self) -> None:
        self._callback: Callable[[Any], None] = lambda _: None

    def registerCallback(self, callback: Callable[[Any], None]) -> None:  # noqa: N802
        self._callback = callback

    def signalMessage(self, message: Any) -> None:  # noqa: N802
        self._callback(message)


class ApproximateTimeSynchronizer(SimpleFilter):
    def __init__(self, filters: list[SimpleFilter], queue: int, slop: float) -> None:
        super().__init__()
        self._newest: dict[int, Any] = {}
        self._count, self._slop = len(filters), slop
        for number, source in enumerate(filters):
            source.registerCallback(partial(self._add, number))

    def _add(self, number: int, message: Any) -> None:
        self._newest[number] = message
        stamps = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in self._newest.values()]
        if len(stamps) == self._count and max(stamps) - min(stamps) <= self._slop:
            found, self._newest = self._newest, {}
            self._callback(*(found[n] for n in range(self._count)))

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802
        self._callback(*messages)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """`message_filters`, its own or the stand-in."""
    try:
        import message_filters  # noqa: F401
    except ImportError:
        module: Any = ModuleType("message_filters")
        module.SimpleFilter = SimpleFilter
        module.ApproximateTimeSynchronizer = ApproximateTimeSynchronizer
        monkeypatch.setitem(sys.modules, "message_filters", module)


def feed(sync: ApproximateSynchronizer[int], first_s: float, cycles: int) -> list[CameraSet[int]]:
    sets = []
    for cycle in range(cycles):
        for number, camera in enumerate(CAMERAS):
            stamp_ns = round((first_s + cycle * 0.1 + number * 0.005) * S)
            sets += sync.add(camera, stamp_ns, cycle, first_s + cycle * 0.1).sets
    return sets


def test_complete_sets_come_out(library: None) -> None:
    sync = ApproximateSynchronizer[int](SyncOptions(CAMERAS, "CAM_FRONT"), 0.05)
    sets = feed(sync, 100.0, 5)
    assert [{f.item for f in s.frames.values()} for s in sets] == [{k} for k in range(5)]
    assert all(s.usable and not s.missing and s.anchor == "CAM_FRONT" for s in sets)
    assert sets[0].stamp_ns == round(100.005 * S)
    assert sync.counts["complete"] == 5
    assert sync.next_deadline_s() is None


def test_time_that_goes_back_starts_it_afresh(library: None) -> None:
    sync = ApproximateSynchronizer[int](SyncOptions(CAMERAS, "CAM_FRONT"), 0.05)
    feed(sync, 100.0, 3)
    assert len(feed(sync, 50.0, 3)) == 3
    assert sync.counts["resets"] == 1


def test_without_the_library_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "message_filters", None)
    with pytest.raises(ConfigError, match="needs message_filters: install ros-"):
        ApproximateSynchronizer.require()


def test_the_node_detects_with_it(
    library: None, vehicle: Vehicle, detector: Callable[..., RunningNode]
) -> None:
    node = detector(**{"sync.policy": "approximate_time"})
    assert node.started
    vehicle.connect()
    vehicle.drive_until(lambda: len(node.results) >= 2, 0)
    frames, _ = node.results[-1]
    assert len(frames.views) == 6
    stamps = [view.stamp_ns for view in frames.views]
    assert max(stamps) - min(stamps) <= 0.055 * S
