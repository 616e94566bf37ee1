# SPDX-License-Identifier: Apache-2.0
"""/tf and /tf_static of a node, to be asked from any thread."""

from __future__ import annotations

import threading
import time

from rclpy.lifecycle import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from labeldistill_core.frames import Transform
from labeldistill_ros.messages import stamp_to_ns
from labeldistill_ros.transforms import TransformBuffer, TransformError

_DEPTH = 100


class TransformListener:
    """Subscribes to the transforms and waits for those that are about to come."""

    def __init__(self, node: Node) -> None:
        """Subscribe."""
        self._node = node
        self._buffer = TransformBuffer()
        self._changed = threading.Condition()
        self._closed = False
        reliable = ReliabilityPolicy.RELIABLE
        latched = DurabilityPolicy.TRANSIENT_LOCAL
        moving = QoSProfile(depth=_DEPTH, reliability=reliable)
        static = QoSProfile(depth=_DEPTH, reliability=reliable, durability=latched)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_moving, moving),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, static),
        ]

    def close(self) -> None:
        """Unsubscribe; whoever waits gets the error at once."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

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
        with self._changed:
            while True:
                try:
                    return self._buffer.lookup(target, source, stamp_ns)
                except TransformError as error:
                    left_s = until_s - time.monotonic()
                    if not error.may_come or self._closed or left_s <= 0:
                        raise
                    self._changed.wait(left_s)

    def _on_moving(self, message: TFMessage) -> None:
        self._add(message, static=False)

    def _on_static(self, message: TFMessage) -> None:
        self._add(message, static=True)

    def _add(self, message: TFMessage, *, static: bool) -> None:
        with self._changed:
            for entry in message.transforms:
                q, t = entry.transform.rotation, entry.transform.translation
                self._buffer.add(
                    entry.header.frame_id,
                    entry.child_frame_id,
                    stamp_to_ns(entry.header.stamp),
                    (q.w, q.x, q.y, q.z),
                    (t.x, t.y, t.z),
                    static=static,
                )
            self._changed.notify_all()
