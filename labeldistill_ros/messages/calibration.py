# SPDX-License-Identifier: Apache-2.0
"""Calibrations as `sensor_msgs/CameraInfo`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.data.image_header import fault_of_camera_size
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.stamps import header

FISHEYE = ("equidistant", "fisheye")
"""Distortion models in which the angle to the axis, not its tangent, gives the radius."""
_LONGEST, _SHORTEST = 20.0, 0.05
"""Focal lengths in image widths and heights: fields of view of 3 and of 169 degrees."""
_MOST_SKEW = 0.1
"""Of the axes of a sensor, in focal lengths: 6 degrees."""
_OFF_CENTRE = 2.0
"""How far the principal point may lie from the middle, in image sizes; K of an image ten times as
large is further off."""


def camera_info(
    intrinsics_px: np.ndarray[Any, np.dtype[np.float64]],
    size_px: tuple[int, int],
    stamp_ns: int,
    frame_id: str,
    family: MessageFamily = ROS,
) -> Any:
    """`CameraInfo` of a camera without distortion.

    Args:
        intrinsics_px: (3, 3), the camera matrix.
        size_px: width and height of its images.
        stamp_ns: time of the header.
        frame_id: the camera's optical frame.
        family: of the message's classes.
    """
    width, height = size_px
    return family.make(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, frame_id, family),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        # `plumb_bob` has five coefficients (k1, k2, t1, t2, k3); zeros mean no distortion.
        d=np.zeros(5),
        k=intrinsics_px.reshape(-1).copy(),
        r=np.eye(3).reshape(-1),
        p=np.hstack([intrinsics_px, np.zeros((3, 1))]).reshape(-1),
    )


def calibration_from_info(
    name: str,
    info: Any,
    ego_from_camera: Transform,
    *,
    rectified: bool = False,
    undistorted: bool = False,
) -> CameraCalibration:
    """Calibration of one camera.

    Args:
        name: the camera's name in the model.
        info: its `camera_info`.
        ego_from_camera: mounting pose, `ego` from the optical frame.
        rectified: the images are rectified, so P and R hold rather than K and D.
        undistorted: `Rectifier` takes the distortion out, so D is no obstacle.

    Raises:
        DataError: the camera is not calibrated, or its images are distorted.
    """
    width, height = image_size(name, info)
    intrinsics = _intrinsics(name, info, "P" if rectified else "K")
    if rectified:
        turn = np.asarray(info.r, dtype=np.float64).reshape(3, 3)  # rectified from optical
        if not turn.any():
            raise DataError(f"{name}: camera_info has no R, which rectified images need")
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
            raise DataError(f"{name}: R in camera_info is no rotation: calibrate the camera anew")
        mounted = Transform(ego_from_camera.source, ego_from_camera.source, turn.T, np.zeros(3))
        ego_from_camera = ego_from_camera @ mounted
    elif not undistorted and is_distorted(info):
        raise DataError(
            f"{name}: camera_info has the distortion {[round(float(d), 4) for d in info.d]}: "
            "rectify the images (image_proc), set the image topic to the rectified one and "
            "images_rectified to true"
        )
    return CameraCalibration(name, intrinsics, width, height, ego_from_camera)


def is_distorted(info: Any) -> bool:
    """Whether raw images are other than those of the pinhole camera K.

    `sensor_msgs` means D of zeros as "no distortion" for the polynomial models; a fisheye lens
    without coefficients still projects by the angle, not by its tangent.
    """
    return bool(np.any(np.asarray(info.d)) or info.distortion_model in FISHEYE)


def shows_whole_sensor(info: Any) -> bool:
    """Whether the images have all pixels of the sensor: of no region of it, and not binned."""
    size, roi = (info.width, info.height), info.roi
    binned = (info.binning_x or 1) > 1 or (info.binning_y or 1) > 1
    return not binned and (roi.width or size[0], roi.height or size[1]) == size


def image_size(name: str, info: Any) -> tuple[int, int]:
    """Width and height of the images: the region of interest of the sensor, binned.

    Raises:
        DataError: they are zero or too many, or the region lies outside the sensor.
    """
    if not info.width or not info.height:
        raise DataError(
            f"{name}: camera_info says {info.width} x {info.height} pixels; set width and height"
        )
    # Before anything is made for images of this size, such as the maps of a rectifier.
    if fault := fault_of_camera_size(info.width, info.height):
        raise DataError(f"{name}: {fault}")
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    # Drivers also tell the size of the region in width and height; then it is the whole image.
    told_as_image = (width, height) == (info.width, info.height)
    if not told_as_image and (
        roi.x_offset + width > info.width or roi.y_offset + height > info.height
    ):
        raise DataError(
            f"{name}: the region of interest (roi) of camera_info, {width} x {height} pixels at "
            f"({roi.x_offset}, {roi.y_offset}), leaves the {info.width} x {info.height} of the "
            "sensor: correct roi in camera_info"
        )
    columns, rows = width // (info.binning_x or 1), height // (info.binning_y or 1)
    if not columns or not rows:
        raise DataError(
            f"{name}: binning of {info.binning_x} x {info.binning_y} in camera_info leaves nothing "
            f"of {width} x {height} pixels: correct binning_x and binning_y"
        )
    return columns, rows


def raw_intrinsics(name: str, info: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(3, 3) K for the pixels of the raw images.

    Raises:
        DataError: K projects nothing.
    """
    return _intrinsics(name, info, "K")


def _intrinsics(name: str, info: Any, field: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """K or the left of P, which speak of the full sensor, for the region of interest, binned."""
    matrix = np.asarray(info.p if field == "P" else info.k, dtype=np.float64).reshape(3, -1)
    matrix, distortion = matrix[:, :3].copy(), np.asarray(info.d)
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
        raise DataError(
            f"{name}: camera_info has values in {field} or D that are no numbers; publish the "
            "calibration in camera_info"
        )
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise DataError(
            f"{name}: camera_info has the focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g} in "
            f"{field}: the camera is not calibrated; publish the calibration in camera_info"
        )
    if not np.allclose(matrix[2], [0.0, 0.0, 1.0]) or abs(matrix[1, 0]) > 1e-6 * matrix[0, 0]:
        raise DataError(
            f"{name}: {field} in camera_info is {matrix.tolist()}: its last row has to be 0, 0, 1 "
            "and the value under the focal length 0; publish the whole calibration"
        )
    if abs(matrix[0, 1]) > _MOST_SKEW * matrix[0, 0]:
        raise DataError(
            f"{name}: {field} in camera_info has the skew {matrix[0, 1]:g} beside the focal length "
            f"{matrix[0, 0]:g}, and no sensor has such pixels: publish the calibration as "
            "fx, 0, cx; 0, fy, cy; 0, 0, 1"
        )
    # `sensor_msgs` defines K and P for the full resolution of the sensor: the window moves the
    # centre first, and binning then scales centre and focal length.
    matrix[0, 2] -= info.roi.x_offset
    matrix[1, 2] -= info.roi.y_offset
    matrix[0] /= info.binning_x or 1
    matrix[1] /= info.binning_y or 1
    width, height = image_size(name, info)
    focal = max(matrix[0, 0] / width, matrix[1, 1] / height)
    least = min(matrix[0, 0] / width, matrix[1, 1] / height)
    inside = abs(matrix[0, 2] / width - 0.5) < _OFF_CENTRE and (
        abs(matrix[1, 2] / height - 0.5) < _OFF_CENTRE
    )
    if focal > _LONGEST or least < _SHORTEST or not inside:
        raise DataError(
            f"{name}: {field} in camera_info (focal length {matrix[0, 0]:.6g}, {matrix[1, 1]:.6g}, "
            f"centre {matrix[0, 2]:.6g}, {matrix[1, 2]:.6g}) is not that of {width} x {height} "
            "pixels: publish the calibration of this image size"
        )
    return matrix


def rectification_differs(info: Any) -> bool:
    """Whether P is set and speaks of another focal length or centre than K.

    Then raw and rectified images need different matrices, and taking one for the other goes
    unnoticed.
    """
    p = np.asarray(info.p, dtype=np.float64).reshape(3, 4)[:, :3]
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    return bool(p.any() and not np.allclose(p, k, rtol=1e-3))


def why_ambiguous(camera: str, topic: str, info: Any) -> str:
    """What to say where raw images have K, and P or R speak against it; empty where they do not.

    Args:
        camera: its name.
        topic: of its `camera_info`.
        info: the message.
    """
    if not np.isfinite(np.asarray(info.r, dtype=np.float64)).all():
        return (
            f"{camera}: R of {topic} has values that are no numbers. K is used, which needs no R, "
            "but the calibration is damaged: publish it anew"
        )
    if not rectification_differs(info):
        return ""
    return (
        f"{camera}: P and K of {topic} differ. K is used, which is right for raw images; if the "
        "image topic is a rectified one, set images_rectified to true"
    )


class AmbiguityWatch:
    """Finds cameras whose `camera_info` speaks against itself, each once.

    It comes with every image, and a sentence with every image would hide all others.
    """

    def __init__(self, *, rectified: bool) -> None:
        """Begin without cameras.

        Args:
            rectified: the images are rectified, so that K does not count and nothing is found.
        """
        self._rectified = rectified
        self._found: set[str] = set()

    def look(self, camera: str, topic: str, info: Any) -> str:
        """What to say of a message, see `why_ambiguous`; empty for a camera that was found."""
        if self._rectified or camera in self._found:
            return ""
        if text := why_ambiguous(camera, topic, info):
            self._found.add(camera)
        return text
