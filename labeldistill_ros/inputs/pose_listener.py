# SPDX-License-Identifier: Apache-2.0
"""Poses of a node, to be asked from any thread: /tf and /tf_static, or an odometry topic."""

from __future__ import annotations

import threading
import time

from geometry_msgs.msg import Quaternion, Vector3
from nav_msgs.msg import Odometry
from rclpy.lifecycle import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.odometry import OdometryPoses
from labeldistill_ros.inputs.telling import Tell, logged
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError
from labeldistill_ros.messages import stamp_to_ns

_DEPTH = 100

# The profiles of tf2_ros: /tf reliable with depth 100, /tf_static latched for late subscribers.
MOVING = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
STATIC = QoSProfile(
    depth=_DEPTH,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class _WaitingBuffer:
    """A transform buffer between the thread that fills it and one that waits for its content."""

    def __init__(self, tell: Tell) -> None:
        self._buffer = TransformBuffer(tell=tell)
        self._changed = threading.Condition()
        self._closed = False

    def close(self) -> None:
        """Whoever waits gets the error at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def lookup(self, target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        with self._changed:
            while True:
                try:
                    return self._buffer.lookup(target, source, stamp_ns)
                except TransformError as error:
                    left_s = until_s - time.monotonic()
                    # Waiting helps only where the stamp is newer than what has come; an unknown
                    # frame is told at once.
                    if not error.may_come or self._closed or left_s <= 0:
                        raise
                    self._changed.wait(left_s)

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        pose: tuple[Quaternion, Vector3],
        *,
        static: bool = False,
    ) -> None:
        q, t = pose
        wxyz, xyz = (q.w, q.x, q.y, q.z), (t.x, t.y, t.z)
        with self._changed:
            self._buffer.add(
                parent, child, stamp_ns, wxyz, xyz, static=static, arrival_s=time.monotonic()
            )
            self._changed.notify_all()


class TransformListener:
    """Subscribes to the transforms and waits for those that are about to come."""

    def __init__(self, node: Node, tell: Tell | None = None) -> None:
        """Subscribe to /tf and /tf_static; what is refused goes to `tell`, or to the log."""
        self._node = node
        self._buffer = _WaitingBuffer(tell or logged(node))
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_moving, MOVING),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, STATIC),
        ]

    def close(self) -> None:
        """Unsubscribe; whoever waits gets the error at once."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._buffer.close()

    def lookup(self, target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        """`target_from_source` at a stamp; waits for a pose that is newer than what came so far.

        Not to be called from the thread that spins the node.

        Args:
            target: frame that results.
            source: frame that goes in.
            stamp_ns: time of the pose.
            until_s: end of waiting, steady clock.

        Raises:
            TransformError: naming the frames and what is missing.
        """
        return self._buffer.lookup(target, source, stamp_ns, until_s)

    def _on_moving(self, message: TFMessage) -> None:
        self._add(message, static=False)

    def _on_static(self, message: TFMessage) -> None:
        self._add(message, static=True)

    def _add(self, message: TFMessage, *, static: bool) -> None:
        for entry in message.transforms:
            pose = (entry.transform.rotation, entry.transform.translation)
            stamp_ns = stamp_to_ns(entry.header.stamp)
            self._buffer.add(
                entry.header.frame_id, entry.child_frame_id, stamp_ns, pose, static=static
            )


class OdometryListener:
    """Where the vehicle is from `nav_msgs/Odometry`; all else from the transforms.

    See `OdometryPoses`.
    """

    def __init__(
        self, node: Node, transforms: TransformListener, topic: str, fixed_frame: str, base: str
    ) -> None:
        """Subscribe to `topic`; lookups between `fixed_frame` and `base` go to it."""
        self._node, self._transforms = node, transforms
        self._fixed_frame = fixed_frame
        self._buffer = _WaitingBuffer(logged(node))
        self._poses = OdometryPoses(
            self._buffer.lookup, transforms.lookup, topic, fixed_frame, base
        )
        self._subscription = node.create_subscription(Odometry, topic, self._on_odometry, _DEPTH)

    def close(self) -> None:
        """Unsubscribe, from the transforms as well."""
        self._node.destroy_subscription(self._subscription)
        self._buffer.close()
        self._transforms.close()

    def lookup(self, target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        """See `TransformListener.lookup`."""
        return self._poses.lookup(target, source, stamp_ns, until_s)

    def _on_odometry(self, message: Odometry) -> None:
        body = self._poses.body_of(message.child_frame_id)
        pose = message.pose.pose
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._buffer.add(self._fixed_frame, body, stamp_ns, (pose.orientation, pose.position))
