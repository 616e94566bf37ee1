# SPDX-License-Identifier: Apache-2.0
"""Mountings that no vehicle has are named, and those of a real one are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labeldistill_core.cameras import EGO_FRAME, CameraView
from labeldistill_core.frames import Transform
from labeldistill_ros.sets.plausibility import implausible
from tests.support.rig import offline_set

OPTICAL_FROM_BODY = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])


@pytest.fixture
def views() -> dict[str, CameraView]:
    return {view.calibration.name: view for view in offline_set(0).views}


def frames(views: dict[str, CameraView]) -> dict[str, str]:
    return {camera: f"{camera.lower()}_optical_frame" for camera in views}


def mounted(view: CameraView, rotation: object, translation: object) -> CameraView:
    camera = view.calibration.name
    pose = Transform(EGO_FRAME, camera, np.asarray(rotation), np.asarray(translation))
    return replace(view, calibration=replace(view.calibration, ego_from_camera=pose))


def told(views: dict[str, CameraView], names: dict[str, str] | None = None) -> dict[str, str]:
    return implausible(tuple(views.values()), names or frames(views))


def test_a_vehicle_as_it_should_be(views: dict[str, CameraView]) -> None:
    assert told(views) == {}


def test_body_frames_for_optical_ones(views: dict[str, CameraView]) -> None:
    for camera, view in views.items():
        pose = view.calibration.ego_from_camera
        views[camera] = mounted(view, pose.rotation @ OPTICAL_FROM_BODY, pose.translation)
    found = told(views)
    assert list(found) == list(views)
    assert (
        "CAM_BACK: its optical axis points upwards: 'cam_back_optical_frame'" in found["CAM_BACK"]
    )


def test_a_camera_that_looks_at_the_ground(views: dict[str, CameraView]) -> None:
    down = [[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]
    views["CAM_FRONT"] = mounted(views["CAM_FRONT"], down, [1.0, 0, 1.5])
    assert "points downwards" in told(views)["CAM_FRONT"]


@pytest.mark.parametrize(
    ("a", "b"), [("CAM_FRONT", "CAM_BACK"), ("CAM_FRONT_LEFT", "CAM_FRONT_RIGHT")]
)
def test_swapped_frames(views: dict[str, CameraView], a: str, b: str) -> None:
    first, second = (views[c].calibration.ego_from_camera for c in (a, b))
    views[a] = mounted(views[a], second.rotation, second.translation)
    views[b] = mounted(views[b], first.rotation, first.translation)
    found = told(views)
    assert set(found) == {a, b}
    assert all("swapped" in text for text in found.values())


def test_cameras_that_share_a_frame(views: dict[str, CameraView]) -> None:
    names = frames(views) | {"CAM_BACK": "cam_front_optical_frame"}
    pose = views["CAM_FRONT"].calibration.ego_from_camera
    views["CAM_BACK"] = mounted(views["CAM_BACK"], pose.rotation, pose.translation)
    (text,) = told(views, names).values()
    assert "in the frame 'cam_front_optical_frame' of CAM_FRONT" in text


def test_two_cameras_in_one_place(views: dict[str, CameraView]) -> None:
    pose = views["CAM_FRONT"].calibration.ego_from_camera
    views["CAM_FRONT_LEFT"] = mounted(views["CAM_FRONT_LEFT"], pose.rotation, pose.translation)
    (text,) = told(views).values()
    assert "mounted where CAM_FRONT" in text or "mounted where CAM_FRONT_LEFT" in text


def test_cameras_in_one_housing_that_look_apart(views: dict[str, CameraView]) -> None:
    for camera, view in views.items():
        views[camera] = mounted(view, view.calibration.ego_from_camera.rotation, [1.0, 0, 1.5])
    assert told(views) == {}


def test_names_without_a_side_deny_nothing(views: dict[str, CameraView]) -> None:
    view = views["CAM_BACK"]
    pose = Transform(EGO_FRAME, "TOP", view.calibration.ego_from_camera.rotation, np.zeros(3))
    calibration = replace(view.calibration, name="TOP", ego_from_camera=pose)
    assert implausible([replace(view, calibration=calibration)], {"TOP": "top"}) == {}
