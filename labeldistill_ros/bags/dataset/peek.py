# SPDX-License-Identifier: Apache-2.0
"""The header of a message, read without the rest of it.

A drive is gone through once to find out what it holds. To decode its images and clouds for their
stamps would take several times as long as to read them.

Source: OMG, "Common Data Representation", version 1 with its encapsulation header.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from labeldistill_core.errors import DataError

_NS = 1_000_000_000
_FIRST = 4
"""Bytes of the encapsulation header."""
_LONGEST_FRAME = 4096


class PeekedHeader(NamedTuple):
    """A `std_msgs/Header` at the beginning of a message."""

    stamp_ns: int
    """Time, nanoseconds since the epoch; 0 where it was never set."""
    frame_id: str
    """Frame of the message."""
    end: int
    """Where the rest of the message begins, but for its alignment."""


def peek_header(data: bytes) -> PeekedHeader:
    """Read the header of a message whose first field it is.

    Raises:
        DataError: the bytes are too few, or no such message.
    """
    try:
        order = "<" if data[1] & 1 else ">"
        sec, nanosec, length = struct.unpack_from(f"{order}iII", data, _FIRST)
    except (struct.error, IndexError):
        raise DataError(f"a message of {len(data)} bytes has no header") from None
    end = _FIRST + 12 + length
    if length > _LONGEST_FRAME or end > len(data) or nanosec >= _NS:
        raise DataError(f"a message of {len(data)} bytes has a damaged header")
    text = data[_FIRST + 12 : end].rstrip(b"\0").decode("utf-8", "replace")
    return PeekedHeader(sec * _NS + nanosec, text, end)
