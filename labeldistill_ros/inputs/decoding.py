# SPDX-License-Identifier: Apache-2.0
"""Image messages to (height, width, 3) RGB arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.image_header import read_header
from labeldistill_core.data.images import Reduction, TakePixels, decode_jpeg
from labeldistill_core.data.pixel_pool import new_pixels
from labeldistill_core.errors import DataError
from labeldistill_core.names import shown
from labeldistill_ros.inputs.bridge import BRIDGED, bridge, bridged, suits

Pixels = NDArray[np.uint8]
Convert = Callable[[Pixels, Pixels], None]
"""Writes (height, width, channels) of an encoding into (height, width, 3) of RGB."""


def _with_opencv(code: str, without: Callable[[Pixels], Pixels] | None = None) -> Convert:
    """A conversion by OpenCV.

    Args:
        code: name of the conversion.
        without: the same in numpy, at a tenth of the speed, for where OpenCV is not installed.
    """

    def convert(image: Pixels, rgb: Pixels) -> None:
        try:
            import cv2
        except ImportError as error:
            if without is None:
                raise DataError(
                    "this image encoding needs OpenCV: install python3-opencv, or publish rgb8 or "
                    "JPEG"
                ) from error
            np.copyto(rgb, without(image))
            return
        try:
            # By name, since OpenCV is imported only when an image of such an encoding comes.
            cv2.cvtColor(image, getattr(cv2, code), dst=rgb)
        except cv2.error as error:
            height, width = image.shape[:2]
            raise DataError(f"corrupt image of {width} x {height} pixels: {error}") from error

    return convert


def _copy(image: Pixels, rgb: Pixels) -> None:
    np.copyto(rgb, image)


# ROS names a Bayer pattern by its first row, OpenCV by the second row's second and third pixel, so
# that the letters swap.
_BGR = _with_opencv("COLOR_BGR2RGB", lambda image: image[..., ::-1])
_BGRA = _with_opencv("COLOR_BGRA2RGB", lambda image: image[..., 2::-1])
_GREY = _with_opencv("COLOR_GRAY2RGB", lambda image: image)
ENCODINGS: dict[str, tuple[int, Convert]] = {
    "rgb8": (3, _copy),
    "bgr8": (3, _BGR),
    "rgba8": (4, _with_opencv("COLOR_RGBA2RGB", lambda image: image[..., :3])),
    "bgra8": (4, _BGRA),
    # As OpenCV stores colours, which is where images without a name for them come from.
    "8UC3": (3, _BGR),
    "8UC4": (4, _BGRA),
    "mono8": (1, _GREY),
    "8UC1": (1, _GREY),
    "bayer_rggb8": (1, _with_opencv("COLOR_BayerBG2RGB")),
    "bayer_bggr8": (1, _with_opencv("COLOR_BayerRG2RGB")),
    "bayer_gbrg8": (1, _with_opencv("COLOR_BayerGR2RGB")),
    "bayer_grbg8": (1, _with_opencv("COLOR_BayerGB2RGB")),
    "yuv422": (2, _with_opencv("COLOR_YUV2RGB_UYVY")),
    "uyvy": (2, _with_opencv("COLOR_YUV2RGB_UYVY")),
    "yuv422_yuy2": (2, _with_opencv("COLOR_YUV2RGB_YUY2")),
    "yuyv": (2, _with_opencv("COLOR_YUV2RGB_YUY2")),
}
"""By `encoding` of `sensor_msgs/Image`: bytes a pixel, and how they become RGB."""
_PLANAR = {"nv12": "COLOR_YUV2RGB_NV12", "nv21": "COLOR_YUV2RGB_NV21"}
"""A byte of brightness a pixel, then half as many rows with the colours of two by two pixels."""
_DEPTH = ("16UC1", "16SC1", "32FC1", "64FC1")


def to_rgb(
    message: Any,
    take: TakePixels = new_pixels,
    largest_wh: tuple[int, int] | None = None,
    reduction: Reduction | None = None,
) -> Pixels:
    """Pixels of an image message, raw or compressed.

    Args:
        message: `sensor_msgs/Image` or `sensor_msgs/CompressedImage` of any family; it stays as
            it is.
        take: where the pixels go.
        largest_wh: width and height of the camera's images, where they are known.
        reduction: of a JPEG of just this size; none when None.

    Raises:
        DataError: the data is damaged, in an encoding that is not known, or of a larger image.
    """
    if not hasattr(message, "encoding"):
        return _decompressed(message, take, largest_wh, reduction)
    channels, convert = _conversion(message.encoding)
    height, width, step = message.height, message.width, message.step
    # Of planes the colours lie below the brightness, in half as many rows.
    lines = height + height // 2 if message.encoding in _PLANAR else height
    data = np.frombuffer(message.data, np.uint8)
    if not height or not width or step < width * channels or data.size < lines * step:
        raise DataError(
            f"corrupt image: {width} x {height} pixels of {message.encoding} with a step of {step} "
            f"do not fit in {data.size} bytes"
        )
    # Into memory that is used again: a node decodes six images of four megabytes at each cycle.
    pixels = take((height, width, 3))
    if suits(message):
        np.copyto(pixels, bridged(message))
        return pixels
    # Rows may be padded: `step` is their length in bytes, of which the pixels are the first part.
    rows = data[: lines * step].reshape(lines, step)[:, : width * channels]
    convert(rows.reshape(lines, width, channels), pixels)
    return pixels


def holds_depth(message: Any) -> bool:
    """Whether an image, raw or compressed, tells distances in the place of colours."""
    if hasattr(message, "encoding"):
        return message.encoding in _DEPTH
    # image_transport's name for it stands behind the encoding.
    return "compresseddepth" in message.format.lower()


def _conversion(encoding: str) -> tuple[int, Convert]:
    """Bytes a pixel of an encoding, and how they become RGB.

    Raises:
        DataError: it is not known, holds no colours, or needs `cv_bridge`.
    """
    if encoding in ENCODINGS:
        return ENCODINGS[encoding]
    if encoding in _PLANAR:
        return 1, _with_opencv(_PLANAR[encoding])
    if encoding not in BRIDGED:
        depth = "; it holds depth, and colours are needed" if encoding in _DEPTH else ""
        raise DataError(
            f"image encoding {shown(encoding)} is not known: use one of "
            f"{', '.join((*ENCODINGS, *_PLANAR))}{depth}"
        )
    if bridge() is None:
        raise DataError(
            f"image encoding {encoding} is read where cv_bridge is installed: install it, or "
            "publish rgb8"
        )
    return BRIDGED[encoding], _only_by_bridge


def _only_by_bridge(image: Pixels, _: Pixels) -> None:
    height, width = image.shape[:2]
    raise DataError(
        f"rows of {width} x {height} pixels of 16 bits are padded by a part of a pixel: publish "
        "rgb8"
    )


def _decompressed(
    message: Any,
    take: TakePixels,
    largest_wh: tuple[int, int] | None,
    reduction: Reduction | None,
) -> Pixels:
    """A JPEG or PNG, whatever `format` calls it; a mosaic that was compressed as grey is undone.

    `image_transport` writes the raw encoding, `; jpeg compressed `, and the encoding in which it
    was compressed, if that is another one.
    """
    data = bytes(message.data)
    encoding = message.format.partition(";")[0].strip()
    if encoding.startswith("bayer_"):
        reduction = None  # it would mix the colours of the mosaic
    pixels = decode_jpeg(data, take, largest_wh, reduction)
    if not encoding.startswith("bayer_") or read_header(data).channels != 1:
        return pixels
    pattern = encoding.removesuffix("16") + "8" if encoding.endswith("16") else encoding
    if pattern not in ENCODINGS:
        raise DataError(f"a compressed image of {shown(encoding)} is not read: publish rgb8")
    mosaic = np.ascontiguousarray(pixels[..., :1])
    rgb = take(pixels.shape)
    ENCODINGS[pattern][1](mosaic, rgb)
    return rgb
