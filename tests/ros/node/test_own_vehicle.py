# SPDX-License-Identifier: Apache-2.0
"""The node on another vehicle: five cameras of three sizes with own names, four own classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rclpy.context import Context

from labeldistill_core.checkpoints import save_student
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.visualization.colours import class_colour
from labeldistill_ros.messages import boxes_from_detections
from labeldistill_ros.testing.course import Course
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.own_vehicle import CAMERAS, SIZES_PX, own_preset

START_NS = 1_700_000_000_000_000_000
COURSE = Course(
    START_NS,
    phases_s={name: 0.006 * number for number, name in enumerate(CAMERAS)},
    sizes_px=SIZES_PX,
    headings_deg=dict(zip(CAMERAS, (0.0, 5.0, 80.0, -80.0, 180.0), strict=True)),
)
Start = Callable[..., RunningNode]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "own.safetensors"
    torch.manual_seed(3)
    save_student(file, Student(own_preset().student))
    return file


def test_parameters_topics_and_messages(ros_context: Context, detector: Start, model: Path) -> None:
    vehicle = Vehicle(ros_context, course=COURSE)
    vehicle.listen_to_pictures()
    try:
        # A threshold that no score reaches, by the class's own name.
        node = detector(model, **{"classes.velo.score_threshold": 2.0})
        assert node.started
        for name in CAMERAS:
            assert node.node.has_parameter(f"cameras.{name}.image_topic")
        assert not node.node.has_parameter("cameras.CAM_FRONT.image_topic")
        assert not node.node.has_parameter("classes.car.score_threshold")
        vehicle.connect()
        vehicle.drive(range(4))
        vehicle.expect(lambda: len(vehicle.boxes) >= 3, "boxes")
        names = node.detector.class_names
        seen = {
            names[i] for m in vehicle.boxes for i in boxes_from_detections(m, names).labels.tolist()
        }
        assert seen
        assert seen <= {"auto", "person", "work_site"}
        assert vehicle.sets[-1]["cameras"].split() == list(CAMERAS)
        # The same boxes as from the images themselves: each camera's size and place is its own.
        frames, found = node.results[0]
        assert {v.calibration.name: v.image.shape[1::-1] for v in frames.views} == SIZES_PX
        offline = Detector.load(model)
        expected = offline.detect(COURSE.frame_set(COURSE.cycle_of(frames.stamp_ns)))
        assert found.boxes.labels.tolist() == expected.boxes.labels.tolist()
        torch.testing.assert_close(found.boxes.values, expected.boxes.values, atol=1e-3, rtol=1e-3)
        vehicle.expect(lambda: len(vehicle.markers) >= 3, "markers")
        colours = {
            tuple(round(255 * value) for value in (m.color.r, m.color.g, m.color.b))
            for array in vehicle.markers
            for m in array.markers
        }
        assert {class_colour(name) for name in seen} <= colours
    finally:
        vehicle.close()
