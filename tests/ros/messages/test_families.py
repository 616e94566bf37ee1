# SPDX-License-Identifier: Apache-2.0
"""Both families of classes write the same bytes, and neither is needed for the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.messages import (
    ROS,
    MessageFamily,
    camera_info,
    detections_message,
    label_info,
    marker_array,
    read_set_status,
    set_status,
    table_message,
    values_of,
)
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.geometry import pose, transform_stamped
from labeldistill_ros.messages.markers import truth_markers
from labeldistill_ros.sets.report import SetReport
from tests.support.banned_imports import ROS as ROS_PACKAGES
from tests.support.banned_imports import import_one, without
from tests.support.families import FAMILIES, cdr_of, message_of, over_the_wire

STAMP_NS = 1_600_000_001_234_567_891
STATUS = "diagnostic_msgs/msg/DiagnosticArray"
REPORT = SetReport(
    STAMP_NS,
    "refused",
    ("CAM_FRONT", "CAM_BACK"),
    ("CAM_LEFT",),
    cause="image",
    spread_s=0.025,
    age_s=0.125,
    history_valid=2,
    pose="unknown",
    boxes=7,
    unusable=3,
    timings_ms={"sync_wait": 1.5, "total": 12.25},
)
TOTALS = {"seen": 9, "processed": 5, "refused": 4}


def three_boxes() -> Boxes3D:
    values = torch.arange(27, dtype=torch.float64).reshape(3, 9) / 7 + 0.1
    values[1, 7:] = torch.nan
    scores = torch.tensor([0.9, 0.5, 0.25], dtype=torch.float64)
    return Boxes3D("base_link", values, torch.tensor([0, 8, 3]), scores)


def quarter_turn() -> Transform:
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return Transform("map", "base_link", rotation, np.array([1.5, 0.0, 1.6]))


WRITERS: dict[str, tuple[str, Callable[[MessageFamily], Any]]] = {
    "detections": (
        "vision_msgs/msg/Detection3DArray",
        lambda f: detections_message(three_boxes(), CLASSES, STAMP_NS, ["a", "b", ""], f),
    ),
    "table": ("sensor_msgs/msg/PointCloud2", lambda f: table_message(three_boxes(), STAMP_NS, f)),
    "labels": ("vision_msgs/msg/LabelInfo", lambda f: label_info(CLASSES, 0.3, STAMP_NS, f)),
    "markers": (
        "visualization_msgs/msg/MarkerArray",
        lambda f: marker_array(three_boxes(), CLASSES, STAMP_NS, 1.25, f),
    ),
    "truth": (
        "visualization_msgs/msg/MarkerArray",
        lambda f: truth_markers(three_boxes(), CLASSES, STAMP_NS, family=f),
    ),
    "status": (STATUS, lambda f: set_status(REPORT, TOTALS, "detector", f)),
    "calibration": (
        "sensor_msgs/msg/CameraInfo",
        lambda f: camera_info(np.diag([900.0, 901, 1]), (1600, 900), STAMP_NS, "optical", f),
    ),
    "pose": ("geometry_msgs/msg/Pose", lambda f: pose((1, 2, 3), (0, 0, 0, 1), f)),
    "transform": (
        "geometry_msgs/msg/TransformStamped",
        lambda f: transform_stamped(quarter_turn(), STAMP_NS, "map", "base_link", f),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_both_families_write_the_same(name: str) -> None:
    kind, write = WRITERS[name]
    received = over_the_wire(write(ROS), kind, ROS)  # where float32 fields are rounded
    assert message_of(cdr_of(write(BAG), kind, BAG), kind, ROS) == received


@pytest.mark.parametrize(
    "kind", ["geometry_msgs/msg/Pose", "visualization_msgs/msg/Marker", "sensor_msgs/msg/Imu"]
)
def test_fields_that_are_not_given_have_the_defaults_of_ros(kind: str) -> None:
    assert message_of(cdr_of(BAG.make(kind), kind, BAG), kind, ROS) == ROS.make(kind)


def test_defaults_are_not_shared() -> None:
    first, second = BAG.make("geometry_msgs/msg/Pose"), BAG.make("geometry_msgs/msg/Pose")
    first.position.x = 1.0
    assert second.position.x == 0.0


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        BAG.make("std_msgs/msg/String", colour="red")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_record_of_a_set_is_read_back_as_written(family: MessageFamily) -> None:
    message = over_the_wire(set_status(REPORT, TOTALS, "detector", family), STATUS, family)
    (found,) = read_set_status(message)
    assert found.report == REPORT
    assert found.totals == TOTALS
    assert values_of(message.status[0])["degraded"] == "True"
    assert message.status[0].name == "detector: set"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_status_of_another_making(family: MessageFamily) -> None:
    """What is not told is not known; what cannot be read is named; the rest is no record."""

    def told(**values: str) -> Any:
        pairs = [
            family.make("diagnostic_msgs/msg/KeyValue", key=k, value=v) for k, v in values.items()
        ]
        kind = "diagnostic_msgs/msg/DiagnosticStatus"
        status = family.make(kind, level=1, name="other: set", values=pairs)
        return family.make(STATUS, status=[status])

    (found,) = read_set_status(told(outcome="processed", total_ms="2.5"))
    assert found.report == SetReport(0, "processed", (), (), timings_ms={"total": 2.5})
    assert found.totals == {}
    assert read_set_status(told(rate_hz="12.0")) == []
    with pytest.raises(DataError, match="'other: set' cannot be read: .*'soon'"):
        read_set_status(told(outcome="processed", total_ms="soon"))


@pytest.mark.parametrize("library", [ROS_PACKAGES, ("rosbags",)])
def test_the_package_needs_no_library_until_a_message_is_made(library: tuple[str, ...]) -> None:
    assert "labeldistill_ros.messages.boxes" in without(
        library, import_one, "labeldistill_ros.messages"
    )
