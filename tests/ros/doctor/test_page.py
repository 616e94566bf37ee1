# SPDX-License-Identifier: Apache-2.0
"""The vehicle of docs/node.md: its parameter file loads, and its transforms look where they say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS, EGO_FRAME, FIXED_FRAME, CameraCalibration, CameraView
from labeldistill_core.classes import CLASSES
from labeldistill_core.frames import Transform
from labeldistill_ros.parameter_file import GivenParameters
from labeldistill_ros.parameters import VehicleParameters
from labeldistill_ros.sets.options import assembly_options, make_synchronizer
from labeldistill_ros.sets.plausibility import implausible

_STATIC = re.compile(
    r"--child-frame-id (\S+) +--x (\S+) +--y (\S+) +--z (\S+) +--yaw (\S+) &", re.MULTILINE
)


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "node.md").read_text()


@pytest.fixture
def vehicle(page: str, tmp_path: Path) -> VehicleParameters:
    _, _, rest = page.partition("<!-- parameter file, loaded by a test -->")
    file = tmp_path / "vehicle.yaml"
    file.write_text(rest.partition("```yaml\n")[2].partition("```")[0])
    given = GivenParameters.of_file(file)
    assert given.unknown(CAMERAS, CLASSES) == []
    return given.vehicle(CAMERAS, CLASSES)


def test_the_parameter_file_loads(vehicle: VehicleParameters) -> None:
    assert list(vehicle.cameras) == list(CAMERAS)
    assert all(own.image_topic and own.info_topic for own in vehicle.cameras.values())
    make_synchronizer(vehicle)
    assert assembly_options(vehicle).min_cameras == 4


def test_its_transforms_look_where_the_names_say(page: str, vehicle: VehicleParameters) -> None:
    mounted = {}
    for frame, *numbers in _STATIC.findall(page):
        x, y, z, yaw = map(float, numbers)
        # roll about the vehicle's x by -90 degrees, then yaw about its z
        roll = (math.cos(-math.pi / 4), math.sin(-math.pi / 4), 0.0, 0.0)
        turn = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
        at = Transform.from_quaternion(EGO_FRAME, "turned", turn, (x, y, z))
        mounted[frame] = at @ Transform.from_quaternion("turned", "camera", roll, (0.0, 0.0, 0.0))
    frames = {name: own.frame_id for name, own in vehicle.cameras.items()}
    assert mounted.keys() == set(frames.values())
    k = np.array([[500.0, 0, 400], [0, 500, 225], [0, 0, 1]])
    still = Transform.identity(FIXED_FRAME, EGO_FRAME)
    views = []
    for name, frame in frames.items():
        own = mounted[frame]
        pose = Transform(EGO_FRAME, name, own.rotation, own.translation)
        assert pose.rotation[2, 1] == pytest.approx(-1.0, abs=1e-4)  # down is down
        calibration = CameraCalibration(name, k, 800, 450, pose)
        views.append(CameraView(calibration, 0, np.zeros((450, 800, 3), np.uint8), still))
    assert implausible(views, frames) == {}
