# SPDX-License-Identifier: Apache-2.0
"""Calibrations as `sensor_msgs/CameraInfo`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.stamps import header


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
    if not info.width or not info.height:
        raise DataError(
            f"{name}: camera_info says {info.width} x {info.height} pixels; set width and height"
        )
    matrix, field = (info.p, "P") if rectified else (info.k, "K")
    intrinsics = np.asarray(matrix, dtype=np.float64).reshape(3, -1)[:, :3]
    if not (np.isfinite(intrinsics).all() and np.isfinite(np.asarray(info.d)).all()):
        raise DataError(
            f"{name}: camera_info has values in {field} or D that are no numbers; publish the "
            "calibration in camera_info"
        )
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise DataError(
            f"{name}: camera_info has the focal lengths {intrinsics[0, 0]:g} and "
            f"{intrinsics[1, 1]:g} in {field}: the camera is not calibrated; publish the "
            "calibration in camera_info"
        )
    if rectified:
        turn = np.asarray(info.r, dtype=np.float64).reshape(3, 3)  # rectified from optical
        if not turn.any():
            raise DataError(f"{name}: camera_info has no R, which rectified images need")
        mounted = Transform(ego_from_camera.source, ego_from_camera.source, turn.T, np.zeros(3))
        ego_from_camera = ego_from_camera @ mounted
    elif not undistorted and np.any(np.asarray(info.d)):
        raise DataError(
            f"{name}: camera_info has the distortion {[round(float(d), 4) for d in info.d]}: "
            "rectify the images (image_proc), set the image topic to the rectified one and "
            "images_rectified to true"
        )
    return CameraCalibration(name, intrinsics, info.width, info.height, ego_from_camera)


def rectification_differs(info: Any) -> bool:
    """Whether P is set and speaks of another focal length or centre than K.

    Then raw and rectified images need different matrices, and taking one for the other goes
    unnoticed.
    """
    p = np.asarray(info.p, dtype=np.float64).reshape(3, 4)[:, :3]
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    return bool(p.any() and not np.allclose(p, k, rtol=1e-3))
