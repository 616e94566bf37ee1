# SPDX-License-Identifier: Apache-2.0
"""What is compressed in bags, within bounds: a few bytes can stand for any number of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import lz4.frame
from backports import zstd  # what rosbags decompresses with
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

from labeldistill_core.errors import BagError
from labeldistill_core.files import naming

LARGEST_BYTES = 2**28
"""Bytes of a message or of a chunk of messages; recorders make chunks of some megabytes."""
RESERVE_BYTES = 2**30
"""Of the disk, which others need too."""
_STEP = 2**24
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""Begins what zstd has compressed."""
_INPUT = 2**17
"""Bytes of a compressed file at a time, so that little is lost where it is damaged."""


def zstd_bytes(data: bytes, most: int = LARGEST_BYTES) -> bytes:
    """What zstd made of some bytes.

    Args:
        data: one frame or several.
        most: bytes that they may stand for.

    Raises:
        ReaderError: they stand for more.
        EOFError: they end in the middle.
        ZstdError: they are damaged.
    """
    _refuse_over(most, LARGEST_BYTES)
    out = bytearray()
    while data:  # frame by frame
        decompressor = zstd.ZstdDecompressor()
        out += decompressor.decompress(data, max_length=most + 1 - len(out))
        _refuse_over(len(out), most)
        if not decompressor.eof:
            raise EOFError("something compressed ends in the middle")
        data = decompressor.unused_data
    return bytes(out)


def lz4_bytes(data: bytes, most: int = LARGEST_BYTES) -> bytes:
    """What LZ4 made of some bytes; see `zstd_bytes`.

    Raises:
        ReaderError: they stand for more.
        RuntimeError: they are damaged.
    """
    _refuse_over(most, LARGEST_BYTES)
    decompressor = lz4.frame.LZ4FrameDecompressor()
    out = bytearray()
    while not decompressor.eof:
        piece = decompressor.decompress(data, max_length=_STEP)
        if not piece and decompressor.needs_input:
            break
        out += piece
        data = b""
        _refuse_over(len(out), most)
    return bytes(out)


def bound_chunks() -> None:
    """Let rosbags make no more of a chunk than its head tells, or than memory bears."""
    DECOMPRESSORS.update(zstd=zstd_bytes, lz4=lz4_bytes)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for what cannot be read where it lies.

    Raises:
        BagError: there is room for none.
    """
    try:
        folder = TemporaryDirectory()
    except OSError as error:
        raise BagError(
            f"no folder for temporary files: {error.strerror or error}; set TMPDIR to one on a "
            "disk with room"
        ) from error
    with folder as path:
        yield path


def decompress_file(file: Path, folder: Path) -> Path:
    """Write what a file compressed with zstd stands for into a folder; returns where.

    What comes before the place where it is damaged, or ends, is written then.

    Raises:
        BagError: it does not fit on the disk.
        OSError: it cannot be read or written.
        EOFError: it ends in the middle.
        ZstdError: it is damaged.
    """
    out = folder / file.stem
    with file.open("rb") as stream, naming(out), out.open("wb") as target:
        for piece in _pieces(stream):
            if shutil.disk_usage(folder).free < RESERVE_BYTES + len(piece):
                raise BagError(
                    f"{file} stands for more than there is room for in {folder}: set TMPDIR to a "
                    "folder on a larger disk, or decompress the bag with `ros2 bag convert`"
                )
            target.write(piece)
    return out


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """What the frames of a stream stand for, in pieces of a bounded size."""
    decompressor, data = zstd.ZstdDecompressor(), stream.read(_INPUT)
    while data or not decompressor.needs_input:
        if piece := decompressor.decompress(data, max_length=_STEP):
            yield piece
        data = b""
        if decompressor.eof:
            data = decompressor.unused_data or stream.read(_INPUT)
            decompressor = zstd.ZstdDecompressor()
        elif decompressor.needs_input and not (data := stream.read(_INPUT)):
            raise EOFError("something compressed ends in the middle")


def _refuse_over(size: int, most: int) -> None:
    if size > most:
        raise ReaderError(f"something compressed stands for more than {most} bytes")
