# SPDX-License-Identifier: Apache-2.0
"""A rectified image shows each point where the pinhole camera would."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from labeldistill_core.errors import DataError
from labeldistill_ros.inputs.rectification import Rectifier

pytest.importorskip("cv2", reason="rectification needs OpenCV")

K = np.array([[400.0, 0.0, 320.0], [0.0, 410.0, 240.0], [0.0, 0.0, 1.0]])
WIDTH, HEIGHT = 640, 480
Point = tuple[float, float]


def brown(x: float, y: float) -> Point:
    """Brown's model with k1, k2, p1, p2 = -0.2, 0.05, 0.002, -0.001."""
    r2 = x * x + y * y
    radial = 1 - 0.2 * r2 + 0.05 * r2 * r2
    return (
        x * radial + 2 * 0.002 * x * y - 0.001 * (r2 + 2 * x * x),
        y * radial + 0.002 * (r2 + 2 * y * y) - 2 * 0.001 * x * y,
    )


def equidistant(x: float, y: float) -> Point:
    """Kannala and Brandt's model with k1, k2, k3, k4 = 0.05, -0.01, 0, 0."""
    r = math.hypot(x, y)
    theta = math.atan(r)
    bent = theta * (1 + 0.05 * theta**2 - 0.01 * theta**4)
    return x * bent / r, y * bent / r


@pytest.mark.parametrize(
    ("model", "coefficients", "distort"),
    [
        ("plumb_bob", [-0.2, 0.05, 0.002, -0.001, 0.0], brown),
        ("equidistant", [0.05, -0.01, 0.0, 0.0], equidistant),
    ],
)
@pytest.mark.parametrize("point", [(0.5, 0.3), (-0.6, 0.2), (0.1, -0.45), (-0.3, -0.3)])
def test_a_dot_moves_to_where_the_pinhole_sees_it(
    model: str, coefficients: list[float], distort: Callable[[float, float], Point], point: Point
) -> None:
    seen, wanted = ((K @ [*xy, 1.0])[:2] for xy in (distort(*point), point))
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    dot = 255 * np.exp(-((u - seen[0]) ** 2 + (v - seen[1]) ** 2) / (2 * 3.0**2))
    image = np.repeat(dot.astype(np.uint8)[..., None], 3, axis=2)
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model)
    info.k, info.d = K.ravel().tolist(), coefficients
    straight = Rectifier().apply("CAM", image, info)[..., 0].astype(float)
    found = [(axis * straight).sum() / straight.sum() for axis in (u, v)]
    assert np.linalg.norm(seen - wanted) > 3  # there is something to do
    assert found == pytest.approx(wanted, abs=0.3)


def test_images_without_distortion_stay_as_they_are() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert Rectifier().apply("CAM", image, CameraInfo(d=[0.0] * 5)) is image


@pytest.mark.parametrize(("width", "height"), [(40_000, 50), (50, 40_000)])
def test_an_image_that_opencv_cannot_address_is_the_cameras_fault(width: int, height: int) -> None:
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    info.k = [width / 2, 0.0, width / 2, 0.0, height / 2, height / 2, 0.0, 0.0, 1.0]
    info.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(DataError, match=f"CAM: {width} x {height} pixels cannot be rectified"):
        Rectifier().apply("CAM", np.zeros((height, width, 3), np.uint8), info)
