# SPDX-License-Identifier: Apache-2.0
"""Boxes and calibrations to messages of each family and back, also over the wire."""

from __future__ import annotations

import math
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
    DetectionsMessage,
    MessageFamily,
    boxes_from_detections,
    boxes_from_table,
    calibration_from_info,
    camera_info,
    detections_message,
    label_info,
    rectification_differs,
    stamp_from_ns,
    stamp_to_ns,
    table_message,
)
from labeldistill_ros.messages.calibration import why_ambiguous
from labeldistill_ros.sets.selection import presentable
from tests.support.families import FAMILIES, cdr_of, message_of, over_the_wire

STAMP_NS = 1_600_000_001_234_567_891
ARRAY, CLOUD = "vision_msgs/msg/Detection3DArray", "sensor_msgs/msg/PointCloud2"


@pytest.fixture(params=list(FAMILIES.values()), ids=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> MessageFamily:
    found: MessageFamily = request.param
    return found


@pytest.fixture
def boxes() -> Boxes3D:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(20, 9, generator=generator, dtype=torch.float64) * 40 - 20
    values[:, 3:6] = values[:, 3:6].abs() + 0.1
    values[:, 6] = torch.linspace(-math.pi + 1e-3, math.pi, 20)
    labels = torch.arange(20) % len(CLASSES)
    return Boxes3D("base_link", values, labels, torch.linspace(0, 1, 20, dtype=torch.float64))


def test_stamps_keep_every_nanosecond(family: MessageFamily) -> None:
    assert stamp_to_ns(stamp_from_ns(STAMP_NS, family)) == STAMP_NS


def test_detections_come_back_from_the_wire(boxes: Boxes3D, family: MessageFamily) -> None:
    made = detections_message(boxes, CLASSES, STAMP_NS, family=family)
    message = over_the_wire(made, ARRAY, family)
    assert stamp_to_ns(message.header.stamp) == STAMP_NS
    assert all(d.header == message.header for d in message.detections)
    assert all(len(d.results) == 1 and d.id == "" for d in message.detections)
    back = boxes_from_detections(message, CLASSES)
    assert back.frame == "base_link"
    torch.testing.assert_close(back.values[:, :6], boxes.values[:, :6])
    turn = torch.remainder(back.yaws - boxes.yaws + math.pi, 2 * math.pi) - math.pi
    assert turn.abs().max() < 1e-9
    assert back.velocities.isnan().all()
    assert torch.equal(back.labels, boxes.labels)
    torch.testing.assert_close(back.scores, boxes.scores)


def test_a_box_ahead_left_and_turned_left(family: MessageFamily) -> None:
    values = torch.tensor([[10.0, 5.0, 1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 3.0]])
    boxes = Boxes3D("base_link", values, torch.tensor([0]), torch.tensor([0.5]))
    box = detections_message(boxes, CLASSES, 0, family=family).detections[0].bbox
    assert (box.center.position.x, box.center.position.y) == (10.0, 5.0)
    assert (box.size.x, box.size.y, box.size.z) == (4.0, 2.0, 1.5)  # length, width, height
    assert box.center.orientation.z == pytest.approx(math.sqrt(0.5))
    assert box.center.orientation.w == pytest.approx(math.sqrt(0.5))


def test_ids_are_kept(boxes: Boxes3D, family: MessageFamily) -> None:
    ids = [f"instance {i}" for i in range(len(boxes))]
    message = detections_message(boxes, CLASSES, STAMP_NS, ids, family)
    assert [d.id for d in message.detections] == ids


def test_a_message_that_is_filled_again_keeps_nothing_of_before(
    boxes: Boxes3D, family: MessageFamily
) -> None:
    """Fewer boxes, more, none: each time the same as a message of its own."""
    names = list(reversed(CLASSES))
    message = DetectionsMessage(names, family)
    received = []
    orders = (range(20), range(19, 12, -1), range(20), range(0), range(3, 9))
    for number, order in enumerate(orders):
        part = boxes[torch.tensor(list(order), dtype=torch.int64)]
        ids = [f"instance {i}" for i in order] if number % 2 == 0 else None
        wired = cdr_of(message.fill(part, STAMP_NS + number, ids), ARRAY, family)
        received.append(message_of(wired, ARRAY, ROS))
        assert received[-1] == detections_message(part, names, STAMP_NS + number, ids)
    assert [len(m.detections) for m in received] == [20, 7, 20, 0, 6]
    last = received[-1]
    assert stamp_to_ns(last.header.stamp) == STAMP_NS + 4
    assert [d.id for d in last.detections] == [f"instance {i}" for i in range(3, 9)]
    back = boxes_from_detections(last, names)
    torch.testing.assert_close(back.values[:, :6], boxes.values[3:9, :6])
    assert torch.equal(back.labels, boxes.labels[3:9])
    torch.testing.assert_close(back.scores, boxes.scores[3:9])


def test_empty_arrays_are_good_messages(family: MessageFamily) -> None:
    empty = Boxes3D.empty("base_link")
    message = over_the_wire(
        detections_message(empty, CLASSES, STAMP_NS, family=family), ARRAY, family
    )
    assert message.header.frame_id == "base_link"
    assert len(boxes_from_detections(message, CLASSES)) == 0
    table = over_the_wire(table_message(empty, STAMP_NS, family), CLOUD, family)
    assert len(boxes_from_table(table)) == 0


def test_unknown_class_is_named(boxes: Boxes3D, family: MessageFamily) -> None:
    message = detections_message(boxes, [f"x{i}" for i in range(10)], STAMP_NS, family=family)
    with pytest.raises(DataError, match="class 'x0' is none of car, truck"):
        boxes_from_detections(message, CLASSES)
    message.detections[0].results = []
    with pytest.raises(DataError, match="no result"):
        boxes_from_detections(message, CLASSES)


def test_table_keeps_velocity_and_order(boxes: Boxes3D, family: MessageFamily) -> None:
    boxes.values[3, 7:] = math.nan
    message = over_the_wire(table_message(boxes, STAMP_NS, family), CLOUD, family)
    names = "x y z length width height yaw vx vy score label"
    assert [f.name for f in message.fields] == names.split()
    assert message.row_step == message.width * message.point_step == len(message.data)
    back = boxes_from_table(message)
    torch.testing.assert_close(back.values, boxes.values.float(), equal_nan=True)
    assert torch.equal(back.labels, boxes.labels)
    with pytest.raises(DataError, match="its fields are x, y"):
        boxes_from_table(family.make(CLOUD, fields=message.fields[:2]))


def test_only_presentable_boxes() -> None:
    values = torch.ones(5, 9)
    values[0, 7:] = math.nan  # an unknown velocity does not matter
    values[1, 0] = math.nan
    values[2, 4] = -1.0
    values[3, 6] = math.inf
    scores = torch.tensor([0.5, 0.5, 0.5, 0.5, math.nan])
    assert len(presentable(Boxes3D("map", values, torch.zeros(5).long(), scores))) == 1


def test_label_info_names_the_numbers(family: MessageFamily) -> None:
    info = label_info(CLASSES, 0.3, STAMP_NS, family)
    assert [(c.class_id, c.class_name) for c in info.class_map][:2] == [(0, "car"), (1, "truck")]


@pytest.fixture
def mounted() -> Transform:
    rotation = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    return Transform("ego", "CAM_FRONT", rotation, np.array([1.5, 0.0, 1.6]))


def info(family: MessageFamily, **fields: object) -> Any:
    k = [1000.0, 0, 800, 0, 1000, 450, 0, 0, 1]
    p = [900.0, 0, 810, 0, 0, 900, 440, 0, 0, 0, 1, 0]
    r = [0.0, -1, 0, 1, 0, 0, 0, 0, 1]
    values = {"width": 1600, "height": 900, "k": k, "p": p, "r": r, **fields}
    kind = "sensor_msgs/msg/CameraInfo"
    return over_the_wire(family.make(kind, **values), kind, family)


def test_calibration_of_raw_and_rectified_images(mounted: Transform, family: MessageFamily) -> None:
    raw = calibration_from_info("CAM_FRONT", info(family), mounted)
    np.testing.assert_array_equal(raw.intrinsics_px, np.array(info(family).k).reshape(3, 3))
    assert (raw.width_px, raw.height_px) == (1600, 900)
    np.testing.assert_array_equal(raw.ego_from_camera.matrix, mounted.matrix)
    distorted = info(family, d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    rectified = calibration_from_info("CAM_FRONT", distorted, mounted, rectified=True)
    assert rectified.intrinsics_px[0, 0] == 900
    # A point of the rectified frame is R times the point of the optical frame.
    point = np.array([1.0, 2.0, 10.0])
    turned = np.array(distorted.r).reshape(3, 3) @ point
    np.testing.assert_allclose(rectified.ego_from_camera.apply(turned), mounted.apply(point))


@pytest.mark.parametrize(
    ("fields", "rectified", "message"),
    [
        ({"d": [0.1, 0.0]}, False, "distortion .0.1, 0.0.: rectify"),
        ({"k": [0.0] * 9}, False, "focal lengths 0 and 0 in K"),
        ({"p": [0.0] * 12}, True, "focal lengths 0 and 0 in P"),
        ({"r": [0.0] * 9}, True, "no R"),
        ({"width": 0}, False, "0 x 900 pixels"),
        ({"k": [math.nan, 0, 800, 0, 1000, 450, 0, 0, 1]}, False, "values in K or D"),
        ({"d": [math.inf, 0.0]}, False, "values in K or D"),
    ],
)
def test_unusable_calibrations_are_named(
    mounted: Transform,
    fields: dict[str, object],
    rectified: bool,
    message: str,
    family: MessageFamily,
) -> None:
    told = info(family, **fields)
    with pytest.raises(DataError, match=f"CAM_FRONT: camera_info.*{message}"):
        calibration_from_info("CAM_FRONT", told, mounted, rectified=rectified)


def test_rectification_differs(family: MessageFamily) -> None:
    same = [1000.0, 0, 800, 0, 0, 1000, 450, 0, 0, 0, 1, 0]
    assert rectification_differs(info(family))
    assert not rectification_differs(info(family, p=same))
    assert not rectification_differs(info(family, p=[0.0] * 12))


def test_a_damaged_r_is_told_of_raw_images_too(family: MessageFamily) -> None:
    same = [1000.0, 0, 800, 0, 0, 1000, 450, 0, 0, 0, 1, 0]
    assert why_ambiguous("CAM_FRONT", "/cam_front/camera_info", info(family, p=same)) == ""
    told = info(family, p=same, r=[1.0, 0, 0, 0, float("nan"), 0, 0, 0, 1])
    said = why_ambiguous("CAM_FRONT", "/cam_front/camera_info", told)
    assert said.startswith("CAM_FRONT: R of /cam_front/camera_info has values that are no numbers")


def test_camera_info_is_read_back_as_written(mounted: Transform, family: MessageFamily) -> None:
    k = np.array([[1000.0, 0, 800], [0, 1010, 450], [0, 0, 1]])
    written = camera_info(k, (1600, 900), STAMP_NS, "cam_front_optical_frame", family)
    message = over_the_wire(written, "sensor_msgs/msg/CameraInfo", family)
    assert message.header.frame_id == "cam_front_optical_frame"
    assert not rectification_differs(message)
    back = calibration_from_info("CAM_FRONT", message, mounted)
    np.testing.assert_array_equal(back.intrinsics_px, k)
    assert (back.width_px, back.height_px) == (1600, 900)
