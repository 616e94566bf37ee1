# SPDX-License-Identifier: Apache-2.0
"""Boxes and calibrations of bag messages, without ROS.

The same wire format as `messages.conversions`, on the message classes of `bags.types`; a test
compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.types import header, message
from labeldistill_ros.messages.boxes import table_rows

_FLOAT32, _UINT32 = 7, 6  # datatypes of sensor_msgs/PointField


def table_message(boxes: Boxes3D, stamp_ns: int) -> Any:
    """Boxes with their velocities as one point each, aligned by index with the detections."""
    return cloud_message(table_rows(boxes), stamp_ns, boxes.frame)


def cloud_message(
    rows: np.ndarray[Any, np.dtype[Any]], stamp_ns: int, frame_id: str, *, filled: bool = True
) -> Any:
    """`sensor_msgs/PointCloud2` of a structured array of float32, uint32 and smaller integers.

    Without `filled` its data are left out, for `types.with_data`.
    """
    kinds = {"<f4": _FLOAT32, "<u4": _UINT32, "|i1": 1, "|u1": 2, "<i2": 3, "<u2": 4, "<i4": 5}
    fields = []
    for name in rows.dtype.names or ():
        kind, offset = rows.dtype.fields[name][:2]  # type: ignore[index]
        fields.append(
            message(
                "sensor_msgs/msg/PointField",
                name=name,
                offset=offset,
                datatype=kinds[kind.str],
                count=1,
            )
        )
    return message(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp_ns, frame_id),
        height=1,
        width=len(rows),
        fields=fields,
        is_bigendian=False,
        point_step=rows.dtype.itemsize,
        row_step=rows.nbytes,
        data=np.frombuffer(rows.tobytes() if filled else b"", np.uint8),
        is_dense=True,
    )


def read_calibration(name: str, info: Any, ego_from_camera: Transform) -> CameraCalibration:
    """Calibration of a camera whose images are not distorted.

    Raises:
        DataError: it is not calibrated, or its images are distorted.
    """
    if not info.width or not info.height or info.k[0] <= 0 or info.k[4] <= 0:
        raise DataError(
            f"{name}: camera_info says {info.width} x {info.height} pixels and focal lengths "
            f"{info.k[0]:g}, {info.k[4]:g}: the camera is not calibrated"
        )
    if np.any(np.asarray(info.d)):
        raise DataError(f"{name}: camera_info has a distortion; record rectified images")
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    return CameraCalibration(name, k, info.width, info.height, ego_from_camera)
