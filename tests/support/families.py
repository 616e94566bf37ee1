# SPDX-License-Identifier: Apache-2.0
"""Messages of both families over the wire, for tests that ask the same of each."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message

from labeldistill_ros.messages import ROS, MessageFamily
from labeldistill_ros.messages.bag_family import BAG, typestore

FAMILIES = {"rclpy": ROS, "rosbags": BAG}


def cdr_of(message: Any, kind: str, family: MessageFamily) -> bytes:
    """The bytes of a message."""
    if family is ROS:
        return bytes(serialize_message(message))
    return bytes(typestore().serialize_cdr(message, kind))


def message_of(cdr: bytes, kind: str, family: MessageFamily) -> Any:
    """The message of some bytes, as a family reads it."""
    if family is BAG:
        return typestore().deserialize_cdr(cdr, kind)
    package, _, name = kind.split("/")
    return deserialize_message(cdr, getattr(importlib.import_module(f"{package}.msg"), name))


def over_the_wire(message: Any, kind: str, family: MessageFamily) -> Any:
    """What a subscriber of the family receives."""
    return message_of(cdr_of(message, kind, family), kind, family)
