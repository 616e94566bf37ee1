# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of each set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from labeldistill_core.boxes import Boxes3D
from labeldistill_ros.markers import marker_array
from labeldistill_ros.messages import detections_message, label_info, table_message

_RESULTS = QoSProfile(depth=10)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """Publishers of detections, markers and status; they are silent unless the node is active."""

    def __init__(self, node: LifecycleNode, class_names: Sequence[str]) -> None:
        """Advertise."""
        self._node, self._class_names = node, class_names

        def advertise(kind: type[Any], topic: str, qos: QoSProfile) -> LifecyclePublisher[Any]:
            override = QoSOverridingOptions.with_default_policies()
            return node.create_lifecycle_publisher(
                kind, topic, qos, qos_overriding_options=override
            )

        self._detections = advertise(Detection3DArray, "~/detections", _RESULTS)
        self._table = advertise(PointCloud2, "~/detections_table", _RESULTS)
        self._markers = advertise(MarkerArray, "~/markers", QoSProfile(depth=1))
        self._status = advertise(DiagnosticArray, "~/status", _RESULTS)
        self._labels = advertise(LabelInfo, "~/label_info", _LATCHED)

    def close(self) -> None:
        """Withdraw the publishers."""
        for publisher in (
            self._detections,
            self._table,
            self._markers,
            self._status,
            self._labels,
        ):
            self._node.destroy_lifecycle_publisher(publisher)

    def wanted(self) -> bool:
        """Whether anybody listens to boxes in any form."""
        publishers = (self._detections, self._table, self._markers)
        return any(publisher.get_subscription_count() for publisher in publishers)

    def labels(self, threshold: float, stamp_ns: int) -> None:
        """Tell the class names."""
        self._labels.publish(label_info(self._class_names, threshold, stamp_ns))

    def status(self, message: DiagnosticArray) -> None:
        """Tell what became of a set."""
        self._status.publish(message)

    def boxes(self, boxes: Boxes3D, stamp_ns: int, *, markers: bool) -> None:
        """Publish the boxes of a set in every form."""
        self._detections.publish(detections_message(boxes, self._class_names, stamp_ns))
        if self._table.get_subscription_count():
            self._table.publish(table_message(boxes, stamp_ns))
        if markers and self._markers.get_subscription_count():
            self._markers.publish(marker_array(boxes, self._class_names, stamp_ns))
