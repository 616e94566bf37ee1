# SPDX-License-Identifier: Apache-2.0
"""Where the vehicle is by odometry, beside transforms for all else. No ROS in here."""

from __future__ import annotations

from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.transforms import Lookup, TransformError


class OdometryPoses:
    """Lookups of the vehicle's pose go to the odometry, all others to the transforms.

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

    def lookup(self, target: str, source: str, stamp_ns: int, until_s: float) -> Transform:
        """`target_from_source` at a stamp, from the source that knows it; see `Lookup`."""
        asked = (target, source)
        # Both directions are asked for: where the vehicle is, and the frame of the boxes from the
        # fixed one.
        if asked == (self._base_frame, self._fixed_frame):
            return self.lookup(source, target, stamp_ns, until_s).inverse
        if asked != (self._fixed_frame, self._base_frame):
            return self._transforms(target, source, stamp_ns, until_s)
        try:
            pose = self._odometry(self._fixed_frame, self.body_frame, stamp_ns, until_s)
        except TransformError as error:
            # Named by its topic, since the same frames may be on /tf as well.
            raise TransformError(f"{self._topic}: {error}", may_come=error.may_come) from error
        if self.body_frame == self._base_frame:
            return pose
        return pose @ self._transforms(self.body_frame, self._base_frame, stamp_ns, until_s)
