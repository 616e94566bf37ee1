# SPDX-License-Identifier: Apache-2.0
"""Distorted images to those of the pinhole camera K: a pixel map, made once per calibration."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from labeldistill_core.data.images import TakePixels
from labeldistill_core.data.pixel_pool import new_pixels
from labeldistill_core.errors import DataError
from labeldistill_core.names import shown
from labeldistill_ros.inputs.decoding import Pixels
from labeldistill_ros.messages.calibration import (
    FISHEYE,
    image_size,
    is_distorted,
    raw_intrinsics,
)

_BROWN = ("plumb_bob", "rational_polynomial")
_BROWN_COUNTS = (4, 5, 8, 12, 14)
_GRID_WH = (33, 25)
_LEAST_SEEN = 0.25
"""Share of the rectified image that the lens has seen: wide ones fold their corners in the models,
and a pinhole camera of the same K shows less than all."""
_MOST_TOLD = 14
"""Coefficients in a sentence."""

_Key = tuple[object, ...]


class Rectifier:
    """Takes the distortion out of images; safe to use from several threads.

    The result has the intrinsics K of the `camera_info` and no distortion, in the camera's own
    optical frame (R and P are not used). What the camera did not see is black.
    """

    def __init__(self, take: TakePixels = new_pixels) -> None:
        """Start without maps; `take` says where the pixels go."""
        self._take = take
        self._lock = threading.Lock()
        self._maps: dict[str, tuple[_Key, tuple[Any, Any]]] = {}

    def apply(self, camera: str, pixels: Pixels, info: Any) -> Pixels:
        """The image without distortion; itself where a pinhole camera took it.

        Zeros are no distortion but in a fisheye model, whose projection bends by itself.

        Raises:
            DataError: the distortion cannot be taken out (see `check_distortion`), or the image is
                longer than OpenCV can address.
        """
        if not is_distorted(info):
            return pixels
        cv2 = _opencv(camera)
        height, width = pixels.shape[:2]
        # The target camera has the same K, so the model's calibration holds for the result.
        k = raw_intrinsics(camera, info)
        d = _coefficients(info)
        # By value: `camera_info` comes with every image, and making a map takes longer than using
        # it.
        key = (width, height, info.distortion_model, k.tobytes(), d.tobytes())
        with self._lock:
            known = self._maps.get(camera)
            if known is None or known[0] != key:
                check_distortion(camera, info)
                maps = _maps(camera, info.distortion_model, k, d, k, key[:2], fixed_point=True)
                known = (key, maps)
                self._maps[camera] = known
        straight = self._take(pixels.shape)
        try:
            return np.asarray(cv2.remap(pixels, *known[1], cv2.INTER_LINEAR, dst=straight))
        except cv2.error as error:  # of more than 32766 pixels in a row or a column
            raise DataError(
                f"{camera}: {width} x {height} pixels cannot be rectified: {error}; publish "
                "rectified images and set images_rectified"
            ) from error


def check_distortion(camera: str, info: Any) -> None:
    """See that the distortion of a camera can be taken out of its images.

    Raises:
        DataError: the model is unknown, its coefficients are too few, or they leave less than a
            quarter of the image where a lens could have put it; or OpenCV is not installed.
    """
    if not is_distorted(info):
        return
    width, height = image_size(camera, info)
    model, k, d = info.distortion_model, raw_intrinsics(camera, info), _coefficients(info)
    # The same maps for a small image: what is wrong with a lens shows in every part of it.
    small = np.diag([_GRID_WH[0] / width, _GRID_WH[1] / height, 1.0]) @ k
    with np.errstate(invalid="ignore", over="ignore"):
        u, v = _maps(camera, model, k, d, small, _GRID_WH, fixed_point=False)
        # A lens that folds its image shows a part of it twice. It turns round there, in one
        # direction (the determinant is negative) or in both (so are columns and rows).
        right, down = np.diff(u, axis=1)[1:], np.diff(v, axis=0)[:, 1:]
        aside = np.diff(u, axis=0)[:, 1:] * np.diff(v, axis=1)[1:]
        upright = (right > 0) & (down > 0) & (right * down > aside)
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    share = float(np.mean(inside[1:, 1:] & upright))
    if share < _LEAST_SEEN:
        told = [float(f"{x:.4g}") for x in d[:_MOST_TOLD].tolist()]
        raise DataError(
            f"{camera}: with the distortion D = {told} ({shown(model)}) of camera_info only "
            f"{share:.0%} of the image can be rectified, so that no lens has it: calibrate the "
            "camera anew, or publish rectified images and set images_rectified"
        )


def _coefficients(info: Any) -> Any:
    d = np.asarray(info.d, np.float64)
    return np.zeros(4) if info.distortion_model in FISHEYE and not d.size else d


def _maps(
    camera: str,
    model: str,
    k: Any,
    d: Any,
    target_k: Any,
    size_wh: tuple[int, int],
    *,
    fixed_point: bool,
) -> tuple[Any, Any]:
    """Columns and rows of the distorted image for each pixel of a camera without distortion."""
    cv2 = _opencv(camera)
    if model not in (*_BROWN, *FISHEYE):
        raise DataError(
            f"{camera}: the distortion model {shown(model)} is none of "
            f"{', '.join(_BROWN + FISHEYE)}: set "
            "distortion_model in camera_info, or publish rectified images and set images_rectified"
        )
    counts = (4,) if model in FISHEYE else _BROWN_COUNTS
    if len(d) not in counts:
        raise DataError(
            f"{camera}: {len(d)} coefficients do not fit {model}, which has "
            f"{' or '.join(map(str, counts))}: correct D or distortion_model in camera_info"
        )
    # Fixed-point maps (CV_16SC2), which `remap` uses faster than two maps of floats.
    kind = cv2.CV_16SC2 if fixed_point else cv2.CV_32FC1
    make = cv2.fisheye.initUndistortRectifyMap if model in FISHEYE else cv2.initUndistortRectifyMap
    found: tuple[Any, Any] = make(k, d, np.eye(3), target_k, size_wh, kind)
    return found


def _opencv(camera: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            f"{camera}: its images are distorted, which needs OpenCV: install python3-opencv "
            "(in a virtual environment opencv-python-headless), or publish rectified images and "
            "set images_rectified to true"
        ) from error
    return cv2
