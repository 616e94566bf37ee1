# SPDX-License-Identifier: Apache-2.0
"""Tables as `sensor_msgs/PointCloud2`: boxes with velocities, one a point, and any point cloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.errors import DataError
from labeldistill_core.names import shown
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.stamps import header

TABLE_DTYPE = np.dtype(
    [(name, "<f4") for name in (*BOX_FIELDS, "score")] + [("label", "<u4")]  # 44 bytes
)
"""One row of `~/detections_table`: a box (metres, radians, metres a second), score and label."""

# constants of sensor_msgs/PointField
_DATATYPES = {"|i1": 1, "|u1": 2, "<i2": 3, "<u2": 4, "<i4": 5, "<u4": 6, "<f4": 7}


def table_message(boxes: Boxes3D, stamp_ns: int, family: MessageFamily = ROS) -> Any:
    """Boxes with their velocities, aligned by index with `boxes.detections_message`.

    Args:
        boxes: in the frame whose name goes into the header.
        stamp_ns: time of the header.
        family: of the message's classes.

    Returns:
        `PointCloud2` with the fields of `TABLE_DTYPE`; float32, an unknown velocity is NaN.
    """
    # Filled by column, since a structured array has no common type by which to copy rows.
    rows = np.empty(len(boxes), TABLE_DTYPE)
    values = boxes.values.numpy()
    for column, name in enumerate(BOX_FIELDS):
        rows[name] = values[:, column]
    rows["score"], rows["label"] = boxes.scores.numpy(), boxes.labels.numpy()
    return cloud_message(rows, stamp_ns, boxes.frame, family)


def cloud_message(
    rows: np.ndarray[Any, np.dtype[Any]],
    stamp_ns: int,
    frame_id: str,
    family: MessageFamily = ROS,
    *,
    filled: bool = True,
) -> Any:
    """`PointCloud2` of a structured array of float32 and integers of at most 32 bits.

    Args:
        rows: (N,), one a point.
        stamp_ns: time of the header.
        frame_id: frame of the points.
        family: of the message's classes.
        filled: without, the data are left out, for a writer that adds them itself.
    """
    fields = []
    for name in rows.dtype.names or ():
        kind, offset = rows.dtype.fields[name][:2]  # type: ignore[index]
        fields.append(
            family.make(
                "sensor_msgs/msg/PointField",
                name=name,
                offset=offset,
                datatype=_DATATYPES[kind.str],
                count=1,
            )
        )
    return family.make(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp_ns, frame_id, family),
        height=1,
        width=len(rows),
        fields=fields,
        point_step=rows.dtype.itemsize,
        row_step=rows.nbytes,
        data=rows.tobytes() if filled else b"",
        is_dense=True,
    )


def boxes_from_table(message: Any) -> Boxes3D:
    """Boxes of a table of detections, of any family.

    Raises:
        DataError: the cloud has other fields, or too few bytes.
    """
    names = tuple(f.name for f in message.fields)
    # Any point cloud may stand on a topic of this type; names and size together tell the table.
    if names != TABLE_DTYPE.names or message.point_step != TABLE_DTYPE.itemsize:
        plain = (n if n.isidentifier() and len(n) < 80 else shown(n) for n in names[:20])
        raise DataError(f"not a table of detections: its fields are {', '.join(plain)}")
    if len(message.data) < message.width * TABLE_DTYPE.itemsize:
        raise DataError(f"not a table of detections: {message.width} rows need more bytes")
    # rclpy has the data as an `array`, rosbags as numpy: bytes of both are the same.
    rows = np.frombuffer(bytes(message.data), TABLE_DTYPE, count=message.width)
    values = np.stack([rows[name] for name in BOX_FIELDS], axis=1)
    return Boxes3D(
        message.header.frame_id,
        torch.from_numpy(values.copy()),
        torch.from_numpy(rows["label"].astype(np.int64)),
        torch.from_numpy(rows["score"].copy()),
    )
