# SPDX-License-Identifier: Apache-2.0
"""The sensors of the vehicle: the nuScenes rig, rounded, with its firing phases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeldistill_core.cameras import EGO_FRAME, CameraCalibration
from labeldistill_core.frames import Transform

NATIVE_WIDTH_PX, NATIVE_HEIGHT_PX = 1600, 900

LIDAR = "LIDAR_TOP"
LIDAR_PERIOD_S = 0.05
CAMERA_PERIOD_S = 1 / 12
KEY_FRAME_PERIOD_S = 0.5


@dataclass(frozen=True)
class _Mount:
    translation_m: tuple[float, float, float]
    quaternion_wxyz: tuple[float, float, float, float]
    focal_px: float
    center_px: tuple[float, float]
    phase_s: float
    """Exposure of the key frame, relative to the end of the LiDAR sweep."""


_CAMERAS = {
    "CAM_FRONT_LEFT": _Mount(
        (1.575, 0.501, 1.507), (0.6812, -0.6688, 0.2102, -0.2111), 1257.9, (827.2, 450.9), -0.0432
    ),
    "CAM_FRONT": _Mount(
        (1.722, 0.005, 1.495), (0.5077, -0.4973, 0.4984, -0.4965), 1252.8, (826.6, 470.0), -0.0356
    ),
    "CAM_FRONT_RIGHT": _Mount(
        (1.581, -0.499, 1.517), (0.2034, -0.1915, 0.6786, -0.6794), 1256.7, (817.8, 452.0), -0.0275
    ),
    "CAM_BACK_LEFT": _Mount(
        (1.049, 0.483, 1.562), (0.7049, -0.6907, -0.1121, 0.1162), 1255.0, (829.6, 467.2), -0.0006
    ),
    "CAM_BACK": _Mount(
        (0.055, 0.011, 1.568), (0.5068, -0.4978, -0.4988, 0.4966), 796.9, (857.8, 476.9), -0.0105
    ),
    "CAM_BACK_RIGHT": _Mount(
        (1.059, -0.467, 1.551), (0.1382, -0.1380, -0.6893, 0.6976), 1250.0, (825.4, 462.5), -0.0197
    ),
}

CAMERA_PHASES_S: dict[str, float] = {name: mount.phase_s for name, mount in _CAMERAS.items()}
"""Exposure of each camera, relative to the key frame's time."""


def camera_calibrations(width_px: int, height_px: int) -> dict[str, CameraCalibration]:
    """The six cameras with images of a given size.

    Args:
        width_px: image width; the intrinsics scale with it.
        height_px: image height.
    """
    scale = np.diag([width_px / NATIVE_WIDTH_PX, height_px / NATIVE_HEIGHT_PX, 1.0])
    return {
        name: CameraCalibration(
            name,
            scale
            @ np.array(
                [
                    [mount.focal_px, 0.0, mount.center_px[0]],
                    [0.0, mount.focal_px, mount.center_px[1]],
                    [0.0, 0.0, 1.0],
                ]
            ),
            width_px,
            height_px,
            _pose(name, mount.quaternion_wxyz, mount.translation_m),
        )
        for name, mount in _CAMERAS.items()
    }


def ego_from_lidar() -> Transform:
    """Mounting pose of the LiDAR; its frame has x to the right and y forward."""
    return _pose(LIDAR, (0.7067, -0.0153, 0.0174, -0.7071), (0.986, 0.0, 1.840))


def _pose(
    source: str, wxyz: tuple[float, float, float, float], translation: tuple[float, float, float]
) -> Transform:
    q = np.array(wxyz)
    return Transform.from_quaternion(EGO_FRAME, source, q / np.linalg.norm(q), translation)
