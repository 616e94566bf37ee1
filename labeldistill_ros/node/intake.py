# SPDX-License-Identifier: Apache-2.0
"""From image messages to sets for the worker; all of it in the thread that spins the node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

from labeldistill_ros.inputs.subscriptions import ImageMessage
from labeldistill_ros.messages import stamp_of
from labeldistill_ros.node.health import Health
from labeldistill_ros.node.live_parameters import LiveParameters
from labeldistill_ros.node.processing import SetProcessor
from labeldistill_ros.node.ros_logging import ThrottledLog
from labeldistill_ros.node.worker import SingleSlotWorker
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.assembly import Assembler, Problem
from labeldistill_ros.sets.report import Outcome
from labeldistill_ros.sync.approximate import ApproximateSynchronizer
from labeldistill_ros.sync.rate_limit import RateLimit
from labeldistill_ros.sync.synchronizer import CameraSet, Synchronizer

AnySynchronizer: TypeAlias = Synchronizer[Arrival] | ApproximateSynchronizer[Arrival]

_SOON_NS = 1_000_000
"""Nanoseconds until a deadline that has passed is looked at; a timer's period is positive."""


class Intake:
    """Puts images together and hands sets to the worker; ends with `close`."""

    def __init__(
        self,
        node: LifecycleNode,
        synchronizer: AnySynchronizer,
        assembler: Assembler,
        processor: SetProcessor,
        health: Health,
        log: ThrottledLog,
        live: LiveParameters,
    ) -> None:
        """Start the worker's thread.

        Args:
            node: for its timer and log.
            synchronizer: images to sets.
            assembler: decodes images ahead.
            processor: does the worker's work, and tells the end of sets that never reach it.
            health: counters.
            log: for complaints.
            live: what may change meanwhile.
        """
        self._node, self._assembler, self._processor = node, assembler, processor
        self._health, self._log, self._live = health, log, live
        self.synchronizer = synchronizer
        """Puts images together by their stamps; learns phases and delays of the cameras."""
        self.infos: Mapping[str, Any] = {}
        """Newest `camera_info` of each camera."""
        self.unstamped: dict[str, str] = {}
        """What to say of each camera whose newest image has no stamp."""
        self.worker = SingleSlotWorker(processor.run, "detect")
        """The thread that detects, with room for one set that waits."""
        self._rate = RateLimit()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._overdue = node.create_timer(1.0, self._on_overdue, clock=steady)
        self._overdue.cancel()

    def on_image(self, camera: str, message: ImageMessage) -> None:
        """Take an image of a camera, and hand over the sets that it completes."""
        self._live.refresh()
        now_s, stamp_ns = time.monotonic(), stamp_of(message)
        encoding = message.encoding if isinstance(message, Image) else message.format
        clock_ns = self._node.get_clock().now().nanoseconds
        # simulated time is 0 before the first message on /clock
        ahead_s = (stamp_ns - clock_ns) / 1e9 if stamp_ns and clock_ns else None
        self._health.image(camera, now_s, encoding, message.header.frame_id, ahead_s)
        # A stamp of zero means that the driver set none, and none is before 1970; taken as times
        # they would be jumps.
        if stamp_ns <= 0:
            text = f"{camera}: its images have no stamp, or one before 1970; set it in the driver"
            self.unstamped[camera] = text
            self._health.problems([Problem(camera, "image", text)], now_s)
            return
        self.unstamped.pop(camera, None)
        arrival = Arrival(message, self.infos.get(camera))
        # An idle worker will take this image's set, so decoding need not wait for the other
        # cameras. A busy one may drop the set, and what was decoded for it was in vain.
        if self.worker.idle and self._processor.wanted():
            self._assembler.decode_ahead(arrival)
        added = self.synchronizer.add(camera, stamp_ns, arrival, now_s)
        if added.reset:
            self._forget("the stamps went back")
        self._submit(added.sets)
        self._watch()

    def reset(self, reason: str) -> None:
        """Forget all images and the past, since time went back."""
        self.synchronizer.reset()
        self._forget(reason)

    def close(self, timeout_s: float) -> bool:
        """End the worker's thread; the set that waits for it is dropped.

        Returns:
            Whether it ended in time.
        """
        self._node.destroy_timer(self._overdue)
        if waiting := self.worker.withdraw():
            self._drop(waiting, "dropped", "deactivated")
        return self.worker.stop(timeout_s)

    def _on_overdue(self) -> None:
        self._submit(self.synchronizer.poll(time.monotonic()))
        self._watch()

    def _watch(self) -> None:
        """Look again when an open set is overdue, unless an image comes before."""
        deadline_s = self.synchronizer.next_deadline_s()
        if deadline_s is None:
            self._overdue.cancel()
            return
        left_ns = round((deadline_s - time.monotonic()) * 1e9)
        # One timer that is set to the next deadline, instead of one that looks many times a second.
        self._overdue.timer_period_ns = max(_SOON_NS, left_ns)
        self._overdue.reset()

    def _submit(self, sets: Sequence[CameraSet[Arrival]]) -> None:
        for images in sets:
            closed = ClosedSet(images, dict(self.infos), time.monotonic())
            if not images.usable:
                lacking = ", ".join(images.missing)
                self._log.warning("incomplete", f"set dropped, no image of {lacking}")
                self._drop(closed, "incomplete", "missing camera")
            elif not self._rate.passes(images.stamp_ns, self._live.common.max_rate):
                self._drop(closed, "dropped", "max_rate")
            else:
                self._hand_over(closed)

    def _hand_over(self, closed: ClosedSet) -> None:
        """Give a set to the worker; its images are decoded meanwhile if it will be the next."""
        if replaced := self.worker.submit(closed):
            self._drop(replaced, "dropped", "a newer set came")
        if self.worker.will_take and self._processor.wanted():
            self._assembler.decode_ahead(*closed.arrivals)

    def _drop(self, closed: ClosedSet, outcome: Outcome, cause: str) -> None:
        """End a set that the worker does not get."""
        closed.cancel()
        self._processor.end(closed.report(outcome, cause))

    def _forget(self, reason: str) -> None:
        if waiting := self.worker.withdraw():
            self._drop(waiting, "dropped", "time went back")
        self._health.time_jumped()
        self._processor.reset_history(reason)
        self._log.info("afresh", f"started afresh: {reason}")
