# SPDX-License-Identifier: Apache-2.0
"""Boxes as RViz markers: cuboids, headings, velocity arrows and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.visualization.colours import class_colour
from labeldistill_ros.messages.conversions import header, quaternion_of_yaw

MIN_SPEED_M_S = 0.5
"""Slower boxes get no arrow."""
_FACE_ALPHA = 0.35


def color_of(class_name: str, alpha: float = 1.0) -> ColorRGBA:
    """Colour of a class, that of its boxes in pictures."""
    r, g, b = (value / 255 for value in class_colour(class_name))
    return ColorRGBA(r=r, g=g, b=b, a=alpha)


def marker_array(
    boxes: Boxes3D, class_names: Sequence[str], stamp_ns: int, lifetime_s: float = 1.0
) -> MarkerArray:
    """All boxes of a set, behind an order to delete those of the set before.

    Args:
        boxes: in the frame whose name goes into the headers.
        class_names: by label.
        stamp_ns: time of the headers.
        lifetime_s: markers vanish after this time when nothing follows; longer than 1.5 periods.
    """
    head = header(stamp_ns, boxes.frame)
    lifetime = Duration(sec=int(lifetime_s), nanosec=int(lifetime_s % 1 * 1e9))
    array = MarkerArray(markers=[Marker(header=head, action=Marker.DELETEALL)])

    def add(namespace: str, number: int, kind: int, name: str, alpha: float = 1.0) -> Marker:
        marker = Marker(header=head, ns=namespace, id=number, type=kind, action=Marker.ADD)
        marker.lifetime, marker.color = lifetime, color_of(name, alpha)
        marker.pose.orientation.w = 1.0
        array.markers.append(marker)
        return marker

    rows, labels, scores = boxes.values.tolist(), boxes.labels.tolist(), boxes.scores.tolist()
    for i, (row, label, score) in enumerate(zip(rows, labels, scores, strict=True)):
        x, y, z, length, width, height, yaw, vx, vy = row
        name = class_names[label]
        center = Point(x=x, y=y, z=z)
        cuboid = add("boxes", i, Marker.CUBE, name, _FACE_ALPHA)
        cuboid.pose = Pose(position=center, orientation=quaternion_of_yaw(yaw))
        cuboid.scale = Vector3(x=length, y=width, z=height)

        front = math.hypot(length, width) / 2 + 0.5
        heading = add("headings", i, Marker.LINE_STRIP, name)
        heading.scale.x = 0.08
        ahead = Point(x=x + front * math.cos(yaw), y=y + front * math.sin(yaw), z=z)
        heading.points = [center, ahead]

        if math.hypot(vx, vy) > MIN_SPEED_M_S:  # false for an unknown velocity, which is NaN
            arrow = add("velocities", i, Marker.ARROW, name)
            arrow.scale = Vector3(x=0.15, y=0.35, z=0.4)
            arrow.points = [center, Point(x=x + vx, y=y + vy, z=z)]

        text = add("labels", i, Marker.TEXT_VIEW_FACING, name)
        text.pose.position = Point(x=x, y=y, z=z + height / 2 + 0.4)
        text.scale.z = 0.6
        text.text = f"{name} {score:.2f}"
    return array
