# SPDX-License-Identifier: Apache-2.0
"""What comes from a vehicle over ROS, by the node's own subscriptions."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2

from labeldistill_ros.doctor.finding import Finding, by_camera
from labeldistill_ros.doctor.observation import Observation
from labeldistill_ros.doctor.pose_delay import PoseDelay
from labeldistill_ros.doctor.source import Source
from labeldistill_ros.doctor.topics import Types, is_lidar
from labeldistill_ros.inputs.clock import why_no_clock
from labeldistill_ros.inputs.pose_listener import (
    MOVING,
    STATIC,
    OdometryListener,
    TransformListener,
)
from labeldistill_ros.inputs.publishers import unheard
from labeldistill_ros.inputs.subscriptions import CameraSubscriptions
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.messages.stamps import stamp_of, stamp_of_cdr
from labeldistill_ros.parameter_file import GivenParameters
from labeldistill_ros.parameters import VehicleParameters

_DISCOVERY_S = 1.5
"""Until all publishers are known, and those of a slow machine."""
_LATE_POSES_S = 0.5
"""The pose of the last image comes after it."""


def observe_live(
    vehicle: VehicleParameters,
    given: GivenParameters,
    seconds: float,
    context: Context | None = None,
) -> Source:
    """Listen to a live system for some seconds.

    Args:
        vehicle: parameters of the node.
        given: the same as they were given, for QoS overrides and the clock.
        seconds: how long.
        context: of ROS, which is initialized.
    """
    own = [
        Parameter(name, value=value)
        for name, value in given.values.items()
        if name.startswith("qos_overrides.") or name == "use_sim_time"
    ]
    node = LifecycleNode("labeldistill_doctor", context=context, parameter_overrides=own)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        return _Listening(node, vehicle, seconds).source(executor)
    finally:
        executor.shutdown()
        node.destroy_node()


class _Listening:
    def __init__(self, node: LifecycleNode, vehicle: VehicleParameters, seconds: float) -> None:
        self._node, self._seconds = node, seconds
        self._begin_s = time.monotonic()
        self._seen = Observation(vehicle, seconds)
        self._topics = {
            camera: CameraTopics.of(camera, vehicle.common, own)
            for camera, own in vehicle.cameras.items()
        }
        self._refused: list[str] = []
        common = vehicle.common
        transforms = TransformListener(node, self._refused.append)
        self._poses: TransformListener | OdometryListener = transforms
        if common.ego_motion_source == "odometry":
            self._poses = OdometryListener(
                node, transforms, common.odometry_topic, common.fixed_frame, common.base_frame
            )
        self._delay = PoseDelay(self._poses.lookup, common.fixed_frame, common.base_frame)

    def source(self, executor: SingleThreadedExecutor) -> Source:
        """Listen, and give what came."""
        # Which clouds there are, and whether a publisher is incompatible, is known only once
        # discovery is through. Poses are heard from then on as well, so that images which come
        # before /tf is connected are not taken for images without a pose.
        self._spin(executor, _DISCOVERY_S)
        self._begin_s = time.monotonic()
        rectified = self._seen.vehicle.common.images_rectified
        cameras = CameraSubscriptions(self._node, self._topics, rectified, self._on_image)
        # One dictionary for both, so that a calibration counts from the moment it arrives.
        self._seen.gathering.infos = cameras.infos
        cameras.ask_for_latched_infos()
        for topic, kinds in self._types().items():
            if is_lidar(topic, kinds):
                take = partial(self._on_cloud, topic)
                # As bytes: unpacking clouds would take the time that images need.
                self._node.create_subscription(
                    PointCloud2, topic, take, qos_profile_sensor_data, raw=True
                )
        self._spin(executor, self._seconds)
        self._seen.end(self._now_s)
        # Before the subscriptions are closed, which are what is asked.
        connections, silent = self._connections(cameras), self._silent(cameras)
        connections += self._delay.check(self._seen.vehicle.common.tf_timeout)
        types = self._types()
        cameras.close()
        self._spin(executor, _LATE_POSES_S)
        self._poses.close()
        clock = "this machine's clock"
        if self._node.get_parameter("use_sim_time").value:
            clock = "/clock"
        return Source(
            self._seen, types, self._poses.lookup, self._refused, silent, clock, connections
        )

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._begin_s

    def _spin(self, executor: SingleThreadedExecutor, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0 and rclpy.ok(context=self._node.context):
            # Not longer, although nothing may come: the delay of a pose is only as exact as how
            # often it is looked for.
            executor.spin_once(timeout_sec=min(left_s, 0.1))
            self._delay.look(self._now_s)

    def _on_image(self, camera: str, message: Any) -> None:
        clock_ns = self._node.get_clock().now().nanoseconds
        now_s, stamp_ns = self._now_s, stamp_of(message)
        self._seen.image(camera, message, now_s, clock_ns)
        # An image without a stamp has no time for which a pose could be asked.
        if stamp_ns and self._seen.vehicle.common.ego_motion_source != "none":
            self._delay.image(stamp_ns, now_s)

    def _on_cloud(self, topic: str, data: bytes) -> None:
        self._seen.cloud(topic, stamp_of_cdr(data), self._node.get_clock().now().nanoseconds)

    def _types(self) -> Types:
        """Types of all topics that somebody publishes, not only subscribes to, as this node."""
        return {
            name: kinds
            for name, kinds in self._node.get_topic_names_and_types()
            if self._node.count_publishers(name)
        }

    def _connections(self, cameras: CameraSubscriptions) -> list[Finding]:
        found = [Finding("QoS", "fault", text) for text in cameras.unheard()]
        for topic, asked in (("/tf", MOVING), ("/tf_static", STATIC)):
            texts = unheard(self._node, topic, asked).values()
            found += [Finding("QoS", "fault", text) for text in texts]
        found = found or [Finding("QoS", "ok", "every publisher offers what the node asks for")]
        found += by_camera("publishers", cameras.shared(), "one to a camera", "warning")
        if (why := why_no_clock(self._node)) and self._seen.seen:
            found.append(Finding("host clock", "fault", why))
        return found

    def _silent(self, cameras: CameraSubscriptions) -> dict[str, str]:
        """Cameras whose topic is there."""
        there: Callable[[str], int] = self._node.count_publishers
        return {
            camera: cameras.why_silent(camera)
            for camera, topics in self._topics.items()
            if camera not in self._seen.seen and there(topics.image)
        }
