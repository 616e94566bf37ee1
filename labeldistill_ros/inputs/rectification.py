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
from labeldistill_ros.messages.calibration import FISHEYE, is_distorted, raw_intrinsics

_BROWN = ("plumb_bob", "rational_polynomial")

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
            DataError: the distortion model is unknown, the image is longer than OpenCV can address,
                or OpenCV is not installed.
        """
        if not is_distorted(info):
            return pixels
        try:
            import cv2
        except ImportError as error:
            raise DataError(
                f"{camera}: its images are distorted, which needs OpenCV: install python3-opencv, "
                "or publish rectified images and set images_rectified to true"
            ) from error
        height, width = pixels.shape[:2]
        # The target camera has the same K, so the model's calibration holds for the result.
        k = raw_intrinsics(camera, info)
        d = np.asarray(info.d, np.float64)
        if info.distortion_model in FISHEYE and not d.size:
            d = np.zeros(4)
        # By value: `camera_info` comes with every image, and making a map takes longer than using
        # it.
        key = (width, height, info.distortion_model, k.tobytes(), d.tobytes())
        with self._lock:
            known = self._maps.get(camera)
            if known is None or known[0] != key:
                known = (key, _maps(camera, info.distortion_model, k, d, key[:2]))
                self._maps[camera] = known
        straight = self._take(pixels.shape)
        try:
            return np.asarray(cv2.remap(pixels, *known[1], cv2.INTER_LINEAR, dst=straight))
        except cv2.error as error:  # of more than 32766 pixels in a row or a column
            raise DataError(
                f"{camera}: {width} x {height} pixels cannot be rectified: {error}; publish "
                "rectified images and set images_rectified"
            ) from error


def _maps(camera: str, model: str, k: Any, d: Any, size_wh: Any) -> tuple[Any, Any]:
    import cv2

    try:
        if model in _BROWN:
            # Fixed-point maps (CV_16SC2), which `remap` uses faster than two maps of floats.
            return cv2.initUndistortRectifyMap(k, d, None, k, size_wh, cv2.CV_16SC2)  # type: ignore[call-overload,no-any-return]
        if model in FISHEYE:
            return cv2.fisheye.initUndistortRectifyMap(k, d, np.eye(3), k, size_wh, cv2.CV_16SC2)
    except cv2.error as error:
        raise DataError(f"{camera}: {len(d)} coefficients do not fit {model}: {error}") from error
    raise DataError(
        f"{camera}: the distortion model {shown(model)} is none of "
        f"{', '.join(_BROWN + FISHEYE)}: set "
        "distortion_model in camera_info, or publish rectified images and set images_rectified"
    )
