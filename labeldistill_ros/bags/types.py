# SPDX-License-Identifier: Apache-2.0
"""Message types for reading and writing bags without ROS."""

from __future__ import annotations

from functools import cache
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from labeldistill_core.frames import Transform

_NS = 1_000_000_000

# Fields of vision_msgs 4, which the library does not know. Names, types and order are those of
# the ROS packages, so the wire format and the type hash are the same; a test compares them.
_VISION = {
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": (
        "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "Detection3D": (
        "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id"
    ),
    "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections",
    "VisionClass": "uint16 class_id\nstring class_name",
    "LabelInfo": "std_msgs/Header header\nVisionClass[] class_map\nfloat32 threshold",
}


@cache
def typestore() -> Typestore:
    """All types of ROS 2 Humble (those used here are the same in later ones) and `vision_msgs`."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for name, fields in _VISION.items():
        types.update(get_types_from_msg(fields, f"vision_msgs/msg/{name}"))
    store.register(types)
    return store


@cache
def definition(msgtype: str) -> tuple[str, str]:
    """Text of a message type with all that it contains, and its RIHS01 hash."""
    store = typestore()
    return store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype)


def learn(msgtype: str, text: str) -> None:
    """Take a type from the definition that a bag carries, unless it is known."""
    if msgtype in typestore().types:
        return
    types = get_types_from_msg(text, msgtype)
    typestore().register({k: v for k, v in types.items() if k not in typestore().types})


def with_data(
    msgtype: str, message: Any, data: bytes | memoryview, behind: int
) -> tuple[bytes | memoryview, ...]:
    """CDR of a message, in pieces, whose large field `data` is left as it lies in memory.

    Args:
        msgtype: `sensor_msgs/msg/CompressedImage` and the like.
        message: with an empty `uint8[] data`.
        data: the field.
        behind: bytes of the fields after it, of one byte each, as nothing else needs no padding.
    """
    rest = bytes(typestore().serialize_cdr(message, msgtype))
    end = len(rest) - behind
    return rest[: end - 4] + len(data).to_bytes(4, "little"), data, rest[end:]


def message(kind: str, /, **fields: Any) -> Any:
    """A message of a type such as `std_msgs/msg/String`; every field must be given."""
    return typestore().types[kind](**fields)


def time_message(stamp_ns: int) -> Any:
    """`builtin_interfaces/Time`."""
    return message("builtin_interfaces/msg/Time", sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def header(stamp_ns: int, frame_id: str) -> Any:
    """`std_msgs/Header`."""
    return message("std_msgs/msg/Header", stamp=time_message(stamp_ns), frame_id=frame_id)


def stamp_of(stamped: Any) -> int:
    """Nanoseconds of a message's header."""
    return int(stamped.header.stamp.sec) * _NS + int(stamped.header.stamp.nanosec)


def point(x: float, y: float, z: float) -> Any:
    """`geometry_msgs/Point`."""
    return message("geometry_msgs/msg/Point", x=float(x), y=float(y), z=float(z))


def vector3(x: float, y: float, z: float) -> Any:
    """`geometry_msgs/Vector3`."""
    return message("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z))


def quaternion(w: float, x: float, y: float, z: float) -> Any:
    """`geometry_msgs/Quaternion`."""
    return message("geometry_msgs/msg/Quaternion", x=float(x), y=float(y), z=float(z), w=float(w))


def pose(position: tuple[float, float, float], wxyz: tuple[float, float, float, float]) -> Any:
    """`geometry_msgs/Pose`."""
    return message(
        "geometry_msgs/msg/Pose", position=point(*position), orientation=quaternion(*wxyz)
    )


def transform_stamped(transform: Transform, stamp_ns: int, parent: str, child: str) -> Any:
    """`geometry_msgs/TransformStamped` of `parent_from_child` under the ROS names given."""
    w, x, y, z = transform.quaternion.tolist()
    return message(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=message(
            "geometry_msgs/msg/Transform",
            translation=vector3(*transform.translation.tolist()),
            rotation=quaternion(w, x, y, z),
        ),
    )
