# SPDX-License-Identifier: Apache-2.0
"""The first steps of a detector, before the first real set: they build what later ones reuse."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from labeldistill_core.cameras import (
    EGO_FRAME,
    FIXED_FRAME,
    CameraCalibration,
    CameraView,
    FrameSet,
)
from labeldistill_core.config import StudentConfig
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detector

_NS = 1_000_000_000


def warm_up(detector: Detector, steps: int) -> float | None:
    """Detect in black images; the history is empty afterwards.

    Args:
        detector: for any number of cameras.
        steps: how many; history comes to be used as the steps reach its ages.

    Returns:
        Median of the seconds of the later half of the steps, since the first ones build what the
        others reuse, and any one may be held up; None without any.

    Raises:
        NotFiniteError: the network computes NaN.
    """
    took_s = []
    # So that the second step finds the first as its history, and the tables of past frames are
    # built.
    apart_s = min(detector.config.history_s, default=1.0)
    for step in range(steps):
        start_s = time.perf_counter()
        detector.detect(_black(detector.config, round(step * apart_s * _NS)))
        took_s.append(time.perf_counter() - start_s)
    detector.reset()
    return statistics.median(took_s[len(took_s) // 2 :]) if took_s else None


def outward_cameras(
    names: Sequence[str], width_px: int, height_px: int
) -> dict[str, CameraCalibration]:
    """Cameras that look outwards, evenly around a vehicle whose rig is not known."""
    focal_px = 0.8 * width_px
    intrinsics = np.array([[focal_px, 0, width_px / 2], [0, focal_px, height_px / 2], [0, 0, 1]])
    cameras = {}
    for number, name in enumerate(names):
        heading = 2 * np.pi * number / len(names)
        ahead = np.array([np.cos(heading), np.sin(heading), 0.0])
        left, up = np.array([-ahead[1], ahead[0], 0.0]), np.array([0.0, 0.0, 1.0])
        mounted = Transform(EGO_FRAME, name, np.stack([-left, -up, ahead], axis=1), 1.5 * up)
        cameras[name] = CameraCalibration(name, intrinsics, width_px, height_px, mounted)
    return cameras


def _black(config: StudentConfig, stamp_ns: int) -> FrameSet:
    """What the cameras of a vehicle see that stands in the dark."""
    width, height = config.image.width, config.image.height
    still = Transform.identity(FIXED_FRAME, EGO_FRAME)
    black = np.zeros((height, width, 3), np.uint8)
    cameras = outward_cameras(config.cameras, width, height).values()
    return FrameSet(stamp_ns, tuple(CameraView(c, stamp_ns, black, still) for c in cameras))
