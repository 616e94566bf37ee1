# SPDX-License-Identifier: Apache-2.0
"""Boxes and calibrations of bag messages, without ROS.

The same wire format as `labeldistill_ros.messages`, on the message classes of `bags.types`; a test
compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.types import header, message

TABLE_DTYPE = np.dtype(
    [(name, "<f4") for name in (*BOX_FIELDS, "score")] + [("label", "<u4")]  # 44 bytes
)
"""One row of `/detector/detections_table`."""
_FLOAT32, _UINT32 = 7, 6  # datatypes of sensor_msgs/PointField


def read_detections(array: Any, class_names: Sequence[str]) -> Boxes3D:
    """Boxes of a `Detection3DArray`; the velocities are NaN, the message has none.

    Raises:
        DataError: a class name is unknown or a detection has no result.
    """
    rows, labels, scores = [], [], []
    for detection in array.detections:
        if not detection.results:
            raise DataError("a detection has no result, so its class is unknown")
        best = max(detection.results, key=lambda result: result.hypothesis.score).hypothesis
        if best.class_id not in class_names:
            raise DataError(f"class {best.class_id!r} is none of {', '.join(class_names)}")
        center, size = detection.bbox.center.position, detection.bbox.size
        q = detection.bbox.center.orientation
        yaw = np.arctan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
        box = (center.x, center.y, center.z, size.x, size.y, size.z, yaw)
        rows.append([*box, np.nan, np.nan])
        labels.append(class_names.index(best.class_id))
        scores.append(best.score)
    return Boxes3D(
        array.header.frame_id,
        torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float64),
    )


def read_table(cloud: Any) -> Boxes3D:
    """Boxes of a table of detections.

    Raises:
        DataError: the cloud has other fields.
    """
    names = tuple(field.name for field in cloud.fields)
    if names != TABLE_DTYPE.names or cloud.point_step != TABLE_DTYPE.itemsize:
        raise DataError(f"not a table of detections: its fields are {', '.join(names)}")
    rows = np.frombuffer(bytes(cloud.data), TABLE_DTYPE, count=cloud.width)
    values = np.stack([rows[name] for name in BOX_FIELDS], axis=1)
    return Boxes3D(
        cloud.header.frame_id,
        torch.from_numpy(values.copy()),
        torch.from_numpy(rows["label"].astype(np.int64)),
        torch.from_numpy(rows["score"].copy()),
    )


def table_message(boxes: Boxes3D, stamp_ns: int) -> Any:
    """Boxes with their velocities as one point each, aligned by index with the detections."""
    rows = np.empty(len(boxes), TABLE_DTYPE)
    values = boxes.values.numpy()
    for column, name in enumerate(BOX_FIELDS):
        rows[name] = values[:, column]
    rows["score"], rows["label"] = boxes.scores.numpy(), boxes.labels.numpy()
    return cloud_message(rows, stamp_ns, boxes.frame)


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
