# SPDX-License-Identifier: Apache-2.0
"""Whole messages out of the damaged files of a bag, each with the topic that it belongs to."""

from __future__ import annotations

import logging
import mmap
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.records import Channel, Message, Schema
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos

from labeldistill_core.names import shown
from labeldistill_ros.bags.decompression import (
    ZSTD_MAGIC,
    decompress_file,
    temporary_folder,
    zstd_bytes,
)
from labeldistill_ros.bags.file_formats import COMPRESSED
from labeldistill_ros.bags.library_errors import DAMAGED, reason
from labeldistill_ros.bags.mcap_walk import Walk
from labeldistill_ros.bags.message_types import MessageType, message_type, message_type_of_several
from labeldistill_ros.bags.sqlite_files import opened, refuse_odd_tables

_LOG = logging.getLogger(__name__)

_TOPIC = re.compile(r"[\w/~]{1,255}", re.ASCII)
_TYPE = re.compile(r"\w{1,100}(/\w{1,100}){1,2}", re.ASCII)
_LAST_STAMP_NS = 2**31 * 10**9 - 1
"""The last that `builtin_interfaces/Time` can tell."""
_DAY_NS = 86_400 * 10**9
_LEAST_KEY, _LARGEST_KEY = -(2**63), 2**63 - 1
_MOST_GAPS = 2**16
"""So many rows of a table are looked for one by one behind a damaged page."""


@dataclass(frozen=True, eq=False)
class Topic:
    """A topic as a bag tells of it."""

    name: str
    """Full name of the topic, with its leading slash."""
    kinds: tuple[MessageType, ...]
    """Type of the topic's messages, as ROS defines it and as the bag does, if these differ."""
    qos: Qos | None
    """Profile that was offered when it was recorded; None when unknown."""

    def whole(self, data: bytes) -> tuple[MessageType, bytes] | None:
        """The type by which a message decodes, and the message; None if it does by none.

        That of ROS first: a wrong byte in the bag's definition may change no more than the name of
        a field, and two definitions of one type make a bag that nobody reads.

        Args:
            data: CDR, which rosbag2 may have compressed by itself.
        """
        if data.startswith(ZSTD_MAGIC):  # no CDR begins so
            try:
                data = zstd_bytes(data)
            except DAMAGED:
                return None
        kind = next((kind for kind in self.kinds if kind.decodes(data)), None)
        return None if kind is None else (kind, data)


@dataclass
class Losses:
    """What a file has that cannot be saved."""

    messages: int = 0
    """Number of messages that do not decode, or whose topic is unknown."""
    untimely: int = 0
    """Number of messages at times that ROS cannot tell."""
    places: int = 0
    """Number of places where the structure of the file is broken."""
    topics: dict[str, str] = field(default_factory=dict)
    """Why messages of a topic cannot be saved, by its name."""
    of_topics: Counter[str] = field(default_factory=Counter)
    """Number of messages of these topics that cannot be saved."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Topic under which the messages of another one are saved, by the name of that."""

    def told(self) -> list[str]:
        """A sentence for each kind of loss."""
        texts = [
            f"{shown(topic)} is left out, with {self.of_topics[topic]} messages: {why}"
            for topic, why in self.topics.items()
            if self.of_topics[topic]
        ]
        texts += [
            f"{shown(topic)} is left out: its messages are also said to be those of "
            f"{shown(known)}, under which they are saved"
            for topic, known in self.renamed.items()
        ]
        if self.places:
            texts.append(f"it is damaged or cut off at {self.places} places")
        if self.messages:
            texts.append(f"{self.messages} messages that are not whole are left out")
        if self.untimely:
            texts.append(
                f"{self.untimely} messages are left out whose time is before 1970 or after 2038, "
                "which ROS cannot tell"
            )
        return texts

    def leave_out(self, topic: str, why: str) -> None:
        """A message of a topic cannot be saved."""
        self.topics[topic] = why
        self.of_topics[topic] += 1


Whole = tuple[Topic, MessageType, int, bytes]
"""A message with its topic, its type and its log time in nanoseconds."""


def whole_messages(file: Path, losses: Losses) -> Iterator[Whole]:
    """Every whole message of a file, in its order.

    Args:
        file: an `.mcap` or `.db3` file, of which anything may be wrong, or one of these that is
            compressed as a whole.
        losses: are added to.

    Raises:
        BagError: there is no room for a copy of a file that cannot be read where it is.
    """
    with ExitStack() as stack:
        plain = file
        if file.suffix == COMPRESSED:
            folder = Path(stack.enter_context(temporary_folder()))
            plain = folder / file.stem
            try:
                decompress_file(file, folder)
            except DAMAGED as error:  # what comes before the damage is written
                losses.places += 1
                _LOG.warning("%s: %s", file, reason(error))
                if not plain.exists():
                    return
        try:
            yield from (_of_mcap if plain.suffix == ".mcap" else _of_sqlite3)(plain, losses)
        except (OSError, sqlite3.Error) as error:
            losses.places += 1
            _LOG.warning("%s: %s", file, reason(error))


def _of_mcap(file: Path, losses: Losses) -> Iterator[Whole]:
    with file.open("rb") as stream:
        if not file.stat().st_size:
            losses.places += 1
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # topics first: they stand at the head and, in a complete file, once more at the end
            topics = _mcap_topics(data, losses)

            def is_whole(message: Message) -> bool:
                topic = topics.get(message.channel_id)
                return isinstance(topic, Topic) and topic.whole(message.data) is not None

            walk, newest_ns = Walk(is_whole), 0
            for record in walk.file(data):
                if not isinstance(record, Message):
                    continue
                stamp_ns = _stamp_ns(record, newest_ns)
                if whole := _whole(topics.get(record.channel_id), stamp_ns, record.data, losses):
                    newest_ns = whole[2]
                    yield whole
            losses.places += walk.damages


def _whole(topic: Topic | str | None, stamp_ns: Any, data: Any, losses: Losses) -> Whole | None:
    """A message with its topic, or the topic's name if that is left out; None if not whole."""
    if isinstance(topic, str):
        losses.of_topics[topic] += 1
        return None
    found = topic.whole(data) if topic and isinstance(data, bytes) else None
    if topic is None or found is None or not isinstance(stamp_ns, int):
        losses.messages += 1
        return None
    if not 0 <= stamp_ns <= _LAST_STAMP_NS:
        losses.untimely += 1
        return None
    kind, data = found
    return topic, kind, stamp_ns, data


def _mcap_topics(data: mmap.mmap, losses: Losses) -> dict[int, Topic | str]:
    kinds: dict[int, MessageType] = {}
    names: dict[int, str] = {}
    texts: dict[str, tuple[str, bool]] = {}
    channels: dict[int, list[Channel]] = {}
    for record in Walk().file(data):
        if isinstance(record, Schema):
            if record.id not in kinds or not kinds[record.id].is_ours:
                idl = record.encoding in ("ros2idl", "omgidl")
                kind = _kind(record.name, record.data, idl=idl)
                names.setdefault(record.id, record.name)
                if kind or record.name not in texts:
                    texts[record.name] = record.data.decode(errors="replace"), idl
                # of two copies, one of which may have a wrong byte, that which is known here
                if kind and (record.id not in kinds or kind.is_ours):
                    kinds[record.id] = kind
        elif isinstance(record, Channel):
            same = channels.setdefault(record.id, [])
            if record not in same and len(same) < 2:
                same.append(record)
    topics: dict[int, Topic | str] = {}
    for number, copies in channels.items():
        if len({copy.topic for copy in copies}) > 1:
            # One has a wrong byte. Recorders also write the topics' names as text, so that the
            # right one stands there once more.
            copies.sort(key=lambda copy: -sum(1 for _ in re.finditer(_name(copy), data)))
        for channel in copies:
            if channel.message_encoding != "cdr":
                if channel.message_encoding in ("protobuf", "json", "ros1", "flatbuffer", "cbor"):
                    losses.topics[channel.topic] = (
                        f"its messages are {channel.message_encoding}, and those of ROS 2 are CDR"
                    )
                    topics.setdefault(number, channel.topic)
                continue
            topic = _topic(
                channel.topic,
                kinds.get(channel.schema_id)
                or message_type_of_several(names.get(channel.schema_id, ""), texts),
                channel.metadata.get("offered_qos_profiles", ""),
                losses,
            )
            known = topics.get(number)
            if not isinstance(known, Topic):
                topics[number] = topic
            elif isinstance(topic, Topic) and known.name != topic.name:
                losses.renamed[topic.name] = known.name
    return topics


def _name(channel: Channel) -> bytes:
    return re.escape(channel.topic.encode())


def _stamp_ns(message: Message, newest_ns: int) -> int:
    """Log time of a message; the time of publishing, where the former is far from its neighbours'.

    Recorders write both, and they differ by little, so one that is off by days has a wrong byte.
    """
    stamps = [ns for ns in (message.log_time, message.publish_time) if ns <= _LAST_STAMP_NS]
    if not stamps:
        return int(message.log_time)
    if newest_ns and abs(stamps[0] - stamps[-1]) > _DAY_NS:
        return min(stamps, key=lambda ns: abs(ns - newest_ns))
    return stamps[0]


def _of_sqlite3(file: Path, losses: Losses) -> Iterator[Whole]:
    with suppress(sqlite3.Error):  # of a file whose list of tables is damaged
        refuse_odd_tables(file)
    with opened(file) as base:
        base.text_factory = lambda data: data.decode(errors="replace")
        base.execute("PRAGMA writable_schema = ON")  # else a file that is too short is refused
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        texts = {
            str(kind): (str(text), encoding == "ros2idl")
            for kind, encoding, text in _rows(base, query)
        }
        topics: dict[Any, Topic | str] = {}
        # The first bags of ROS 2 told of no profiles.
        profiles = dict(_rows(base, "SELECT id, offered_qos_profiles FROM topics"))
        for number, name, kind in _rows(base, "SELECT id, name, type FROM topics"):
            text, idl = texts.get(str(kind), ("", False))
            found = _kind(str(kind), text, idl=idl) or message_type_of_several(str(kind), texts)
            topics[number] = _topic(str(name), found, str(profiles.get(number, "")), losses)
        for number, stamp_ns, data in _messages(base, losses):
            if whole := _whole(topics.get(number), stamp_ns, data, losses):
                yield whole


def _rows(base: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Rows up to the first that cannot be read; a table may be missing, too."""
    try:
        yield from base.execute(query)
    except sqlite3.Error as error:
        _LOG.debug("%s: %s", query, error)


_ROWS = "SELECT id, topic_id, timestamp, data FROM messages WHERE id"


def _messages(base: sqlite3.Connection, losses: Losses) -> Iterator[tuple[Any, Any, Any]]:
    """Rows of the messages; behind a damaged page, the next that can be read."""
    last = _LEAST_KEY
    while True:
        try:
            for row in base.execute(f"{_ROWS} > ? ORDER BY id", (last,)):
                # A damaged page may hold keys that go back, and would be read for ever.
                if row[0] <= last:
                    losses.places += 1
                    break
                last = row[0]
                yield row[1:]
            else:
                return
        except sqlite3.Error:
            losses.places += 1
        found = _next_readable(base, last)
        if found is None:
            return
        last = found[0]
        yield found[1:]


def _next_readable(base: sqlite3.Connection, last: int) -> Any:
    """First row behind `last` that can be read, looked for one by one; None if there is none."""
    try:
        # SQLite finds the largest key at the end of its tree, without a look at the damaged page.
        (end,) = base.execute("SELECT max(id) FROM messages").fetchone()
    except sqlite3.Error:
        end = None
    # A largest key that is damaged, too, may be any number.
    for number in range(last + 1, min(end or _LARGEST_KEY, last + _MOST_GAPS) + 1):
        try:
            for row in base.execute(f"{_ROWS} = ?", (number,)):
                return row
        except sqlite3.Error:
            continue
    return None


def _kind(name: str, text: str | bytes, *, idl: bool = False) -> MessageType | None:
    if not _TYPE.fullmatch(name):
        return None
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return message_type(name, text, idl=idl)


def _topic(name: str, kind: MessageType | None, qos: str, losses: Losses) -> Topic | str:
    """A topic, or its name if it has to be left out."""
    if not _TOPIC.fullmatch(name):
        losses.topics[name] = "ROS has no topics of such names"
        return name
    if kind is None:
        losses.topics[name] = "the definition of its type is not in the bag, or cannot be read"
        return name
    try:
        profiles = parse_qos(qos)
    except DAMAGED:
        profiles = []
    ours = None if kind.is_ours else message_type(kind.name, "")
    return Topic(name, (ours, kind) if ours else (kind,), profiles[0] if profiles else None)
