# SPDX-License-Identifier: Apache-2.0
"""Times and headers as messages, and back. All times are nanoseconds since the epoch."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from labeldistill_ros.messages.family import ROS, MessageFamily

_NS = 1_000_000_000
_CDR_HEAD = 4
"""Bytes of the encapsulation before a serialized message."""


def stamp_to_ns(stamp: Any) -> int:
    """The time that a `builtin_interfaces/Time` tells."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def stamp_of(stamped: Any) -> int:
    """The time in a message's header."""
    return stamp_to_ns(stamped.header.stamp)


def told_time(stamp_ns: int) -> str:
    """A time for people."""
    return f"{np.datetime64(int(stamp_ns), 'ns').astype('datetime64[ms]')} UTC"


def stamp_of_cdr(data: bytes) -> int:
    """The time in the header that a serialized message begins with; 0 where it is too short."""
    if len(data) < _CDR_HEAD + 8:
        return 0
    # The second byte of the encapsulation tells the byte order.
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, _CDR_HEAD)
    return int(sec) * _NS + int(nanosec)


def stamp_from_ns(stamp_ns: int, family: MessageFamily = ROS) -> Any:
    """`builtin_interfaces/Time` of a time."""
    # Integers throughout: a float64 of seconds since 1970 is exact to 240 nanoseconds only, and
    # stamps are compared for equality.
    sec, nanosec = divmod(stamp_ns, _NS)
    return family.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def duration(seconds: float, family: MessageFamily = ROS) -> Any:
    """`builtin_interfaces/Duration` of a time span of zero or more seconds."""
    sec, nanosec = int(seconds), int(seconds % 1 * _NS)
    return family.make("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)


def header(stamp_ns: int, frame_id: str, family: MessageFamily = ROS) -> Any:
    """`std_msgs/Header` of a time and the name of a frame."""
    stamp = stamp_from_ns(stamp_ns, family)
    return family.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)
