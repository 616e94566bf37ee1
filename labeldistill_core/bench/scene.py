# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks look at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.frames import Transform
from labeldistill_core.synthetic.rig import CAMERA_PHASES_S, camera_calibrations


def frame_set(
    stamp_s: float,
    config: StudentConfig,
    images: Mapping[str, NDArray[np.uint8] | Tensor] | None = None,
) -> FrameSet:
    """One image a camera of the model; the vehicle drives a left turn.

    Args:
        stamp_s: time of the set.
        config: names the cameras.
        images: (height, width, 3) of each camera, all of one size; noise at the network's size
            when None.
    """
    size = (config.image.width, config.image.height)
    if images:
        height, width, _ = next(iter(images.values())).shape
        size = (width, height)
    random = np.random.default_rng([round(1000 * (stamp_s + 1000))])
    views = []
    for name, calibration in camera_calibrations(*size).items():
        if name not in config.cameras:
            continue
        exposure_s = stamp_s + CAMERA_PHASES_S[name]
        yaw = 0.1 * exposure_s
        pose = Transform.from_quaternion(
            FIXED_FRAME,
            EGO_FRAME,
            (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)),
            (80 * np.sin(yaw), 80 * (1 - np.cos(yaw)), 0.0),
        )
        image = (
            images[name] if images else random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        )
        views.append(CameraView(calibration, round(exposure_s * 1e9), image, pose))
    return FrameSet(round(stamp_s * 1e9), tuple(views))
