# SPDX-License-Identifier: Apache-2.0
"""Points, turns and transforms as messages of `geometry_msgs`, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from labeldistill_core.frames import Transform
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.stamps import header


def point(x: float, y: float, z: float, *, family: MessageFamily = ROS) -> Any:
    """`geometry_msgs/Point` of a place, metres."""
    return family.make("geometry_msgs/msg/Point", x=float(x), y=float(y), z=float(z))


def vector3(x: float, y: float, z: float, *, family: MessageFamily = ROS) -> Any:
    """`geometry_msgs/Vector3` of three components, in the caller's unit."""
    return family.make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z))


def quaternion(w: float, x: float, y: float, z: float, *, family: MessageFamily = ROS) -> Any:
    """`geometry_msgs/Quaternion`; note that w comes first here."""
    return family.make(
        "geometry_msgs/msg/Quaternion", x=float(x), y=float(y), z=float(z), w=float(w)
    )


def quaternion_of_yaw(yaw_rad: float, family: MessageFamily = ROS) -> Any:
    """`geometry_msgs/Quaternion` of a turn about +z, counter-clockwise from above."""
    return quaternion(math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2), family=family)


def yaw_of(turn: Any) -> float:
    """The turn about +z in a `geometry_msgs/Quaternion` of length one, in radians."""
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    # The heading of the turned x axis, which is right for a quaternion that leans a little as well.
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def pose(position: Sequence[float], wxyz: Sequence[float], family: MessageFamily = ROS) -> Any:
    """`geometry_msgs/Pose` of a position in metres and a quaternion with w first."""
    # ROS stores quaternions as x, y, z, w; here w comes first as in nuScenes' tables, and only this
    # module turns the order.
    (x, y, z), (qw, qx, qy, qz) = position, wxyz
    return family.make(
        "geometry_msgs/msg/Pose",
        position=point(x, y, z, family=family),
        orientation=quaternion(qw, qx, qy, qz, family=family),
    )


def transform_stamped(
    transform: Transform, stamp_ns: int, parent: str, child: str, family: MessageFamily = ROS
) -> Any:
    """`geometry_msgs/TransformStamped` of `parent_from_child` under the ROS names given."""
    x, y, z = transform.translation.tolist()
    qw, qx, qy, qz = transform.quaternion.tolist()
    return family.make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent, family),
        child_frame_id=child,
        transform=family.make(
            "geometry_msgs/msg/Transform",
            translation=vector3(x, y, z, family=family),
            rotation=quaternion(qw, qx, qy, qz, family=family),
        ),
    )
