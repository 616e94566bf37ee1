# SPDX-License-Identifier: Apache-2.0
"""Definitions of message types for bags, and the CDR of messages with large data."""

from __future__ import annotations

from functools import cache
from typing import Any

from rosbags.typesys import get_types_from_msg

from labeldistill_ros.messages.bag_family import typestore


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
        msgtype: a type with a field `uint8[] data`, such as `sensor_msgs/msg/CompressedImage`.
        message: with an empty `uint8[] data`.
        data: the field.
        behind: bytes of the fields after it, of one byte each, as nothing else needs no padding.
    """
    rest = bytes(typestore().serialize_cdr(message, msgtype))
    end = len(rest) - behind
    return rest[: end - 4] + len(data).to_bytes(4, "little"), data, rest[end:]
