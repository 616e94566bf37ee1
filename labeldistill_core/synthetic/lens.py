# SPDX-License-Identifier: Apache-2.0
"""Lenses that bend: which way each pixel of a distorted image looks."""

from __future__ import annotations

import numpy as np

from labeldistill_core.errors import ConfigError
from labeldistill_core.synthetic.meshes import Floats
from labeldistill_core.synthetic.rig import RigCamera

_MOST_OFF_PX = 0.05
"""Of a pixel that is bent back again; more is no rounding, but a lens that folds its image."""


def lens_rays(camera: RigCamera) -> Floats:
    """(height * width, 3) rays of length 1 along the optical axis, in the camera's frame.

    What a lens sees beyond 89 degrees from its axis is left at 89: a ray has a positive z.

    Args:
        camera: with a distortion.

    Raises:
        ConfigError: its distortion folds the image, so that a pixel looks two ways.
        ModuleNotFoundError: OpenCV is not installed.
    """
    import cv2

    lens = camera.distortion
    assert lens is not None
    width, height = camera.size
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    k, d = camera.intrinsics_px, np.array(lens.coefficients)
    done = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-3)  # pixels
    if lens.model == "equidistant":
        # By its formula rather than OpenCV's solver, which gives up beyond 90 degrees.
        flat = (pixels[:, 0] - k[:2, 2]) / k[[0, 1], [0, 1]]
        radius = np.linalg.norm(flat, axis=1)
        angle = _angle(radius, d)
        scale = np.tan(np.minimum(angle, np.radians(89.0))) / np.maximum(radius, 1e-12)
        rays = flat * np.where(radius > 1e-12, scale, 1.0)[:, None]
        off = np.abs(_bent(angle, d) - radius) * k[0, 0]
    else:
        rays = cv2.undistortPointsIter(pixels, k, d, None, None, done)[:, 0]  # type: ignore[call-overload]
        places = np.column_stack([rays, np.ones(len(rays))])
        # Bent back again, since the solver gives some place also where there is none or several.
        again = cv2.projectPoints(places, np.zeros(3), np.zeros(3), k, d)[0][:, 0]
        off = np.abs(again - pixels[:, 0]).max(axis=1)
    if not float(np.max(off)) <= _MOST_OFF_PX:  # also of what is no number
        raise ConfigError(
            f"camera {camera.name}: its distortion folds the image {list(camera.size)}, so that "
            "pixels look two ways: take smaller coefficients, or a narrower field of view"
        )
    out: Floats = np.column_stack([rays, np.ones(len(rays))]).astype(np.float32)
    return out


def _bent(angle: np.ndarray, d: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    square = angle * angle
    return np.asarray(
        angle * (1 + square * (d[0] + square * (d[1] + square * (d[2] + square * d[3]))))
    )


def _angle(radius: np.ndarray, d: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Angle to the axis of what is seen at a radius, by Newton's method."""
    angle = radius.copy()
    for _ in range(20):
        square = angle * angle
        slope = 1 + square * (
            3 * d[0] + square * (5 * d[1] + square * (7 * d[2] + square * 9 * d[3]))
        )
        angle = angle - (_bent(angle, d) - radius) / np.where(np.abs(slope) < 1e-6, 1e-6, slope)
    return angle
