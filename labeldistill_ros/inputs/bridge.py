# SPDX-License-Identifier: Apache-2.0
"""Raw images by `cv_bridge`, as other ROS nodes convert them, where it is installed."""

from __future__ import annotations

import logging
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.errors import DataError

_LOG = logging.getLogger(__name__)

BRIDGED = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    **{f"bayer_{pattern}8": 1 for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    "yuv422": 2,
    "yuv422_yuy2": 2,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "mono16": 2,
    **{f"bayer_{pattern}16": 2 for pattern in ("rggb", "bggr", "gbrg", "grbg")},
}
"""Encodings that it turns into rgb8, and bytes a pixel. Those of 16 bits are scaled to 8."""


@cache
def bridge() -> Any | None:
    """A `CvBridge`; None where it is not installed, or does not go with the numpy that is."""
    try:
        from cv_bridge import CvBridge
        from cv_bridge.boost import cv_bridge_boost  # noqa: F401, imported too late otherwise
    except ModuleNotFoundError:
        return None
    except (ImportError, AttributeError) as error:
        # Built for numpy 1 and met by numpy 2, or without its OpenCV.
        _LOG.warning("cv_bridge cannot be used, so images are converted without it: %s", error)
        return None
    return CvBridge()


def suits(message: Any) -> bool:
    """Whether `cv_bridge` converts a raw image, and rightly.

    Where rows are padded by a part of a pixel it takes each row from a wrong place, and a step
    that is too small is no error to it.

    Args:
        message: `sensor_msgs/Image` of any family.
    """
    size = BRIDGED.get(message.encoding)
    whole = size is not None and message.step % size == 0 and message.step >= message.width * size
    return whole and bridge() is not None


def bridged(message: Any) -> NDArray[np.uint8]:
    """(height, width, 3) RGB of an image that `suits`.

    Raises:
        DataError: it is refused.
    """
    if message.is_bigendian and message.encoding.endswith("16"):
        # It swaps by a method that numpy 2 has no more.
        pixels = np.frombuffer(message.data, np.uint8)[: message.height * message.step]
        swapped = pixels.view(np.uint16).byteswap()
        message = SimpleNamespace(
            height=message.height, width=message.width, step=message.step,
            encoding=message.encoding, is_bigendian=0, data=swapped,
        )  # fmt: skip
    converter = bridge()
    assert converter is not None
    from cv_bridge import CvBridgeError

    try:
        rgb: NDArray[np.uint8] = converter.imgmsg_to_cv2(message, "rgb8")
    except (CvBridgeError, TypeError) as error:
        raise DataError(
            f"corrupt image of {message.width} x {message.height} pixels of {message.encoding}: "
            f"{error}"
        ) from error
    return rgb
