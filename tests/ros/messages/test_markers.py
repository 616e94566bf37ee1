# SPDX-License-Identifier: Apache-2.0
"""Markers say the same as the boxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from visualization_msgs.msg import Marker

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.visualization.colours import CLASS_COLOURS
from labeldistill_ros.messages import MessageFamily
from labeldistill_ros.messages.markers import lifetime_of, marker_array, truth_markers
from tests.support.families import FAMILIES, over_the_wire

KIND = "visualization_msgs/msg/MarkerArray"


def two_boxes() -> Boxes3D:
    ahead_left = [10.0, 5.0, 1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 3.0]
    parked = [-8.0, 0.0, 0.5, 0.8, 0.7, 1.8, 0.0, math.nan, math.nan]
    return Boxes3D(
        "base_link",
        torch.tensor([ahead_left, parked]),
        torch.tensor([0, 8]),
        torch.tensor([0.9, 0.4]),
    )


@pytest.fixture(params=list(FAMILIES.values()), ids=list(FAMILIES))
def array(request: pytest.FixtureRequest) -> Any:
    """A `MarkerArray` as it is received."""
    made = marker_array(two_boxes(), CLASSES, 1_500_000_000, family=request.param)
    return over_the_wire(made, KIND, request.param)


def of(array: Any, namespace: str) -> list[Any]:
    return [m for m in array.markers if m.ns == namespace]


def test_old_markers_go_first(array: Any) -> None:
    assert array.markers[0].action == Marker.DELETEALL
    assert all(m.action == Marker.ADD for m in array.markers[1:])
    assert {(m.header.frame_id, m.header.stamp.sec) for m in array.markers} == {("base_link", 1)}
    assert len({(m.ns, m.id) for m in array.markers[1:]}) == len(array.markers) - 1
    assert all(m.lifetime.sec == 1 for m in array.markers[1:])
    assert all(m.pose.orientation.w == 1.0 for m in of(array, "headings"))


def test_markers_last_until_the_next_ones() -> None:
    assert lifetime_of(0.1) == 1.0
    assert lifetime_of(1.67) > 1.5 * 1.67
    assert lifetime_of(3600.0) == lifetime_of(math.nan) == 1.0, "a pause is no cycle"
    # a rate that is asked for
    assert lifetime_of(math.nan, 20.0) == lifetime_of(20.0, 20.0) == 40.0


def test_cuboid_heading_and_velocity_point_the_same_way(array: Any) -> None:
    cuboid, heading, arrow = (of(array, n)[0] for n in ("boxes", "headings", "velocities"))
    assert (cuboid.scale.x, cuboid.scale.y, cuboid.scale.z) == (4.0, 2.0, 1.5)
    q = cuboid.pose.orientation
    assert 2 * math.atan2(q.z, q.w) == pytest.approx(math.pi / 2)
    for marker in (heading, arrow):
        start, end = ([p.x, p.y, p.z] for p in marker.points)
        way = np.subtract(end, start)
        assert way @ [0, 1, 0] == pytest.approx(np.linalg.norm(way), abs=1e-5)
    assert arrow.points[1].y == pytest.approx(5.0 + 3.0)


def test_no_arrow_without_velocity(array: Any) -> None:
    assert [m.id for m in of(array, "velocities")] == [0]


def test_labels_and_colors_are_those_of_the_class(array: Any) -> None:
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


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_ground_truth_is_wire_frames_with_arrows(family: MessageFamily) -> None:
    made = truth_markers(two_boxes(), CLASSES, 1_500_000_000, family=family)
    array = over_the_wire(made, KIND, family)
    assert array.markers[0].action == Marker.DELETEALL
    assert [m.ns for m in array.markers[1:]] == ["car", "car velocity", "pedestrian"]
    frame, arrow = array.markers[1:3]
    ends = np.array([[p.x, p.y, p.z] for p in frame.points])
    assert frame.type == Marker.LINE_LIST
    assert len(ends) == 2 * 12
    np.testing.assert_allclose(ends.min(axis=0), [9.0, 3.0, 0.25], atol=1e-5)
    np.testing.assert_allclose(ends.max(axis=0), [11.0, 7.0, 1.75], atol=1e-5)
    lengths = np.linalg.norm(ends[0::2] - ends[1::2], axis=1)
    np.testing.assert_allclose(np.sort(lengths), [1.5] * 4 + [2.0] * 4 + [4.0] * 4, atol=1e-5)
    assert arrow.points[1].y - arrow.points[0].y == pytest.approx(3.0)
