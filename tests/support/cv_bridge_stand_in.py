# SPDX-License-Identifier: Apache-2.0
"""What of `cv_bridge` the node calls, for machines on which it is not installed.

It does what the documented interface says, by OpenCV: rows of `step` bytes are cut to whole pixels,
colours become RGB, and 16 bits are scaled to 8.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

CODES = {
    "bgr": "COLOR_BGR2RGB",
    "rgba": "COLOR_RGBA2RGB",
    "bgra": "COLOR_BGRA2RGB",
    "mono": "COLOR_GRAY2RGB",
    "bayer_rggb": "COLOR_BayerBG2RGB",
    "bayer_bggr": "COLOR_BayerRG2RGB",
    "bayer_gbrg": "COLOR_BayerGR2RGB",
    "bayer_grbg": "COLOR_BayerGB2RGB",
    "yuv422": "COLOR_YUV2RGB_UYVY",
    "yuv422_yuy2": "COLOR_YUV2RGB_YUY2",
}
CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "yuv422": 2, "yuv422_yuy2": 2}


class CvBridgeError(TypeError):
    """As the real one."""


class CvBridge:
    """As the real one, for the encodings that have colours."""

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str) -> Any:
        """The image in RGB."""
        import cv2

        assert desired_encoding == "rgb8"
        kind = message.encoding.removesuffix("8").removesuffix("16")
        kind = message.encoding if message.encoding.startswith("yuv") else kind
        if kind not in {"rgb", *CODES}:
            raise CvBridgeError(f"[{message.encoding}] is not a color format")
        dtype = np.dtype(np.uint16 if message.encoding.endswith("16") else np.uint8)
        channels = CHANNELS.get(kind, 1)
        wide = int(message.step / dtype.itemsize / channels)
        image: Any = np.ndarray((message.height, wide, channels), dtype, buffer=message.data)
        image = np.ascontiguousarray(image[:, : message.width])
        if kind != "rgb":
            image = cv2.cvtColor(image, getattr(cv2, CODES[kind]))
        if dtype.itemsize == 2:
            image = np.rint(image * (255 / 65535)).astype(np.uint8)
        return image


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import cv_bridge` find it for the rest of a test."""
    package, boost = ModuleType("cv_bridge"), ModuleType("cv_bridge.boost")
    names: Any = package
    names.CvBridge, names.CvBridgeError = CvBridge, CvBridgeError
    package.__path__, boost.__path__ = [], []
    native = ModuleType("cv_bridge.boost.cv_bridge_boost")
    boost.cv_bridge_boost = native  # type: ignore[attr-defined]
    for module in (package, boost, native):
        monkeypatch.setitem(sys.modules, module.__name__, module)
