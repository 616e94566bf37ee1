# SPDX-License-Identifier: Apache-2.0
"""The files inside a bag are those that rosbags' own writers make of the same messages.

`bags/storage.py` works on attributes of these writers that are not documented; a new version that
changes them, or what they write, shows here.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Header, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag2.enums import CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.message_types import definition
from labeldistill_ros.bags.metadata import METADATA_VERSION, qos_text
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.storage import McapFile, Sqlite3File
from labeldistill_ros.bags.writer import BagWriter, reliable
from labeldistill_ros.messages.bag_family import BAG

KINDS = {"/text": "std_msgs/msg/String", "/more": "std_msgs/msg/String", "/n": "std_msgs/msg/Int32"}


def written(writer: Any) -> Path:
    """A file of three topics whose messages are large enough for two chunks."""
    topics = {}
    for number, (topic, kind) in enumerate(KINDS.items(), start=1):
        text, digest = definition(kind)
        msgdef = MessageDefinition(MessageDefinitionFormat.MSG, text)
        ext = ConnectionExtRosbag2("cdr", [reliable()])
        topics[topic] = Connection(number, topic, kind, msgdef, digest, 0, ext, None)
    writer.add_msgtype(topics["/text"])
    writer.add_msgtype(topics["/n"])
    for connection in topics.values():
        writer.add_connection(connection, qos_text(reliable()))
    for stamp_ns in range(1_000, 1_012):
        for topic in ("/text", "/more"):
            writer.write(topics[topic], stamp_ns, bytes([stamp_ns % 256]) * 100_000)
    writer.close(METADATA_VERSION, "the: metadata\n")
    path: Path = writer.path
    return path


def mcap_content(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        records = [
            inner
            for record in StreamReader(file, emit_chunks=True).records
            for inner in (breakup_chunk(record) if isinstance(record, Chunk) else [record])
        ]
        file.seek(0)
        reader = make_reader(file)
        summary = reader.get_summary()
        assert summary is not None
        return {
            "data": [r for r in records if isinstance(r, Header | Schema | Channel | Message)],
            "statistics": summary.statistics,
            "chunks": [
                (c.message_start_time, c.message_end_time, c.compression, c.uncompressed_size)
                for c in summary.chunk_indexes
            ],
            "metadata": list(reader.iter_metadata()),
            "found": [(c.topic, m.log_time) for _, c, m in reader.iter_messages(["/more"])],
        }


def test_an_mcap_file_is_that_of_the_library(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "bag").mkdir(parents=True)
    theirs = mcap_content(written(McapWriter(tmp_path / "a/bag", CompressionMode.NONE)))
    ours = mcap_content(written(McapFile(tmp_path / "b/bag")))
    assert len(ours["chunks"]) > 1
    assert len(ours["found"]) == 12
    assert ours == theirs


def test_an_sqlite3_file_is_that_of_the_library(tmp_path: Path) -> None:
    dumps = []
    for name, kind in (("a", Sqlite3Writer), ("b", Sqlite3File)):
        (tmp_path / name / "bag").mkdir(parents=True)
        arguments = (CompressionMode.NONE,) if kind is Sqlite3Writer else ()
        path = written(kind(tmp_path / name / "bag", *arguments))
        with closing(sqlite3.connect(path)) as base:
            dumps.append(list(base.iterdump()))
    assert len(dumps[0]) > 24
    assert dumps[0] == dumps[1]


def test_a_damaged_compressed_chunk_is_named(tmp_path: Path) -> None:
    kind = "std_msgs/msg/String"
    with BagWriter(tmp_path / "bag", zstd=True) as writer:
        for i in range(1000):
            writer.write("/text", kind, BAG.make(kind, data=f"{i} and the same again" * 5), i)
    path = tmp_path / "bag/bag.mcap"
    data = bytearray(path.read_bytes())
    begin = data.index(b"\x28\xb5\x2f\xfd") + 8  # behind the magic of a zstd frame
    for i in range(begin, begin + 400):
        data[i] ^= 0x5A
    path.write_bytes(data)
    with BagReader(tmp_path / "bag") as reader, pytest.raises(BagError, match="no readable bag"):
        list(reader.raw())
