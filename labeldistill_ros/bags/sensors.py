# SPDX-License-Identifier: Apache-2.0
"""What the sensors' files become: images with calibration, point clouds, motion of the vehicle.

LiDAR and radar points are the bytes of the file; only the description of their fields is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Qos

from labeldistill_core.data.image_header import PNG_SIGNATURE
from labeldistill_core.data.nuscenes_records import SensorRecord
from labeldistill_core.errors import DataError
from labeldistill_ros.bags.message_types import with_data
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.calibration import camera_info
from labeldistill_ros.messages.geometry import pose, quaternion, vector3
from labeldistill_ros.messages.stamps import header
from labeldistill_ros.messages.tables import cloud_message
from labeldistill_ros.ros_names import ros_name

BASE_FRAME = "base_link"
MAP_FRAME = "map"
IMU_TOPIC, ODOMETRY_TOPIC = "/imu", "/odom"

_CLOUD, _IMAGE = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/CompressedImage"
_LIDAR = np.dtype([(name, "<f4") for name in ("x", "y", "z", "intensity", "ring")])
_PCD_KINDS = {"F4": "<f4", "I1": "|i1", "I2": "<i2", "I4": "<i4", "U1": "|u1", "U2": "<u2"}


@dataclass(frozen=True)
class Entry:
    """A message that is yet to be made."""

    stamp_ns: int
    """Log time of the message, in nanoseconds since the epoch."""
    topic: str
    """Name of the topic that the message goes to."""
    msgtype: str
    """Type of the message, such as `std_msgs/msg/String`."""
    build: Callable[[], Any]
    """Makes the message, or the pieces of its CDR; late, so that few images are in memory."""
    qos: Qos | None = None
    """Profile that is recorded for the topic; a reliable one when None."""


def optical_frame(camera: str) -> str:
    """ROS name of a camera's frame, such as `cam_front_optical_frame`."""
    return f"{ros_name(camera)}_optical_frame"


def image_topic(camera: str) -> str:
    """Topic of a camera's images, such as `/cam_front/image_raw/compressed`."""
    return f"/{ros_name(camera)}/image_raw/compressed"


def info_topic(camera: str) -> str:
    """Topic of a camera's calibration, such as `/cam_front/camera_info`."""
    return f"/{ros_name(camera)}/camera_info"


def points_topic(sensor: str) -> str:
    """Topic of the points of a LiDAR or radar, such as `/lidar_top/points`."""
    return f"/{ros_name(sensor)}/points"


def image_entries(record: SensorRecord) -> list[Entry]:
    """Messages of an image, as it is in its file, and of the camera's calibration."""
    stamp_ns, camera = record.stamp_ns, record.channel
    frame = optical_frame(camera)

    def image() -> Any:
        # The file's name may say .jpg of a PNG, so the first bytes decide.
        data = record.read()
        form = "png" if data.startswith(PNG_SIGNATURE) else "jpeg"
        # The image is not put into a message and serialized: its bytes go to the file as they were
        # read.
        empty = BAG.make(_IMAGE, header=header(stamp_ns, frame, BAG), format=form)
        return with_data(_IMAGE, empty, data, behind=0)

    def info() -> Any:
        size_px = (record.width_px, record.height_px)
        return camera_info(record.calibration.intrinsics_px, size_px, stamp_ns, frame, BAG)

    return [
        Entry(stamp_ns, info_topic(camera), "sensor_msgs/msg/CameraInfo", info),
        Entry(stamp_ns, image_topic(camera), _IMAGE, image),
    ]


def cloud_entry(record: SensorRecord) -> Entry:
    """The message of a LiDAR scan or a radar sweep, in the sensor's frame, metres."""
    read = lidar_points if record.modality == "lidar" else radar_points
    topic, frame = points_topic(record.channel), ros_name(record.channel)

    def cloud() -> Any:
        rows = read(record.path, record.read())
        # Behind `data` the type has one field of one byte, `is_dense`.
        empty = cloud_message(rows, record.stamp_ns, frame, BAG, filled=False)
        empty.is_dense = _is_finite(rows)
        return with_data(_CLOUD, empty, rows.view(np.uint8).data, behind=1)  # is_dense

    return Entry(record.stamp_ns, topic, _CLOUD, cloud)


def _is_finite(rows: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """What `PointCloud2.is_dense` tells: that no coordinate is infinite or none."""
    return all(
        bool(np.isfinite(rows[name]).all())
        for name in ("x", "y", "z")
        if name in (rows.dtype.names or ())
    )


def lidar_points(path: Path, data: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows of x, y, z, intensity, ring of a `.pcd.bin` file, in the sensor's frame.

    Raises:
        DataError: the file is no whole scan.
    """
    if not data or len(data) % _LIDAR.itemsize:
        raise DataError(
            f"{path} has {len(data)} bytes, which is no scan of five float32 a point: is it whole?"
        )
    # A view of the file's bytes, not a copy: LiDAR is the largest part of a scene but for images.
    return np.frombuffer(data, _LIDAR)


def radar_points(path: Path, data: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows of a binary `.pcd` file with the fields that its head names; see docs/bags.md.

    Where the first point is not a number, the radar had no echo, and there are no rows.

    Source: nuscenes-devkit, `RadarPointCloud.from_file`.

    Raises:
        DataError: the file is no such file, or not whole.
    """
    # The PCD format: a head of text lines whose last one says how the points are stored.
    head, found, body = data.partition(b"DATA binary\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    fields = {words[0]: words[1:] for words in lines if words}
    try:
        formats = [
            _PCD_KINDS[kind + size]
            for kind, size in zip(fields["TYPE"], fields["SIZE"], strict=True)
        ]
        rows = np.dtype(list(zip(fields["FIELDS"], formats, strict=True)))
        points = int(fields["WIDTH"][0]) * int(fields["HEIGHT"][0])
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path} is no PCD file as nuScenes' radars have it: {error!r}") from error
    if not found or len(body) < points * rows.itemsize:
        raise DataError(
            f"{path} has {len(body)} bytes behind its head, {points} points need "
            f"{points * rows.itemsize}: is it whole?"
        )
    # The head says how many points there are; what stands behind them is no part of the cloud.
    cloud: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(body, rows, count=points)
    silent = points and any(
        math.isnan(cloud[name][0]) for name in rows.names or () if rows[name].kind == "f"
    )
    return cloud[:0] if silent else cloud


def motion_entries(dataroot: Path, scene: str, shift_ns: int) -> list[Entry]:
    """IMU and odometry of the CAN bus expansion; none where its files are not there.

    Args:
        dataroot: of nuScenes; the files are looked for in `can_bus/`.
        scene: its name.
        shift_ns: added to the stamps.

    Raises:
        DataError: a file is damaged.
    """
    entries = []
    for name, topic, kind, build in (
        ("ms_imu", IMU_TOPIC, "sensor_msgs/msg/Imu", _imu),
        ("pose", ODOMETRY_TOPIC, "nav_msgs/msg/Odometry", _odometry),
    ):
        path = dataroot / "can_bus" / f"{scene}_{name}.json"
        if not path.is_file():
            continue
        try:
            for row in json.loads(path.read_bytes()):
                # `utime` is in microseconds, as all times of nuScenes.
                stamp_ns = int(row["utime"]) * 1000 + shift_ns
                built = build(row, stamp_ns)
                entries.append(Entry(stamp_ns, topic, kind, lambda built=built: built))  # type: ignore[misc]
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no table of the CAN bus expansion: {error!r}") from error
    return entries


def _numbers(row: dict[str, Any], key: str) -> list[float]:
    return [float(value) for value in row[key]]


def _imu(row: dict[str, Any], stamp_ns: int) -> Any:
    return BAG.make(
        "sensor_msgs/msg/Imu",
        header=header(stamp_ns, BASE_FRAME, BAG),
        orientation=quaternion(*_numbers(row, "q"), family=BAG),
        angular_velocity=vector3(*_numbers(row, "rotation_rate"), family=BAG),
        linear_acceleration=vector3(*_numbers(row, "linear_accel"), family=BAG),
    )


def _odometry(row: dict[str, Any], stamp_ns: int) -> Any:
    where = pose(_numbers(row, "pos"), _numbers(row, "orientation"), BAG)
    motion = BAG.make(
        "geometry_msgs/msg/Twist",
        linear=vector3(*_numbers(row, "vel"), family=BAG),
        angular=vector3(*_numbers(row, "rotation_rate"), family=BAG),
    )
    return BAG.make(
        "nav_msgs/msg/Odometry",
        header=header(stamp_ns, MAP_FRAME, BAG),
        child_frame_id=BASE_FRAME,
        pose=BAG.make("geometry_msgs/msg/PoseWithCovariance", pose=where),
        twist=BAG.make("geometry_msgs/msg/TwistWithCovariance", twist=motion),
    )
