# SPDX-License-Identifier: Apache-2.0
"""Boxes and calibrations as ROS messages, and back.

Boxes carry the name of their frame into `header.frame_id`; nothing here moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Quaternion
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox3D,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.messages.boxes import TABLE_DTYPE, table_rows

_NS = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds since the epoch."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def stamp_from_ns(stamp_ns: int) -> Time:
    """The message of a time in nanoseconds since the epoch."""
    return Time(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def header(stamp_ns: int, frame_id: str) -> Header:
    """A message header."""
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def quaternion_of_yaw(yaw_rad: float) -> Quaternion:
    """Turn about +z."""
    return Quaternion(w=float(np.cos(yaw_rad / 2)), z=float(np.sin(yaw_rad / 2)))


def presentable(boxes: Boxes3D) -> Boxes3D:
    """The boxes whose centre, size, heading and score can be published: finite, size above zero.

    A velocity may be NaN.
    """
    finite = torch.isfinite(boxes.values[:, :7]).all(dim=1) & torch.isfinite(boxes.scores)
    return boxes[finite & (boxes.sizes > 0).all(dim=1)]


class DetectionsMessage:
    """A `Detection3DArray` that is filled again and again.

    To make the dozen objects of a detection takes several times as long as to send them, so those
    of the message before are kept. A publisher has serialized a message when `publish` returns.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        """`class_names` by label; they become `class_id`."""
        self._class_names = class_names
        self._pool: list[Detection3D] = []

    def fill(
        self, boxes: Boxes3D, stamp_ns: int, ids: Sequence[str] | None = None
    ) -> Detection3DArray:
        """Boxes as a message, every header the same; see `presentable`.

        Args:
            boxes: in the frame whose name goes into the headers.
            stamp_ns: time of the headers.
            ids: identity of each box, where it is known.

        Returns:
            The message; its detections hold until the next call.
        """
        head = header(stamp_ns, boxes.frame)
        self._pool += [_detection() for _ in range(len(boxes) - len(self._pool))]
        found = self._pool[: len(boxes)]
        names = [self._class_names[label] for label in boxes.labels.tolist()]
        rows = boxes.values[:, :7].tolist()
        for detection, row, name, score, identity in zip(
            found, rows, names, boxes.scores.tolist(), ids or [""] * len(boxes), strict=True
        ):
            detection.header, detection.id = head, identity
            position, size = detection.bbox.center.position, detection.bbox.size
            position.x, position.y, position.z, size.x, size.y, size.z, yaw = row
            turn = detection.bbox.center.orientation
            turn.w, turn.z = math.cos(yaw / 2), math.sin(yaw / 2)
            hypothesis = detection.results[0].hypothesis
            hypothesis.class_id, hypothesis.score = name, score
        return Detection3DArray(header=head, detections=found)


def _detection() -> Detection3D:
    """One whose only result has the pose of its box."""
    pose = Pose()
    result = ObjectHypothesisWithPose()
    result.pose.pose = pose
    return Detection3D(results=[result], bbox=BoundingBox3D(center=pose))


def detections_message(
    boxes: Boxes3D, class_names: Sequence[str], stamp_ns: int, ids: Sequence[str] | None = None
) -> Detection3DArray:
    """Boxes as a `Detection3DArray` of its own, see `DetectionsMessage`."""
    return DetectionsMessage(class_names).fill(boxes, stamp_ns, ids)


def table_message(boxes: Boxes3D, stamp_ns: int) -> PointCloud2:
    """Boxes with their velocities as one point each, aligned by index with `detections_message`."""
    rows = table_rows(boxes)
    fields = []
    for name in TABLE_DTYPE.names or ():
        kind, offset = TABLE_DTYPE.fields[name][:2]  # type: ignore[index]
        datatype = PointField.FLOAT32 if kind.kind == "f" else PointField.UINT32
        fields.append(PointField(name=name, offset=offset, datatype=datatype, count=1))
    message = PointCloud2(
        header=header(stamp_ns, boxes.frame),
        height=1,
        width=len(rows),
        fields=fields,
        point_step=TABLE_DTYPE.itemsize,
        row_step=rows.nbytes,
        is_dense=True,
    )
    message.data.frombytes(rows.tobytes())
    return message


def label_info(class_names: Sequence[str], threshold: float, stamp_ns: int) -> LabelInfo:
    """The names behind the numbers of `~/detections_table`."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(class_names)]
    return LabelInfo(header=header(stamp_ns, ""), class_map=classes, threshold=threshold)


def calibration_from_info(
    name: str,
    info: CameraInfo,
    ego_from_camera: Transform,
    *,
    rectified: bool = False,
    undistorted: bool = False,
) -> CameraCalibration:
    """Calibration of one camera.

    Args:
        name: the camera's name in the model.
        info: its `camera_info`.
        ego_from_camera: mounting pose, `ego` from the optical frame.
        rectified: the images are rectified, so P and R hold rather than K and D.
        undistorted: `Rectifier` takes the distortion out, so D is no obstacle.

    Raises:
        DataError: the camera is not calibrated, or its images are distorted.
    """
    if not info.width or not info.height:
        raise DataError(
            f"{name}: camera_info says {info.width} x {info.height} pixels; set width and height"
        )
    matrix, field = (info.p, "P") if rectified else (info.k, "K")
    intrinsics = np.asarray(matrix, dtype=np.float64).reshape(3, -1)[:, :3]
    if not (np.isfinite(intrinsics).all() and np.isfinite(np.asarray(info.d)).all()):
        raise DataError(
            f"{name}: camera_info has values in {field} or D that are no numbers; publish the "
            "calibration in camera_info"
        )
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise DataError(
            f"{name}: camera_info has the focal lengths {intrinsics[0, 0]:g} and "
            f"{intrinsics[1, 1]:g} in {field}: the camera is not calibrated; publish the "
            "calibration in camera_info"
        )
    if rectified:
        turn = np.asarray(info.r, dtype=np.float64).reshape(3, 3)  # rectified from optical
        if not turn.any():
            raise DataError(f"{name}: camera_info has no R, which rectified images need")
        mounted = Transform(ego_from_camera.source, ego_from_camera.source, turn.T, np.zeros(3))
        ego_from_camera = ego_from_camera @ mounted
    elif not undistorted and np.any(np.asarray(info.d)):
        raise DataError(
            f"{name}: camera_info has the distortion {[round(float(d), 4) for d in info.d]}: "
            "rectify the images (image_proc), set the image topic to the rectified one and "
            "images_rectified to true"
        )
    return CameraCalibration(name, intrinsics, info.width, info.height, ego_from_camera)


def rectification_differs(info: CameraInfo) -> bool:
    """Whether P is set and speaks of another focal length or centre than K.

    Then raw and rectified images need different matrices, and taking one for the other goes
    unnoticed.
    """
    p = np.asarray(info.p, dtype=np.float64).reshape(3, 4)[:, :3]
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    return bool(p.any() and not np.allclose(p, k, rtol=1e-3))
