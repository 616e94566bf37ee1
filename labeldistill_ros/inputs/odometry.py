# SPDX-License-Identifier: Apache-2.0
"""Where the vehicle is by odometry, beside transforms for all else. No ROS in here."""

from __future__ import annotations

from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.transforms import Lookup, TransformError
from labeldistill_ros.ros_names import frame_name


class OdometryPoses:
    """Lookups of the vehicle's pose go to the odometry, all others to the transforms.

    What these do not connect with the fixed frame is found by way of the vehicle.

    The frame in the messages' headers stands for the fixed frame. Where their child frame is not
    the vehicle frame, the transforms have to connect the two.
    """

    def __init__(
        self, odometry: Lookup, transforms: Lookup, topic: str, fixed_frame: str, base_frame: str
    ) -> None:
        """Take the two sources of poses.

        Args:
            odometry: gives the fixed frame from `body_frame`.
            transforms: gives all else.
            topic: of the odometry, for messages.
            fixed_frame: ROS name of the fixed frame.
            base_frame: ROS name of the vehicle frame.
        """
        self._odometry, self._transforms, self._topic = odometry, transforms, topic
        self._fixed_frame, self._base_frame = fixed_frame, base_frame
        self.body_frame = base_frame
        """Frame whose motion the odometry tells."""

    def body_of(self, child_frame_id: str) -> str:
        """The frame whose motion a message tells, noted for lookups; the vehicle where none is."""
        self.body_frame = frame_name(child_frame_id) or self._base_frame
        return self.body_frame

    def lookup(self, target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        """`target_from_source` at a stamp, from the source that knows it; see `Lookup`."""
        asked = (target, source)
        # Both directions are asked for: where the vehicle is, and the frame of the boxes from the
        # fixed one.
        if asked == (self._base_frame, self._fixed_frame):
            return self.lookup(source, target, stamp_ns, until_s).inverse
        if asked != (self._fixed_frame, self._base_frame):
            return self._other(target, source, stamp_ns, until_s)
        try:
            pose = self._odometry(self._fixed_frame, self.body_frame, stamp_ns, until_s)
        except TransformError as error:
            # Named by its topic, since the same frames may be on /tf as well.
            raise TransformError(f"{self._topic}: {error}", may_come=error.may_come) from error
        if self.body_frame == self._base_frame:
            return pose
        return pose @ self._transforms(self.body_frame, self._base_frame, stamp_ns, until_s)

    def _other(self, target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        try:
            return self._transforms(target, source, stamp_ns, until_s)
        except TransformError as error:
            if error.may_come or self._fixed_frame not in (target, source):
                raise
        # Nothing on /tf need name the fixed frame: then the way to what is mounted on the vehicle
        # leads over the odometry.
        base = self._base_frame
        if source == self._fixed_frame:
            from_base = self._transforms(target, base, stamp_ns, until_s)
            return from_base @ self.lookup(base, source, stamp_ns, until_s)
        pose = self.lookup(target, base, stamp_ns, until_s)
        return pose @ self._transforms(base, source, stamp_ns, until_s)
