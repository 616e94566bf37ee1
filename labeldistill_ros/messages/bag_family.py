# SPDX-License-Identifier: Apache-2.0
"""The message classes of the library rosbags, which bags are read and written with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from labeldistill_ros.messages.family import MessageFamily

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

_FILLED = {("geometry_msgs/msg/Quaternion", "w"): 1.0}
"""Default values in the definitions of ROS other than zero, which rosbags does not know."""

_Default = Callable[[], Any]
_Converter = Callable[[Any], Any]


@cache
def typestore() -> Typestore:
    """All types of ROS 2 Humble (those used here are the same in later ones) and `vision_msgs`."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for name, fields in _VISION.items():
        types.update(get_types_from_msg(fields, f"vision_msgs/msg/{name}"))
    store.register(types)
    return store


def layout(store: Typestore, kind: str) -> tuple[Any, ...]:
    """Types of a message's fields in their order, down to numbers and strings, without names.

    Two types of the same layout have the same bytes.
    """

    def told(field: Any) -> Any:
        node, detail = field
        if node == Nodetype.NAME:
            return layout(store, detail)
        if node == Nodetype.BASE:
            return detail
        inner, size = detail
        return node, told(inner), size

    return tuple(told(field) for _, field in store.fielddefs[kind][1])


class BagMessages(MessageFamily):
    """Makes messages of `typestore`'s types."""

    def __init__(self) -> None:
        """Begin without plans; each type is looked up when it is first made."""
        self._plans: dict[str, dict[str, tuple[_Default, _Converter | None]]] = {}

    def make(self, kind: str, /, **fields: Any) -> Any:
        """See `MessageFamily.make`."""
        # A class of rosbags wants every field, each of its exact numpy type. How to fill a type is
        # looked up once and kept as a plan, since a recording holds thousands of messages of few
        # types.
        plan = self._plans.get(kind) or self._learn(kind)
        for name, (default, convert) in plan.items():
            if name not in fields:
                fields[name] = default()
            elif convert:
                fields[name] = convert(fields[name])
        return typestore().types[kind](**fields)

    def _learn(self, kind: str) -> dict[str, tuple[_Default, _Converter | None]]:
        # `fielddefs` describes a field as a node (name, base, array or sequence) and a detail of
        # that node.
        plan = {name: self._plan(type_of) for name, type_of in typestore().fielddefs[kind][1]}
        for (owner, name), value in _FILLED.items():
            if owner == kind:
                plan[name] = (lambda value=value: value), None  # type: ignore[misc]
        self._plans[kind] = plan
        return plan

    def _plan(self, described: Any) -> tuple[_Default, _Converter | None]:
        """How a field is filled where it is not given, and how a value is made to fit."""
        node, detail = described
        if node is Nodetype.NAME:
            # Each message gets an object of its own: messages can be changed after they are made.
            return (lambda: self.make(detail)), None
        if node is Nodetype.BASE:
            zero = "" if detail[0] in ("string", "wstring") else _dtype(detail[0])(0).item()
            return (lambda: zero), None
        (item, item_detail), length = detail
        # An array has a fixed length and is filled with defaults; a sequence starts empty.
        length = length if node is Nodetype.ARRAY else 0
        if item is Nodetype.BASE and "string" not in item_detail[0]:
            dtype = _dtype(item_detail[0])
            return (lambda: np.zeros(length, dtype)), (lambda value: _array(value, dtype))
        default, _ = self._plan((item, item_detail))
        return (lambda: [default() for _ in range(length)]), None


def _dtype(name: str) -> Any:
    # ROS calls an unsigned octet `byte` or `char`, for which numpy has other meanings.
    return np.dtype({"bool": "bool", "byte": "uint8", "char": "uint8"}.get(name, name)).type


def _array(value: Any, dtype: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return np.frombuffer(value, dtype)
    return np.asarray(value, dtype)


BAG = BagMessages()
"""The family of the bag tools."""
