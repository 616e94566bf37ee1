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
