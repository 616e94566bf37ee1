# SPDX-License-Identifier: Apache-2.0
"""Markers say the same as the boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from visualization_msgs.msg import Marker, MarkerArray

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.visualization.colours import CLASS_COLOURS
from labeldistill_ros.outputs.markers import marker_array


@pytest.fixture
def array() -> MarkerArray:
    ahead_left = [10.0, 5.0, 1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 3.0]
    parked = [-8.0, 0.0, 0.5, 0.8, 0.7, 1.8, 0.0, math.nan, math.nan]
    boxes = Boxes3D(
        "base_link",
        torch.tensor([ahead_left, parked]),
        torch.tensor([0, 8]),
        torch.tensor([0.9, 0.4]),
    )
    return marker_array(boxes, CLASSES, 1_500_000_000)


def of(array: MarkerArray, namespace: str) -> list[Marker]:
    return [m for m in array.markers if m.ns == namespace]


def test_old_markers_go_first(array: MarkerArray) -> None:
    assert array.markers[0].action == Marker.DELETEALL
    assert all(m.action == Marker.ADD for m in array.markers[1:])
    assert {(m.header.frame_id, m.header.stamp.sec) for m in array.markers} == {("base_link", 1)}
    assert len({(m.ns, m.id) for m in array.markers[1:]}) == len(array.markers) - 1
    assert all(m.lifetime.sec == 1 for m in array.markers[1:])
    serialize_message(array)


def test_cuboid_heading_and_velocity_point_the_same_way(array: MarkerArray) -> None:
    cuboid, heading, arrow = (of(array, n)[0] for n in ("boxes", "headings", "velocities"))
    assert (cuboid.scale.x, cuboid.scale.y, cuboid.scale.z) == (4.0, 2.0, 1.5)
    q = cuboid.pose.orientation
    assert 2 * math.atan2(q.z, q.w) == pytest.approx(math.pi / 2)
    for marker in (heading, arrow):
        start, end = ([p.x, p.y, p.z] for p in marker.points)
        way = np.subtract(end, start)
        assert way @ [0, 1, 0] == pytest.approx(np.linalg.norm(way), abs=1e-5)
    assert arrow.points[1].y == pytest.approx(5.0 + 3.0)


def test_no_arrow_without_velocity(array: MarkerArray) -> None:
    assert [m.id for m in of(array, "velocities")] == [0]


def test_labels_and_colors_are_those_of_the_class(array: MarkerArray) -> None:
    assert [m.text for m in of(array, "labels")] == ["car 0.90", "pedestrian 0.40"]
    color = of(array, "boxes")[1].color
    assert (color.r, color.g, color.b) == pytest.approx(
        tuple(value / 255 for value in CLASS_COLOURS["pedestrian"])
    )


def test_every_class_has_a_color_of_its_own_that_shows_on_dark() -> None:
    assert set(CLASS_COLOURS) == set(CLASSES)
    assert len(set(CLASS_COLOURS.values())) == len(CLASSES)
    for red, green, blue in CLASS_COLOURS.values():
        assert (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255 > 0.3
