# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS, CameraCalibration, CameraView, FrameSet
from labeldistill_core.frames import Transform


def test_projection(calibration: Callable[..., CameraCalibration]) -> None:
    front = calibration(1)
    u, v, depth = front.project(np.array([1.0, -0.5, 10.0]))
    assert (u, v, depth) == pytest.approx((81.6 + 12.66, 49.1 - 6.33, 10.0))


def test_each_camera_sees_what_lies_ahead_of_it(
    calibration: Callable[..., CameraCalibration], frame_set: Callable[..., FrameSet]
) -> None:
    front, back = calibration(1), calibration(CAMERAS.index("CAM_BACK"))
    ahead = np.array([20.0, 0.0, 1.5])
    assert front.project(front.ego_from_camera.inverse.apply(ahead))[2] == pytest.approx(18.3)
    assert back.project(back.ego_from_camera.inverse.apply(ahead))[2] < 0
    assert set(frame_set(0.0).by_name) == set(CAMERAS)


def test_a_point_in_the_plane_of_the_lens_is_finite(
    calibration: Callable[..., CameraCalibration],
) -> None:
    assert np.isfinite(calibration(0).project(np.array([[1.0, 2.0, 0.0]]))).all()


def test_refuses_an_uncalibrated_camera(calibration: Callable[..., CameraCalibration]) -> None:
    with pytest.raises(ValueError, match="CAM_FRONT: intrinsics .* is the camera calibrated"):
        replace(calibration(1), intrinsics_px=np.zeros((3, 3)))


@pytest.mark.parametrize("change", [lambda k: k.T, lambda k: 2 * k, lambda k: k[[1, 0, 2]]])
def test_refuses_what_is_no_camera_matrix(
    calibration: Callable[..., CameraCalibration], change: Callable[[Any], Any]
) -> None:
    camera = calibration(1)
    with pytest.raises(ValueError, match="CAM_FRONT: intrinsics must be"):
        replace(camera, intrinsics_px=change(camera.intrinsics_px))
    with pytest.raises(ValueError, match="CAM_FRONT: it has 0 x "):
        replace(camera, width_px=0)


def test_what_is_written_into_a_matrix_later_changes_no_calibration(
    calibration: Callable[..., CameraCalibration],
) -> None:
    camera = calibration(1)
    k = camera.intrinsics_px.copy()
    mine = replace(camera, intrinsics_px=k)
    k[0, 0] *= 2
    assert mine.equals(camera)


def test_refuses_a_mount_on_another_frame(calibration: Callable[..., CameraCalibration]) -> None:
    with pytest.raises(ValueError, match="CAM_FRONT: ego_from_camera must end in 'ego'"):
        replace(calibration(1), ego_from_camera=Transform.identity("map", "CAM_FRONT"))


@pytest.mark.parametrize(
    "image", [np.zeros((90, 161, 3), np.uint8), np.zeros((90, 160, 3), np.float32)]
)
def test_refuses_an_image_of_another_size_or_type(
    calibration: Callable[..., CameraCalibration], image: np.ndarray[Any, Any]
) -> None:
    with pytest.raises(ValueError, match=r"CAM_FRONT: image is .* calibration says uint8 \(90, 16"):
        CameraView(calibration(1), 0, image, Transform.identity("map", "ego"))


def test_refuses_the_pose_of_something_else(
    calibration: Callable[..., CameraCalibration],
) -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    with pytest.raises(ValueError, match="CAM_FRONT: fixed_from_ego must begin in 'ego', not 'CA"):
        CameraView(calibration(1), 0, image, Transform.identity("map", "CAM_FRONT"))


@pytest.mark.parametrize(
    ("focal_px", "shift_m", "turn_rad", "same"),
    [
        (0.0, 0.0, 0.0, True),
        (1e-8, 0.0005, 1e-6, True),
        (1.0, 0.0, 0.0, False),
        (0.0, 0.002, 0.0, False),
        (0.0, 0.0, 0.005, False),
    ],
)
def test_calibrations_are_the_same_within_what_a_detector_sees(
    calibration: Callable[..., CameraCalibration],
    focal_px: float,
    shift_m: float,
    turn_rad: float,
    same: bool,
) -> None:
    one = calibration(1)
    mounted = one.ego_from_camera
    turn = Transform.from_quaternion(
        mounted.source, mounted.source, (1.0, 0.0, turn_rad / 2, 0.0), (shift_m, 0.0, 0.0)
    )
    k = one.intrinsics_px + np.diag([focal_px, focal_px, 0.0])
    other = replace(one, intrinsics_px=k, ego_from_camera=mounted @ turn)
    assert one.equals(other) is other.equals(one) is same
