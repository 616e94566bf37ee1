# SPDX-License-Identifier: Apache-2.0
"""The topics of the node, and what it publishes of each set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, PointCloud2
from std_msgs.msg import Float64
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME, FrameSet
from labeldistill_core.frames import Transform
from labeldistill_ros.event_callbacks import PublisherEventCallbacks
from labeldistill_ros.messages import (
    DetectionsMessage,
    label_info,
    marker_array,
    table_message,
)
from labeldistill_ros.outputs.autoware import DetectedObjects, objects_message
from labeldistill_ros.outputs.overlays import overlay_message
from labeldistill_ros.ros_names import ros_names

STAGES = (
    "sync_wait",
    "queue",
    "transforms",
    "decode_images",
    "detect_preprocess",
    "detect_image_network",
    "detect_lift",
    "detect_bev_network",
    "detect_decode",
    "publish",
    "total",
    "pipeline",
    "cycle",
)
"""What `~/debug/latency/<stage>_ms` tells; `pipeline` is from the set's stamp to its boxes by the
node's clock, `cycle` from the boxes before to these."""
# rclpy looks at every event handler at each wait; by default each publisher has two. All that these
# would do is to log a subscription of other QoS or type, which the subscriber's side logs as well.
_NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
_RESULTS = QoSProfile(depth=10)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """Publishers of detections, markers and status; they are silent unless the node is active."""

    def __init__(
        self, node: LifecycleNode, class_names: Sequence[str], cameras: Sequence[str]
    ) -> None:
        """Advertise all topics on a node.

        Args:
            node: that publishes.
            class_names: by label.
            cameras: of the model; each has an overlay.
        """
        self._node, self._class_names = node, class_names
        self._message = DetectionsMessage(class_names)

        def advertise(kind: type[Any], topic: str, qos: QoSProfile) -> LifecyclePublisher[Any]:
            override = QoSOverridingOptions.with_default_policies()
            own = copy(qos)  # overrides are written into it
            return node.create_lifecycle_publisher(
                kind, topic, own, qos_overriding_options=override, event_callbacks=_NO_EVENTS
            )

        self._detections = advertise(Detection3DArray, "~/detections", _RESULTS)
        self._table = advertise(PointCloud2, "~/detections_table", _RESULTS)
        self._markers = advertise(MarkerArray, "~/markers", QoSProfile(depth=1))
        self._status = advertise(DiagnosticArray, "~/status", _RESULTS)
        self._labels = advertise(LabelInfo, "~/label_info", _LATCHED)
        self._objects = DetectedObjects and advertise(DetectedObjects, "~/objects", _RESULTS)
        # Best effort: a slow viewer over a radio link loses pictures and holds nothing up.
        debug = qos_profile_sensor_data
        self._latencies = {
            stage: advertise(Float64, f"~/debug/latency/{stage}_ms", debug) for stage in STAGES
        }
        self._overlays = {
            camera: advertise(CompressedImage, f"~/debug/overlay/{name}/compressed", debug)
            for camera, name in ros_names(cameras).items()
        }

    def close(self) -> None:
        """Withdraw all topics from the node."""
        for publisher in (
            self._detections,
            self._table,
            self._markers,
            self._status,
            self._labels,
            *((self._objects,) if self._objects else ()),
            *self._latencies.values(),
            *self._overlays.values(),
        ):
            self._node.destroy_lifecycle_publisher(publisher)

    def wanted(self) -> bool:
        """Whether anybody listens to boxes in any form."""
        publishers = (self._detections, self._table, self._markers, self._objects)
        # Neither status nor latencies count: whoever watches the node alone does not make it
        # compute.
        wanted = any(p.get_subscription_count() for p in publishers if p)
        return wanted or any(p.get_subscription_count() for p in self._overlays.values())

    def labels(self, threshold: float, stamp_ns: int) -> None:
        """Publish the class names behind the numbers of the table, for subscribers of any time."""
        self._labels.publish(label_info(self._class_names, threshold, stamp_ns))

    def status(self, message: DiagnosticArray) -> None:
        """Tell what became of a set."""
        self._status.publish(message)

    def boxes(
        self, boxes: Boxes3D, stamp_ns: int, *, markers: bool, lifetime_s: float = 1.0
    ) -> None:
        """Publish the boxes of a set in every form for which somebody asks.

        Args:
            boxes: in the frame whose name goes into the headers.
            stamp_ns: time of the set.
            markers: whether they may be shown.
            lifetime_s: of the markers, see `lifetime_of`.
        """
        # To fill a message costs more than to send it, so none is made that nobody gets.
        if self._detections.get_subscription_count():
            self._detections.publish(self._message.fill(boxes, stamp_ns))
        if self._table.get_subscription_count():
            self._table.publish(table_message(boxes, stamp_ns))
        if markers and self._markers.get_subscription_count():
            self._markers.publish(marker_array(boxes, self._class_names, stamp_ns, lifetime_s))
        if self._objects and self._objects.get_subscription_count():
            self._objects.publish(objects_message(boxes, self._class_names, stamp_ns))

    def latencies(self, values_ms: Mapping[str, float]) -> None:
        """Tell the time of each stage to whoever listens; NaN is not known."""
        for stage, publisher in self._latencies.items():
            value_ms = values_ms.get(stage, math.nan)
            if math.isfinite(value_ms) and publisher.get_subscription_count():
                publisher.publish(Float64(data=value_ms))

    def overlays(
        self,
        frames: FrameSet,
        boxes: Boxes3D,
        output_from_fixed: Transform,
        optical_frames: Mapping[str, str],
    ) -> None:
        """Publish images with boxes, of the cameras for which somebody asks.

        Args:
            frames: images and poses.
            boxes: as they were published.
            output_from_fixed: from the fixed frame of the poses to that of the boxes.
            optical_frames: ROS names of the cameras' optical frames, for the headers.
        """
        asked = {c: p for c, p in self._overlays.items() if p.get_subscription_count()}
        if not asked:
            return
        # Each image was exposed at a pose of its own; the fixed frame is the one that all of them
        # share.
        boxes = replace(boxes.transformed(output_from_fixed.inverse), frame=FIXED_FRAME)
        for camera, publisher in asked.items():
            if view := frames.by_name.get(camera):
                frame_id = optical_frames[camera]
                publisher.publish(overlay_message(view, boxes, self._class_names, frame_id))
