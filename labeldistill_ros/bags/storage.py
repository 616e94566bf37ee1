# SPDX-License-Identifier: Apache-2.0
"""The files inside a bag: the library's formats, written without needless copies.

`rosbags` copies each message six times on its way into an MCAP file, which is most of what images
cost. Here a message is copied once, into a chunk whose memory is used again, and goes to the file
from there. Both formats can be flushed, after which a killed process has lost nothing of what was
written before.

The public writer of the library mcap was measured too: of 180 MB of images, it takes 215 ms of a
core, rosbags' writer 219 ms, and this one 65 ms. That decides while a recording shares the
machine with a detector. What is used of rosbags' writers is not documented, so `setup.py` keeps
rosbags below the next minor version, and a test compares the files with those that they write.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from io import BytesIO
from pathlib import Path

import zstandard
from rosbags.interfaces import Connection
from rosbags.rosbag2.enums import CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

Buffer = bytes | memoryview

_MESSAGE, _CHUNK, _MESSAGE_INDEX = 0x05, 0x06, 0x07  # opcodes of the MCAP specification
_CHUNK_BYTES = 2**20
_WORTH = 0.9
"""A chunk is compressed when no more than this share is left of it."""
_NEVER_NS = 2**63 - 1


class McapFile(McapWriter):
    """An MCAP file in chunks with an index."""

    def __init__(self, folder: Path, *, zstd: bool = False) -> None:
        """Make `folder/<name>.mcap`.

        Args:
            folder: of the bag.
            zstd: compress the chunks that get smaller by it; JPEG does not.
        """
        super().__init__(folder, CompressionMode.NONE)
        self._zstd = zstandard.ZstdCompressor(level=1) if zstd else None
        self._index: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def write(self, connection: Connection, timestamp: int, *data: Buffer) -> None:
        """Add a message to the chunk, and write the chunk when it is large enough.

        Args:
            connection: topic, added before.
            timestamp: log time in nanoseconds.
            data: CDR, in one piece or in several.
        """
        # Only the chunk's memory is touched here; the file sees whole chunks.
        chunk, size = self.chunk.bio, sum(map(len, data))
        self._index[connection.id].append((timestamp, chunk.tell()))
        stamps = (timestamp, timestamp)
        # Opcode, length of the record, channel, sequence number, log time and time of publishing.
        chunk.write(struct.pack("<BQHIQQ", _MESSAGE, 22 + size, connection.id, 0, *stamps))
        chunk.writelines(data)
        self.channel_stats[connection.id] += 1
        if chunk.tell() > _CHUNK_BYTES:
            self.close_chunk()

    def close_chunk(self) -> None:
        """Give the chunk to the file, with its index."""
        size = self.chunk.bio.tell()
        with self.chunk.bio.getbuffer() as memory, memory[:size] as chunk:
            if self._index:
                self._store(chunk)
            else:  # topics without messages; rosbag2 plays no file that has a chunk without index
                self.bio.write(chunk)
        # what follows overwrites it: new memory for each chunk would cost as much as the copy
        self.chunk.bio.seek(0)
        self._index.clear()

    def _store(self, chunk: memoryview) -> None:
        size = len(chunk)
        stored: Buffer = chunk
        compression = ""
        # Each chunk is tried: JPEG does not get smaller, and every reader would pay for nothing.
        if self._zstd and len(smaller := self._zstd.compress(chunk)) < _WORTH * size:
            stored, compression = smaller, "zstd"
        stamps = [stamp_ns for found in self._index.values() for stamp_ns, _ in found]
        begin_ns, end_ns = min(stamps), max(stamps)
        name = struct.pack("<I", len(compression)) + compression.encode()
        head = struct.pack("<QQQI", begin_ns, end_ns, size, 0) + name  # 0: no checksum
        head += struct.pack("<Q", len(stored))

        start = self.bio.tell()
        self.bio.write(struct.pack("<BQ", _CHUNK, len(head) + len(stored)) + head)
        self.bio.write(stored)
        end = offset = self.bio.tell()
        offsets = b""
        for channel, found in self._index.items():
            rows = b"".join(struct.pack("<QQ", *row) for row in found)
            record = struct.pack("<BQHI", _MESSAGE_INDEX, 6 + len(rows), channel, len(rows)) + rows
            self.bio.write(record)
            offsets += struct.pack("<HQ", channel, offset)
            offset += len(record)
        # The library writes these chunk indexes into the summary section when it closes the file.
        index = BytesIO()
        index.write(struct.pack("<QQQQI", begin_ns, end_ns, start, end - start, len(offsets)))
        index.write(offsets + struct.pack("<Q", offset - end) + name)
        index.write(struct.pack("<QQ", len(stored), size))
        self.chunks.append(index)
        self.message_start_time = min(self.message_start_time, begin_ns)
        self.message_end_time = max(self.message_end_time, end_ns)

    def flush(self) -> None:
        """Give everything to the operating system."""
        if self.chunk.bio.tell():
            self.close_chunk()
        self.bio.flush()

    def close(self, version: int, metadata: str) -> None:
        """Write the index and the footer."""
        self.flush()
        if self.message_start_time == _NEVER_NS:
            self.message_start_time = 0
        super().close(version, metadata)


class Sqlite3File(Sqlite3Writer):
    """An SQLite file with the tables of rosbag2."""

    def __init__(self, folder: Path) -> None:
        """Make `folder/<name>.db3`."""
        super().__init__(folder, CompressionMode.NONE)

    def write(self, connection: Connection, timestamp: int, *data: Buffer) -> None:
        """Add a message; see `McapFile.write`."""
        super().write(connection, timestamp, data[0] if len(data) == 1 else b"".join(data))

    def flush(self) -> None:
        """Commit what was written, so that another process can read it."""
        self.conn.commit()
