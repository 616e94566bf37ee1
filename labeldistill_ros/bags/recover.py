# SPDX-License-Identifier: Apache-2.0
"""What is whole of a bag that was cut off: a killed recording, a truncated file, a full disk."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard
from mcap.exceptions import EndOfFile, McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.types import learn
from labeldistill_ros.bags.writer import BagWriter, Storage, abandoned

_LOG = logging.getLogger(__name__)
_CUT_OFF = (McapError, struct.error, zstandard.ZstdError, OSError, ValueError, sqlite3.Error)

_CHUNK_HEAD = struct.Struct("<BQQQQII")  # opcode, length, three numbers, checksum, name's length


@dataclass(frozen=True)
class _Topic:
    name: str
    msgtype: str
    definition: str
    qos: Qos | None


def recover(
    source: Path, out: Path, *, storage: Storage = "mcap", force: bool = False
) -> dict[str, int]:
    """Write a bag with every whole message of a damaged one, which stays as it is.

    Args:
        source: folder of a bag, of which the metadata may be missing, or a file of one.
        out: folder of the bag to write.
        storage: its file format.
        force: replace a bag that is there.

    Returns:
        Messages by topic.

    Raises:
        BagError: there is no file of a bag, none has a whole message, or `out` cannot be written.
    """
    files = sorted(p for p in (source, *source.rglob("*")) if p.suffix in (".mcap", ".db3"))
    if not files:
        raise BagError(f"{source} has no file of a bag, neither .mcap nor .db3")
    with BagWriter(out, storage=storage, force=force) as bag:
        for file in files:
            read = _mcap if file.suffix == ".mcap" else _sqlite3
            for topic, stamp_ns, data in read(file):
                learn(topic.msgtype, topic.definition)
                bag.write(topic.name, topic.msgtype, data, stamp_ns, topic.qos)
        if not sum(bag.counts.values()):
            raise BagError(f"{source}: no message in it is whole")
    return dict(bag.counts)


def recover_abandoned(path: Path, storage: Storage = "mcap") -> list[Path]:
    """Make bags of what killed recordings left of `path`, beside it; their names.

    What has no whole message is left for the next writer to clear away.
    """
    made = []
    for left in abandoned(path):
        names = (path.with_name(f"{path.name}.recovered-{n}") for n in range(1, 10_000))
        out = next(name for name in names if not name.exists())
        try:
            counts = recover(left, out, storage=storage)
        except BagError as error:
            _LOG.warning("nothing recovered: %s", error)
            continue
        shutil.rmtree(left)
        made.append(out)
        _LOG.warning(
            "an earlier recording was cut off: its %d messages are in %s", sum(counts.values()), out
        )
    return made


def _mcap(file: Path) -> Iterator[tuple[_Topic, int, bytes]]:
    schemas: dict[int, Schema] = {}
    topics: dict[int, _Topic] = {}
    try:
        with file.open("rb") as stream:
            for record in _records(stream):
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    schema, qos = schemas[record.schema_id], record.metadata
                    profiles = parse_qos(qos.get("offered_qos_profiles", ""))
                    topics[record.id] = _Topic(
                        record.topic, schema.name, schema.data.decode(), (*profiles, None)[0]
                    )
                elif isinstance(record, Message):
                    yield topics[record.channel_id], record.log_time, record.data
    except _CUT_OFF as error:
        _LOG.warning("%s ends too early: %s", file, error or type(error).__name__)


def _records(stream: BinaryIO) -> Iterator[McapRecord]:
    """Of an MCAP file, as far as they are whole; also of a chunk that is not."""
    end = 0
    try:
        for record in StreamReader(stream, emit_chunks=True).records:
            yield from breakup_chunk(record) if isinstance(record, Chunk) else (record,)
            end = stream.tell()
    except EndOfFile:
        stream.seek(end)
        head = stream.read(_CHUNK_HEAD.size)
        if len(head) < _CHUNK_HEAD.size:
            raise
        opcode, *_, name_length = _CHUNK_HEAD.unpack(head)
        if opcode != Opcode.CHUNK or name_length:  # what is compressed comes whole or not at all
            raise
        stream.seek(8, os.SEEK_CUR)
        yield from StreamReader(stream, skip_magic=True).records


def _sqlite3(file: Path) -> Iterator[tuple[_Topic, int, bytes]]:
    try:
        with closing(sqlite3.connect(file)) as base:
            base.execute("PRAGMA writable_schema = ON")  # else a file that is too short is refused
            texts = dict(
                base.execute(
                    "SELECT topic_type, encoded_message_definition FROM message_definitions"
                )
            )
            topics = {
                number: _Topic(name, kind, texts.get(kind, ""), (*parse_qos(qos), None)[0])
                for number, name, kind, qos in base.execute(
                    "SELECT id, name, type, offered_qos_profiles FROM topics"
                )
            }
            rows = base.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            for number, stamp_ns, data in rows:
                yield topics[number], stamp_ns, data
    except _CUT_OFF as error:
        _LOG.warning("%s ends too early: %s", file, error)
