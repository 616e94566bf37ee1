# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file of which any bytes may be wrong or missing.

The file is walked from record to record. Where no record can stand, the walk goes on at the next
place that looks like the head of one, also inside a chunk; a compressed chunk is found by the magic
number of its compression, and is taken as far as it can be decompressed.

Source: MCAP specification 1.0, section "Records".
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lz4.frame
import zstandard
from mcap.opcode import Opcode
from mcap.records import Channel, Message, Schema

from labeldistill_ros.bags.file_formats import MCAP_MAGIC

Buffer = bytes | mmap.mmap
Record = Schema | Channel | Message

_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_CHUNK = struct.Struct("<QQQI")
_LAST_OPCODE, _FIRST_PRIVATE_OPCODE = 0x0F, 0x80
_ZSTD, _LZ4 = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
_PLACES = re.compile(rb"[\x03-\x06].{4}\x00{4}|" + re.escape(_ZSTD) + b"|" + _LZ4, re.DOTALL)
"""Schema, channel, message or chunk of less than 4 GiB, or what is compressed."""
_LARGEST_CHUNK = 2**28
"""More is not decompressed: a few bytes can stand for any number of them."""
_STEP = 2**20


@dataclass
class Walk:
    """A way through the records of a file."""

    is_whole: Callable[[Message], bool] = lambda _: False
    """Asked about a message that no other record of the same chunk vouches for."""
    damages: int = 0
    """Number of places so far where what should be a record was none."""

    def file(self, data: Buffer) -> Iterator[Record]:
        """Schemas, channels and messages of a whole file, in the order in which they stand.

        What is yielded may still have wrong bytes inside its fields.
        """
        begin = len(MCAP_MAGIC) if data[: len(MCAP_MAGIC)] == MCAP_MAGIC else 0
        return self._records(data, begin, len(data))

    def _records(
        self, data: Buffer, at: int, end: int, *, aligned: bool = True
    ) -> Iterator[Record]:
        while at < end:
            size = _size(data, at, end)
            if size is not None:
                body, after = at + _HEAD.size, at + _HEAD.size + size
                # A record is believed where the next one begins right behind it, or the file ends
                # there: a random length seldom leads to a place where a record can stand.
                followed = aligned and (
                    after == end or _size(data, after, end) is not None or _is_end(data, after)
                )
                # Into the chunk rather than over it: its messages are walked one by one, so that a
                # wrong byte in an uncompressed chunk costs one message.
                if data[at] == Opcode.CHUNK and (inner := _chunk(data, body, after)):
                    yield from self._records(*inner)
                    at, aligned = after, True
                    continue
                record = _parsed(data, at, after)
                if record is not None and (
                    followed or not isinstance(record, Message) or self.is_whole(record)
                ):
                    yield record
                    at, aligned = after, True
                    continue
                # A record of a kind that holds no message, such as an index; or a chunk, of which
                # one bit of the opcode is wrong.
                if followed and data[at] != Opcode.CHUNK:
                    if data[at] != Opcode.ATTACHMENT:
                        yield from self._records(data, body, after, aligned=False)
                    at = after
                    continue
            if data[at : at + 4] in (_ZSTD, _LZ4):
                content = _decompressed(data, at, end)
                yield from self._records(content, 0, len(content))
            elif aligned and not _is_end(data, at):
                self.damages += 1
            # One byte on and not one record on, as the length of what stands here cannot be
            # trusted.
            found = _PLACES.search(data, at + 1, end)
            at, aligned = (found.start(), False) if found else (end, False)


def _size(data: Buffer, at: int, end: int) -> int | None:
    """Bytes in the body of the record at a place; None where none can stand."""
    if end - at < _HEAD.size:
        return None
    opcode, size = _HEAD.unpack_from(data, at)
    # Opcodes up to 0x0F are defined, from 0x80 on they are private; between them nothing is
    # defined.
    known = 0 < opcode <= _LAST_OPCODE or opcode >= _FIRST_PRIVATE_OPCODE
    return size if known and size <= end - at - _HEAD.size else None


def _is_end(data: Buffer, at: int) -> bool:
    return data[at : at + len(MCAP_MAGIC)] == MCAP_MAGIC


def _chunk(data: Buffer, at: int, after: int) -> tuple[Buffer, int, int] | None:
    """Where the records of a chunk are; None where the numbers of its head do not fit together."""
    name_at = at + _CHUNK.size
    try:
        name, begin = _text(data, name_at, after)
        (size,) = struct.unpack_from("<Q", data, begin)
    except (ValueError, struct.error):
        return None
    begin += 8
    if begin + size != after:
        return None
    if not name:
        return data, begin, after
    content = _decompressed(data, begin, after)
    return (content, 0, len(content)) if content else None


def _decompressed(data: Buffer, at: int, end: int) -> bytes:
    """What can be read of a compressed frame, up to the first wrong byte."""
    out = bytearray()
    with memoryview(data) as view, view[at:end] as frame:
        try:
            if frame[:4] == _ZSTD:
                with zstandard.ZstdDecompressor().stream_reader(frame) as stream:
                    # In steps, so that what came before a wrong byte is kept, and that a bomb ends
                    # at the limit.
                    while len(out) < _LARGEST_CHUNK and (piece := stream.read(_STEP)):
                        out += piece
            elif frame[:4] == _LZ4:
                decompressor = lz4.frame.LZ4FrameDecompressor()
                source = io.BytesIO(frame)
                while len(out) < _LARGEST_CHUNK and not decompressor.eof:
                    piece = source.read(4096) if decompressor.needs_input else b""
                    if decompressor.needs_input and not piece:
                        break
                    out += decompressor.decompress(piece, max_length=_STEP)
        except (zstandard.ZstdError, RuntimeError, EOFError):
            pass  # what came before is whole
    return bytes(out)


def _parsed(data: Buffer, at: int, after: int) -> Record | None:
    """The record at a place; None where it is of another kind, or no such record."""
    opcode, at = data[at], at + _HEAD.size
    try:
        if opcode == Opcode.MESSAGE and after - at >= _MESSAGE.size:
            channel, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(data, at)
            content = bytes(data[at + _MESSAGE.size : after])
            return Message(channel, log_ns, content, publish_ns, sequence)
        if opcode == Opcode.SCHEMA:
            (number,) = struct.unpack_from("<H", data, at)
            name, at = _text(data, at + 2, after)
            encoding, at = _text(data, at, after)
            text, at = _bytes(data, at, after)
            return Schema(number, text, encoding, name) if at == after and number else None
        if opcode == Opcode.CHANNEL:
            number, schema = struct.unpack_from("<HH", data, at)
            topic, at = _text(data, at + 4, after)
            encoding, at = _text(data, at, after)
            (size,) = struct.unpack_from("<I", data, at)
            at += 4
            if at + size != after:
                return None
            about = {}
            while at < after:
                key, at = _text(data, at, after)
                about[key], at = _text(data, at, after)
            return Channel(number, topic, encoding, about, schema)
    except (ValueError, struct.error):
        return None
    return None


def _bytes(data: Buffer, at: int, end: int) -> tuple[bytes, int]:
    """What stands behind its length, and where it ends."""
    (size,) = struct.unpack_from("<I", data, at)
    after = at + 4 + size
    if after > end:
        raise ValueError("longer than its record")
    return bytes(data[at + 4 : after]), after


def _text(data: Buffer, at: int, end: int) -> tuple[str, int]:
    text, after = _bytes(data, at, end)
    return text.decode(), after
