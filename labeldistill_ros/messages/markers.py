# SPDX-License-Identifier: Apache-2.0
"""Boxes as RViz markers: what a detector found, and ground truth to compare it with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.visualization.colours import TRUTH_COLOUR, Colour, class_colour
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.geometry import point, pose, quaternion_of_yaw, vector3
from labeldistill_ros.messages.stamps import duration, header

MIN_SPEED_M_S = 0.5
"""Slower boxes get no arrow."""
_LIFETIME_S, _CYCLES, _PAUSE_S = 1.0, 2.0, 10.0
_FACE_ALPHA, _TRUTH_ALPHA = 0.35, 0.9

# constants of visualization_msgs/Marker
_ARROW, _CUBE, _LINE_STRIP, _LINE_LIST, _TEXT = 0, 1, 4, 5, 9
_DELETE_ALL = 3

# pairs of corners as `Boxes3D.corners` numbers them: four below, the same four above
_EDGES = [(i, (i + 1) % 4) for i in range(4)]
_EDGES += [(a + 4, b + 4) for a, b in _EDGES] + [(i, i + 4) for i in range(4)]


class _Markers:
    """Collects markers with one header and lifetime, behind an order to delete those before."""

    def __init__(self, frame: str, stamp_ns: int, lifetime_s: float, family: MessageFamily) -> None:
        self._family = family
        self._head = header(stamp_ns, frame, family)
        self._lifetime = duration(lifetime_s, family)
        # The order to delete goes first in the same array: RViz then never shows boxes of two sets,
        # and needs no memory of which ids the set before had.
        make = family.make
        self._all = [make("visualization_msgs/msg/Marker", header=self._head, action=_DELETE_ALL)]

    def add(
        self,
        namespace: str,
        number: int,
        kind: int,
        color: Any,
        scale: tuple[float, float, float],
        **fields: Any,
    ) -> None:
        marker = self._family.make(
            "visualization_msgs/msg/Marker",
            header=self._head,
            ns=namespace,
            id=number,
            type=kind,
            color=color,
            scale=vector3(*scale, family=self._family),
            lifetime=self._lifetime,
            **fields,
        )
        self._all.append(marker)

    def velocity(
        self,
        namespace: str,
        number: int,
        row: Sequence[float],
        color: Any,
        scale: tuple[float, float, float],
    ) -> None:
        """An arrow from the centre of a box (9 numbers) to where it is in a second, if it moves."""
        x, y, z, *_, vx, vy = row
        if math.hypot(vx, vy) > MIN_SPEED_M_S:  # false for an unknown velocity, which is NaN
            ends = [(x, y, z), (x + vx, y + vy, z)]
            arrow = [point(*end, family=self._family) for end in ends]
            self.add(namespace, number, _ARROW, color, scale, points=arrow)

    def color(self, colour: Colour, alpha: float = 1.0) -> Any:
        r, g, b = (value / 255 for value in colour)
        return self._family.make("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=alpha)

    def message(self) -> Any:
        return self._family.make("visualization_msgs/msg/MarkerArray", markers=self._all)


def lifetime_of(cycle_s: float, least_cycle_s: float = 0.0) -> float:
    """Lifetime in seconds of markers that last until the next ones come, a second at least.

    Those replace them anyway.

    Args:
        cycle_s: since the markers before. What took longer than ten seconds, or is NaN, was a
            pause, and tells nothing of when the next ones come.
        least_cycle_s: in which none come, as where a rate is limited.
    """
    cycles_s = [least_cycle_s, *([cycle_s] if cycle_s <= _PAUSE_S else [])]
    return max(_LIFETIME_S, _CYCLES * max(cycles_s))


def marker_array(
    boxes: Boxes3D,
    class_names: Sequence[str],
    stamp_ns: int,
    lifetime_s: float = _LIFETIME_S,
    family: MessageFamily = ROS,
) -> Any:
    """`MarkerArray` of a detector's boxes: cuboids, headings, velocity arrows and labels.

    Args:
        boxes: in the frame whose name goes into the headers.
        class_names: by label.
        stamp_ns: time of the headers.
        lifetime_s: markers vanish after this time when nothing follows; longer than 1.5 periods.
        family: of the message's classes.

    Returns:
        All boxes of a set, behind an order to delete those of the set before.
    """
    markers = _Markers(boxes.frame, stamp_ns, lifetime_s, family)
    rows, labels, scores = boxes.values.tolist(), boxes.labels.tolist(), boxes.scores.tolist()
    for i, (row, label, score) in enumerate(zip(rows, labels, scores, strict=True)):
        x, y, z, length, width, height, yaw, *_ = row
        name = class_names[label]
        face = markers.color(class_colour(name), _FACE_ALPHA)
        solid = markers.color(class_colour(name))
        center = point(x, y, z, family=family)
        turned = family.make(
            "geometry_msgs/msg/Pose", position=center, orientation=quaternion_of_yaw(yaw, family)
        )
        size = (length, width, height)
        markers.add("boxes", i, _CUBE, face, size, pose=turned)

        # Half the diagonal and half a metre, so that the line leaves the box whatever its shape.
        front = math.hypot(length, width) / 2 + 0.5
        ahead = point(x + front * math.cos(yaw), y + front * math.sin(yaw), z, family=family)
        line = [center, ahead]
        markers.add("headings", i, _LINE_STRIP, solid, (0.08, 0.0, 0.0), points=line)

        markers.velocity("velocities", i, row, solid, (0.15, 0.35, 0.4))

        above = pose((x, y, z + height / 2 + 0.4), (1.0, 0.0, 0.0, 0.0), family)
        text = f"{name} {score:.2f}"
        markers.add("labels", i, _TEXT, solid, (0.0, 0.0, 0.6), pose=above, text=text)
    return markers.message()


def truth_markers(
    boxes: Boxes3D,
    class_names: Sequence[str],
    stamp_ns: int,
    lifetime_s: float = 1.0,
    family: MessageFamily = ROS,
) -> Any:
    """`MarkerArray` of ground truth: green wire frames, and arrows as long as the velocity.

    Args:
        boxes: in the frame whose name goes into the headers.
        class_names: by label.
        stamp_ns: time of the headers.
        lifetime_s: markers vanish after this time when nothing follows.
        family: of the message's classes.

    Returns:
        All boxes of a key frame, behind an order to delete those of the key frame before.
    """
    markers = _Markers(boxes.frame, stamp_ns, lifetime_s, family)
    green = markers.color(TRUTH_COLOUR, _TRUTH_ALPHA)
    rows, labels = boxes.values.tolist(), boxes.labels.tolist()
    for i, (row, label, box) in enumerate(zip(rows, labels, boxes.corners().tolist(), strict=True)):
        name, corners = class_names[label], [point(*corner, family=family) for corner in box]
        lines = [corners[end] for edge in _EDGES for end in edge]
        markers.add(name, i, _LINE_LIST, green, (0.06, 0.0, 0.0), points=lines)
        markers.velocity(f"{name} velocity", i, row, green, (0.12, 0.3, 0.4))
    return markers.message()
