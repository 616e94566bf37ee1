# SPDX-License-Identifier: Apache-2.0
"""Columns in one file that processes map into memory, so that all of them share its pages.

A checked header, then the arrays, each at a multiple of 64 bytes. The file appears whole or not at
all.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from labeldistill_core.checked_header import packed_header, read_header
from labeldistill_core.data.tables.columns import Meta, TableColumns

_MARK = b"LDTABLES"
_ALIGNMENT = 64
FORMAT = 5
"""Of the file and of what its columns mean; a file with another number is made anew."""
_SPOTS, _SPOT_BYTES = 16, 4096

T = TypeVar("T")


class Stamp(msgspec.Struct, frozen=True):
    """What tells one state of a table's file from another."""

    size: int
    """Bytes; -1 where the file is absent."""
    modified_ns: int
    """Of its content."""
    changed_ns: int
    """Of content or attributes; unlike `modified_ns`, no program can set it."""
    spots: int
    """Check sum over parts of the content."""


Stamps = dict[str, Stamp]
"""By name of the table."""


class _Array(msgspec.Struct, frozen=True):
    """Where an array lies; the offset counts from the first array."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    spots: int


class _Header(msgspec.Struct, frozen=True):
    """What the file holds; the size is that of all arrays together."""

    format: int
    stamps: Stamps
    size: int
    arrays: dict[str, _Array]
    meta: Meta


def spot_check(read: Callable[[int, int], bytes], size: int) -> int:
    """Check sum over the ends and evenly spread parts of some content.

    Args:
        read: gives the bytes at an offset, so many.
        size: of the content.
    """
    total = zlib.crc32(str(size).encode())
    last = max(0, size - _SPOT_BYTES)
    for spot in range(_SPOTS):
        total = zlib.crc32(read(last * spot // (_SPOTS - 1), _SPOT_BYTES), total)
    return total


def write_columns(path: Path, columns: TableColumns, stamps: Stamps) -> None:
    """Write a file in place of the one that is there.

    Args:
        path: of the file.
        columns: what goes in.
        stamps: of the tables that it was made from.

    Raises:
        OSError: it cannot be written, as on a full disk; nothing of it is left.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in _leaves(columns, "")}
    header = packed_header(_MARK, _header(columns.meta, stamps, arrays))
    # Each process has its own, should a file system's locks let two write.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header)
            for array in arrays.values():
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                file.write(array.data)
            file.flush()
            # Before it has its name: after a power cut, a name must not stand for missing pages.
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too must outlive a power cut
    finally:
        os.close(folder)


def map_columns(path: Path, stamps: Stamps) -> TableColumns | None:
    """Map a file; None where it is absent, damaged, of another format or of other tables."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    header = _read_header(data)
    if header is None or header.stamps != stamps:
        return None
    try:
        return _mapped(data, header)
    # A header of others may tell of arrays that cannot be, or of none.
    except (KeyError, OverflowError, TypeError, ValueError):
        return None


def _mapped(data: mmap.mmap, header: _Header) -> TableColumns | None:
    begin = len(data) - header.size
    arrays: dict[str, NDArray[Any]] = {}
    for name, about in header.arrays.items():
        count = int(np.prod(about.shape))
        if about.offset + count * np.dtype(about.dtype).itemsize > header.size:
            return None
        array = np.frombuffer(data, np.dtype(about.dtype), count, begin + about.offset)
        # Spots and not all bytes, which would read the whole file that mapping leaves on the disk.
        if _spots(array) != about.spots:
            return None
        arrays[name] = array.reshape(about.shape)
    return _assembled(TableColumns, "", arrays, header.meta)


def _header(meta: Meta, stamps: Stamps, arrays: dict[str, NDArray[Any]]) -> _Header:
    size, placed = 0, {}
    for name, array in arrays.items():
        size += -size % _ALIGNMENT
        placed[name] = _Array(array.dtype.str, array.shape, size, _spots(array))
        size += array.nbytes
    return _Header(FORMAT, stamps, size, placed, meta)


def _read_header(data: mmap.mmap) -> _Header | None:
    found = read_header(data, _MARK, _Header)
    if found is None:
        return None
    header, end = found
    # A copy that was cut short keeps its header.
    whole = end + -end % _ALIGNMENT + header.size == len(data)
    return header if header.format == FORMAT and whole else None


def _spots(array: NDArray[Any]) -> int:
    data = array.reshape(-1).view(np.uint8)
    return spot_check(lambda at, count: data[at : at + count].tobytes(), array.nbytes)


def _leaves(columns: Any, prefix: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of nested data classes by dotted name."""
    for field in fields(columns):
        value, name = getattr(columns, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from _leaves(value, name + ".")
        elif isinstance(value, np.ndarray):
            yield name, value


def _assembled(kind: type[T], prefix: str, arrays: dict[str, NDArray[Any]], meta: Meta) -> T:
    """The reverse of `_leaves`."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if hint is Meta:
            values[name] = meta
        elif is_dataclass(hint):
            values[name] = _assembled(hint, f"{prefix}{name}.", arrays, meta)  # type: ignore[arg-type]
        else:
            values[name] = arrays[prefix + name]
    return kind(**values)
