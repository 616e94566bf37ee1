# SPDX-License-Identifier: Apache-2.0
"""Which part of a camera's images the network sees, and whether the horizon is in it.

Images that are higher than the network's lose rows. Networks were trained on images of 16:9, in
which the lower edge is kept; of higher ones (3:2, 4:3, 5:4) that leaves nothing above the horizon.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.config import ImageConfig
from labeldistill_core.data.images import ImageTransform

_BELOW_HORIZON = 9 / 32
"""Rows below the horizon by columns, in an image of 16:9 with the horizon in its middle."""
_LEAST_ABOVE = 0.1
"""Share of the network's rows above the horizon; 0.23 in images of 16:9. With 0.08 (3:2) three
quarters of the average precision are lost."""
_LEVEL = 0.2
"""Least cosine of an optical axis' elevation; of cameras that look straight down none is told."""


def horizon_row_px(calibration: CameraCalibration) -> float | None:
    """Row at which what is far away and as high as the camera lies, on the optical axis' column.

    None where the camera looks up or down so steeply that there is none.
    """
    rotation = calibration.ego_from_camera.rotation
    ahead = rotation[:, 2] * [1.0, 1.0, 0.0]  # the optical axis, laid level in the ego frame
    length = float(np.linalg.norm(ahead))
    if length < _LEVEL:
        return None
    return float(calibration.project(rotation.T @ (ahead / length))[1])


def image_transform(calibration: CameraCalibration, image: ImageConfig) -> ImageTransform:
    """The image transform of evaluation and inference for one camera."""
    size_px = (calibration.width_px, calibration.height_px)
    plain = ImageTransform.for_evaluation(size_px, (image.width, image.height))
    if image.crop == "bottom":
        return plain
    return plain.with_top(top_px(calibration, image, plain.resize, plain.resized_wh[1]))


def top_px(calibration: CameraCalibration, image: ImageConfig, resize: float, height: int) -> int:
    """First row of the crop in an image that was resized.

    Args:
        calibration: of the image as taken.
        image: what the network takes.
        resize: scale of the image.
        height: rows of the resized image.
    """
    lowest = height - image.height
    horizon_px = horizon_row_px(calibration)
    if image.crop == "bottom" or horizon_px is None or lowest <= 0:
        return lowest
    bottom = round(horizon_px * resize + _BELOW_HORIZON * image.width)
    # Within the image, since rows outside would be black.
    return min(max(bottom - image.height, 0), lowest)


def lost_horizons(calibrations: Iterable[CameraCalibration], image: ImageConfig) -> dict[str, str]:
    """Cameras of whose images the network does not see the horizon, or the middle.

    Returns:
        A sentence by camera, beginning with its name and a colon.
    """
    found = {}
    for calibration in calibrations:
        transform = image_transform(calibration, image)
        _, top, _, bottom = (edge / transform.resize for edge in transform.crop)
        horizon_px = horizon_row_px(calibration)
        in_image = horizon_px is not None and 0 <= horizon_px < calibration.height_px
        middle_px = float(calibration.intrinsics_px[1, 2])
        row_px = horizon_px if in_image and horizon_px is not None else middle_px
        least_px = top + _LEAST_ABOVE * (bottom - top)
        if least_px <= row_px < bottom and top <= middle_px < bottom:
            continue
        name = "horizon" if in_image else "principal point"
        found[calibration.name] = (
            f"{calibration.name}: of its images of {calibration.width_px} x "
            f"{calibration.height_px} pixels the network sees rows {top:.0f} to {bottom:.0f}, but "
            f"the {name} is at row {row_px:.0f}, so that little or nothing is found: cut "
            "images and camera_info to 16:9 about it, or train with image.crop horizon"
        )
    return found
