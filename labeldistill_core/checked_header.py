# SPDX-License-Identifier: Apache-2.0
"""The begin of our binary files: a mark, length and check sum of a header, the header as JSON."""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_PROLOGUE = struct.Struct("<8sII")


def packed_header(mark: bytes, content: Any) -> bytes:
    """The first bytes of a file.

    Args:
        mark: eight bytes that tell its kind.
        content: what `msgspec` writes as JSON.
    """
    text = msgspec.json.encode(content)
    return _PROLOGUE.pack(mark, len(text), zlib.crc32(text)) + text


def read_header(data: bytes | mmap.mmap, mark: bytes, kind: type[T]) -> tuple[T, int] | None:
    """The header of a file, and the place of the byte behind it.

    Args:
        data: the file, or enough of its begin.
        mark: eight bytes that tell its kind.
        kind: what the header is read as.

    Returns:
        None where the file is of another kind, is damaged, or was written by a version whose
        header has another form.
    """
    if len(data) < _PROLOGUE.size:
        return None
    found, length, check = _PROLOGUE.unpack_from(data)
    end = _PROLOGUE.size + length
    # The length may be anything in a damaged file: the text then ends with the data, and its sum
    # differs.
    text = data[_PROLOGUE.size : end]
    if found != mark or zlib.crc32(text) != check:
        return None
    try:
        return msgspec.json.decode(text, type=kind), end
    except msgspec.DecodeError:
        return None
