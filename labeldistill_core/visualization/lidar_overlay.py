# SPDX-License-Identifier: Apache-2.0
"""LiDAR points in the camera images, coloured by their distance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labeldistill_core.cameras import CameraView
from labeldistill_core.frames import Array

_NEAR_M, _FAR_M = 3.0, 50.0
_NEAR_COLOUR, _FAR_COLOUR = np.array([255, 210, 60]), np.array([60, 90, 255])
_POINTS_ACROSS = 320
"""So many points side by side fill the width of an image."""


def with_points(view: CameraView, points: Array) -> CameraView:
    """The view with points painted on its image, near ones over far ones.

    Args:
        view: of one camera.
        points: (P, 3) in the fixed frame of the view's pose, metres.
    """
    calibration = view.calibration
    camera = (view.fixed_from_ego @ calibration.ego_from_camera).inverse.apply(points)
    camera = camera[camera[:, 2] > 0.5]
    # Far ones first: numpy's assignment lets the last of equal indices stand.
    u, v, depth = calibration.project(camera[np.argsort(-camera[:, 2])]).T
    # Logarithmic, since a metre means more near the vehicle.
    share = np.clip(np.log(depth / _NEAR_M) / np.log(_FAR_M / _NEAR_M), 0, 1)[:, None]
    colours = np.round(_NEAR_COLOUR + share * (_FAR_COLOUR - _NEAR_COLOUR)).astype(np.uint8)
    width = max(1, calibration.width_px // _POINTS_ACROSS)
    image = view.pixels.copy()
    for down, right in np.ndindex(width, width):
        column = np.floor(u + 0.5).astype(int) + right - width // 2
        row = np.floor(v + 0.5).astype(int) + down - width // 2
        inside = (column >= 0) & (row >= 0)
        inside &= (column < calibration.width_px) & (row < calibration.height_px)
        image[row[inside], column[inside]] = colours[inside]
    return replace(view, image=image)
