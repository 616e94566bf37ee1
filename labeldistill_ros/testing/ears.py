# SPDX-License-Identifier: Apache-2.0
"""What the detector says, remembered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from labeldistill_ros.messages import stamp_to_ns, values_of

_SETS, _BOXES, _LOGS = 20_000, 100, 1_000


class Ears:
    """Listens to a detector; whoever spins the node fills the lists, the oldest entries go."""

    def __init__(self, node: Node, packed_boxes: bool) -> None:
        """Listen to boxes, status, diagnostics and logs.

        Args:
            node: that subscribes.
            packed_boxes: boxes are received, but neither unpacked, which takes this process nine
                milliseconds for two hundred, nor remembered.
        """
        self.node, self._packed_boxes = node, packed_boxes
        self.sets: list[dict[str, str]] = []
        """Values of `~/status`, one entry a set."""
        self.ended_ns: list[int] = []
        """Stamps of these sets."""
        self.boxes: list[Detection3DArray] = []
        """Newest messages of `~/detections`."""
        self.tables: list[PointCloud2] = []
        """Messages of `~/detections_table` since `listen_to_pictures` was called."""
        self.markers: list[MarkerArray] = []
        """Messages of `~/markers` since `listen_to_pictures` was called."""
        self.latencies: list[tuple[float, float]] = []
        """Steady time and `~/debug/latency/total_ms`, where `listen_to_latency` was called."""
        self._logs: list[str] = []
        self._diagnostics: dict[str, DiagnosticStatus] = {}
        self._boxes_ears: list[Subscription[Any]] = []
        self.turn_back()
        node.create_subscription(DiagnosticArray, "/detector/status", self._on_status, 50)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        node.create_subscription(Log, "/rosout", self._on_log, 100)

    def turn_away(self) -> None:
        """Stop listening to boxes."""
        # Destroyed rather than idle, since the node looks whether anybody listens.
        for ear in self._boxes_ears:
            self.node.destroy_subscription(ear)
        self._boxes_ears = []

    def turn_back(self) -> None:
        """Listen to boxes again."""
        packed = self._packed_boxes
        take: Callable[[Any], None] = (lambda _: None) if packed else self._on_boxes
        self._boxes_ears = [
            self.node.create_subscription(
                Detection3DArray, "/detector/detections", take, 50, raw=packed
            )
        ]

    def matched(self) -> bool:
        """Whether boxes that are published from now on arrive, where anybody listens to them."""
        # Later than the publisher is known: a node that was started again has another one. Humble's
        # rclpy does not tell.
        ears = [ear for ear in self._boxes_ears if hasattr(ear, "get_publisher_count")]
        return all(ear.get_publisher_count() for ear in ears)

    def listen_to_pictures(self) -> None:
        """Ask for tables and markers, too, which the node makes only for listeners."""
        listen = self.node.create_subscription
        listen(PointCloud2, "/detector/detections_table", self.tables.append, 10)
        listen(MarkerArray, "/detector/markers", self.markers.append, 10)

    def listen_to_latency(self) -> None:
        """Ask for the total latency of each set."""
        self.node.create_subscription(
            Float64,
            "/detector/debug/latency/total_ms",
            lambda m: self.latencies.append((time.monotonic(), m.data)),
            qos_profile_sensor_data,
        )

    def listen(self) -> None:
        """Forget what was heard."""
        for heard in (self.sets, self.ended_ns, self.boxes, self.tables, self.markers, self._logs):
            heard.clear()
        self._diagnostics.clear()

    def outcomes(self) -> list[str]:
        """How each set ended, since `listen`."""
        return [values["outcome"] for values in self.sets]

    def told(self, text: str) -> int:
        """How many lines with this text the node logged since `listen`."""
        return sum(text in line for line in list(self._logs))

    def diagnostic(self, name: str) -> DiagnosticStatus:
        """Newest status since `listen`; an empty one before it has come."""
        return self._diagnostics.get(name, DiagnosticStatus())

    def wait(self, condition: Callable[[], object], limit_s: float) -> float | None:
        """Seconds until something is so; None when it did not become so."""
        # Polled, since the lists are filled by the thread that spins the node, which knows no
        # conditions.
        start_s = time.monotonic()
        while time.monotonic() - start_s < limit_s:
            if condition():
                return time.monotonic() - start_s
            time.sleep(0.01)
        return None

    def expect(self, condition: Callable[[], object], what: str, limit_s: float = 10.0) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it did not become so.
        """
        if self.wait(condition, limit_s) is None:
            raise TimeoutError(f"not within {limit_s:g} s: {what}; {self.sets[-3:]}")

    def _on_status(self, message: DiagnosticArray) -> None:
        self.ended_ns.append(stamp_to_ns(message.header.stamp))
        self.sets.append(values_of(message.status[0]))
        # Bounded: a load test runs for hours in this process, and its own memory would be taken for
        # the node's.
        del self.sets[:-_SETS], self.ended_ns[:-_SETS]

    def _on_boxes(self, message: Detection3DArray) -> None:
        self.boxes.append(message)
        del self.boxes[:-_BOXES]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        # By what follows the node's name, as tests ask for "sync" or a camera.
        self._diagnostics.update({s.name.split(": ")[1]: s for s in message.status})

    def _on_log(self, message: Log) -> None:
        self._logs.append(message.msg)
        del self._logs[:-_LOGS]
