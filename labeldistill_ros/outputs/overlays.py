# SPDX-License-Identifier: Apache-2.0
"""Camera images with the boxes drawn into them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CameraView
from labeldistill_core.visualization.pictures import draw_boxes
from labeldistill_ros.messages import header

WIDTH_PX = 800
"""Wider images are made smaller: an overlay is looked at, and goes over the air."""
_JPEG_QUALITY = 80


def overlay_message(
    view: CameraView, boxes: Boxes3D, class_names: Sequence[str], frame_id: str
) -> CompressedImage:
    """JPEG of an image with boxes, at most `WIDTH_PX` wide.

    Args:
        view: the image and where it was taken.
        boxes: in the fixed frame of the view's pose.
        class_names: by label.
        frame_id: ROS name of the camera's optical frame, for the header.
    """
    picture = Picture.fromarray(np.ascontiguousarray(view.pixels))
    if picture.width > WIDTH_PX:
        picture = picture.resize((WIDTH_PX, round(picture.height * WIDTH_PX / picture.width)))
    # Boxes after resizing, so that their lines are as thick in every camera; the pose is that of
    # this image's own exposure.
    draw_boxes(picture, view.pose, boxes, class_names=class_names)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    message = CompressedImage(header=header(view.stamp_ns, frame_id), format="jpeg")
    message.data.frombytes(buffer.getvalue())
    return message
