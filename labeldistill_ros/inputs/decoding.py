# SPDX-License-Identifier: Apache-2.0
"""Image messages to (height, width, 3) RGB arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from labeldistill_core.data.images import TakePixels, decode_jpeg
from labeldistill_core.data.pixel_pool import new_pixels
from labeldistill_core.errors import DataError

Pixels = NDArray[np.uint8]


def _with_opencv(code: str) -> Callable[[Pixels], Pixels]:
    """A conversion that OpenCV has and numpy has not."""

    def convert(image: Pixels) -> Pixels:
        try:
            import cv2
        except ImportError as error:
            raise DataError(
                "this image encoding needs OpenCV: install python3-opencv, or publish rgb8 or JPEG"
            ) from error
        try:
            return np.asarray(cv2.cvtColor(image, getattr(cv2, code)), np.uint8)
        except cv2.error as error:
            height, width = image.shape[:2]
            raise DataError(f"corrupt image of {width} x {height} pixels: {error}") from error

    return convert


def _gray(image: Pixels) -> Pixels:
    return np.repeat(image, 3, axis=2)


# Bytes a pixel, and how they become RGB. ROS names a Bayer pattern by its first row, OpenCV by
# the second row's second and third pixel, so that the letters swap.
_ENCODINGS: dict[str, tuple[int, Callable[[Pixels], Pixels]]] = {
    "rgb8": (3, lambda image: image),
    "bgr8": (3, lambda image: image[..., ::-1]),
    "rgba8": (4, lambda image: image[..., :3]),
    "bgra8": (4, lambda image: image[..., 2::-1]),
    "8UC3": (3, lambda image: image[..., ::-1]),
    "mono8": (1, _gray),
    "8UC1": (1, _gray),
    "bayer_rggb8": (1, _with_opencv("COLOR_BayerBG2RGB")),
    "bayer_bggr8": (1, _with_opencv("COLOR_BayerRG2RGB")),
    "bayer_gbrg8": (1, _with_opencv("COLOR_BayerGR2RGB")),
    "bayer_grbg8": (1, _with_opencv("COLOR_BayerGB2RGB")),
    "yuv422": (2, _with_opencv("COLOR_YUV2RGB_UYVY")),
    "uyvy": (2, _with_opencv("COLOR_YUV2RGB_UYVY")),
    "yuv422_yuy2": (2, _with_opencv("COLOR_YUV2RGB_YUY2")),
    "yuyv": (2, _with_opencv("COLOR_YUV2RGB_YUY2")),
}


def to_rgb(message: Image | CompressedImage, take: TakePixels = new_pixels) -> Pixels:
    """Pixels of an image message, raw or compressed.

    Args:
        message: stays as it is.
        take: where the pixels go.

    Raises:
        DataError: the data is damaged, or in an encoding that is not known.
    """
    if isinstance(message, CompressedImage):
        return decode_jpeg(bytes(message.data), take)
    if message.encoding not in _ENCODINGS:
        raise DataError(
            f"image encoding {message.encoding!r} is not known: use one of {', '.join(_ENCODINGS)}"
        )
    channels, convert = _ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    if step < width * channels or data.size < height * step:
        raise DataError(
            f"corrupt image: {width} x {height} pixels of {message.encoding} with a step of {step} "
            f"do not fit in {data.size} bytes"
        )
    rows = data[: height * step].reshape(height, step)[:, : width * channels]
    pixels = take((height, width, 3))
    pixels[...] = convert(rows.reshape(height, width, channels))
    return pixels
