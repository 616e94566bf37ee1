# SPDX-License-Identifier: Apache-2.0
"""What `sensor_msgs/CameraInfo` may say, done right or refused by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.rectification import Rectifier
from labeldistill_ros.messages.calibration import calibration_from_info

MOUNT = Transform.identity("ego", "CAM_FRONT")


def info(width: int = 1280, height: int = 800, cx: float = 631.0, cy: float = 375.0) -> CameraInfo:
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    message.d = np.zeros(5)
    message.k = np.array([404.0, 0, cx, 0, 404.0, cy, 0, 0, 1])
    message.p = np.array([404.0, 0, cx, 0, 0, 404.0, cy, 0, 0, 0, 1, 0])
    message.r = np.eye(3).reshape(-1)
    return message


def window(message: CameraInfo, x: int, y: int, width: int, height: int) -> CameraInfo:
    message.roi.x_offset, message.roi.y_offset = x, y
    message.roi.width, message.roi.height = width, height
    return message


def read(message: CameraInfo, rectified: bool = False) -> CameraCalibration:
    return calibration_from_info("CAM_FRONT", message, MOUNT, rectified=rectified, undistorted=True)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("size", [(1280, 800), (640, 400)])
def test_a_region_of_interest_moves_the_principal_point(
    size: tuple[int, int], rectified: bool
) -> None:
    found = read(window(info(*size), 320, 200, 640, 400), rectified)
    assert (found.width_px, found.height_px) == (640, 400)
    assert found.intrinsics_px[:2].tolist() == [[404, 0, 311], [0, 404, 175]]


@pytest.mark.parametrize("rectified", [False, True])
def test_binning_scales_the_matrix(rectified: bool) -> None:
    message = info(cx=640.0, cy=400.0)
    message.binning_x, message.binning_y = 2, 4
    found = read(message, rectified)
    assert (found.width_px, found.height_px) == (640, 200)
    assert found.intrinsics_px[:2].tolist() == [[202, 0, 320], [0, 101, 100]]


def test_an_image_of_a_window_is_rectified_about_its_own_centre() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (800, 1280, 3), np.uint8)
    whole = info()
    whole.d = np.array([-0.2, 0.05, 0.0, 0.0, 0.0])
    straight = Rectifier().apply("CAM_FRONT", pixels, whole)
    part = window(whole, 320, 200, 640, 400)
    found = Rectifier().apply("CAM_FRONT", pixels[200:600, 320:960].copy(), part)
    inner = np.s_[100:-100, 150:-150]
    difference = found[inner].astype(int) - straight[200:600, 320:960][inner]
    assert np.abs(difference).mean() < 1.0


@pytest.mark.parametrize("model", ["equidistant", "fisheye"])
@pytest.mark.parametrize("count", [0, 4])
def test_a_fisheye_without_coefficients_is_no_pinhole(model: str, count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (198, 352, 3), np.uint8)
    message = info(352, 198, 176.0, 99.0)
    message.k[0] = message.k[4] = 200.0
    message.distortion_model, message.d = model, np.zeros(count)
    straight = Rectifier().apply("CAM_FRONT", pixels, message)
    message.d = np.array([1e-9, 0, 0, 0])
    want = Rectifier().apply("CAM_FRONT", pixels, message)
    assert np.abs(straight.astype(int) - want).mean() < 1
    assert np.abs(straight.astype(int) - pixels).mean() > 5
    with pytest.raises(DataError, match="has the distortion"):
        calibration_from_info("CAM_FRONT", message, MOUNT)


def _with_k(at: int, value: float) -> Callable[[CameraInfo], None]:
    def change(message: CameraInfo) -> None:
        message.k[at] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with_k(8, 0.0), "its last row has to be 0, 0, 1"),
        (_with_k(6, 1.0), "its last row has to be 0, 0, 1"),
        (_with_k(3, 50.0), "value under the focal length"),
        (_with_k(0, 1e30), "is not that of 1280 x 800 pixels"),
        (_with_k(4, 1e-3), "is not that of 1280 x 800 pixels"),
        (_with_k(2, -1e9), "is not that of 1280 x 800 pixels"),
        (lambda message: window(message, 1000, 0, 640, 400), "region of interest"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(
    change: Callable[[CameraInfo], None], told: str
) -> None:
    message = info()
    change(message)
    with pytest.raises(DataError, match=f"CAM_FRONT: .*{told}"):
        read(message)


def test_the_matrix_of_an_image_ten_times_as_large_is_refused() -> None:
    with pytest.raises(DataError, match="calibration of this image size"):
        read(info(128, 80))


def test_a_sensor_larger_than_any_camera_is_refused() -> None:
    with pytest.raises(DataError, match="CAM_FRONT: camera_info says 8192 x 4320 pixels, and 33"):
        read(info(8192, 4320))


def test_a_rectification_that_is_no_rotation_is_refused() -> None:
    message = info()
    message.r = np.diag([1.0, 1.0, 3.0]).reshape(-1)
    with pytest.raises(DataError, match="R in camera_info is no rotation"):
        read(message, rectified=True)
