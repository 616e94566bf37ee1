# SPDX-License-Identifier: Apache-2.0
"""Reading rosbag2 folders with errors that name the bag and the topic."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from heapq import merge
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader
from rosbags.typesys.store import Typestore

from labeldistill_core.errors import BagError
from labeldistill_core.files import refuse_special
from labeldistill_core.names import fault_of_relative_path, shown
from labeldistill_ros.bags.bag_folder import find_files, read_metadata
from labeldistill_ros.bags.decompression import (
    ZSTD_MAGIC,
    bound_chunks,
    decompress_file,
    temporary_folder,
    zstd_bytes,
)
from labeldistill_ros.bags.file_formats import COMPRESSED, refuse_other_kinds
from labeldistill_ros.bags.library_errors import library_reads
from labeldistill_ros.bags.message_types import (
    allow_no_definitions,
    message_type,
    message_type_of_several,
)
from labeldistill_ros.bags.sqlite_files import refuse_odd_tables, refuse_unfinished
from labeldistill_ros.messages.bag_family import layout, typestore

_LOG = logging.getLogger(__name__)
_MOST_TOLD = 5

bound_chunks()


@dataclass(frozen=True)
class Recorded:
    """A message of a bag, not decoded yet."""

    topic: str
    """Name of the topic that the message was published on."""
    msgtype: str
    """Type of the message, such as `std_msgs/msg/String`."""
    stamp_ns: int
    """Log time of the message, in nanoseconds since the epoch."""
    data: bytes
    """The message as CDR bytes."""


class BagReader:
    """A bag that is open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        """Find the files of the bag.

        Args:
            path: folder of the bag, whose metadata may be missing, or a file of it.

        Raises:
            BagError: it is missing, damaged or no bag of ROS 2.
        """
        self.path = Path(path)
        self._stores: dict[str, Typestore] = {}
        if not self.path.exists():
            raise BagError(f"no bag {self.path}: there is no such file or folder")
        refuse_other_kinds(self.path)
        self._files = find_files(self.path)
        if not self._files.paths:
            raise BagError(
                f"{self.path} is no readable bag: it has no file of one, neither .mcap nor .db3"
            )
        for file in self._files.paths:
            refuse_special(file)
            if file.suffix == ".db3":
                refuse_unfinished(file)

    def __enter__(self) -> BagReader:
        """Open the files of the bag."""
        with ExitStack() as stack:
            with library_reads(self.path):
                self._states = _states(self._files.paths)
                # Made where it is needed, since there may be no room for any.
                folder = cache(lambda: Path(stack.enter_context(temporary_folder())))
                readable = [self._readable(file, folder) for file in self._files.paths]
                with allow_no_definitions():
                    self._readers = [stack.enter_context(Reader(file)) for file in readable]
                self._refuse_other_encodings()
            self._tell_disagreements()
            self._open = stack.pop_all()
        return self

    def _readable(self, file: Path, folder: Callable[[], Path]) -> Path:
        """The file as rosbags reads it, in a folder for what has to be made for that."""
        if self._files.compression == "file" or file.suffix == COMPRESSED:
            file = decompress_file(file, folder())
        if file.suffix == ".db3":
            refuse_odd_tables(file)
            # rosbags gives SQLite the path as a URI, in which these have a meaning.
            if set(str(file.absolute())) & set("#%?"):
                link = folder() / f"{len(list(folder().iterdir()))}.db3"
                link.symlink_to(file.absolute())
                return link
        return file

    @property
    def _all(self) -> list[Connection]:
        """Topics of each file."""
        return [connection for reader in self._readers for connection in reader.connections]

    def _refuse_other_encodings(self) -> None:
        for connection in self._all:
            encoding = getattr(connection.ext, "serialization_format", "cdr")
            if encoding != "cdr":
                raise BagError(
                    f"{self.path}: the messages of {shown(connection.topic)} are "
                    f"{shown(str(encoding))}, and those of ROS 2 are CDR: `labeldistill bag "
                    "recover` saves the other topics"
                )

    def _tell_disagreements(self) -> None:
        """Warn of files that the metadata do not tell of as they are; the files are right."""
        if self._files.others:
            names = ", ".join(shown(file.name) for file in self._files.others[:_MOST_TOLD])
            _LOG.warning(
                "%s: %s %s in its folder, but not in its metadata.yaml, and left out",
                self.path,
                names,
                "are" if self._files.others[1:] else "is",
            )
        counts = self.counts()
        if lost := self._message_count - sum(counts.values()):
            _LOG.warning("%s: %d messages are of no topic, and are left out", self.path, lost)
        found = {topic: (kind, counts[topic]) for topic, kind in self.topics.items()}
        told = self._files.counts
        if told is None or told == found:
            return
        odd = sorted(t for t in {*told, *found} if told.get(t) != found.get(t))
        # A recorder knows topics on which nothing came, and a file may not.
        odd = [t for t in odd if t in found or told[t][1]]
        if odd:
            say, has = (
                {one: f"{count} of {shown(kind)}" for one, (kind, count) in counted.items()}
                for counted in (told, found)
            )
            _LOG.warning(
                "%s: its metadata.yaml disagrees with its files, which are used as they are, over "
                "%d topics, such as %s: it tells of %s messages, there are %s",
                self.path,
                len(odd),
                shown(odd[0]),
                say.get(odd[0], "no"),
                has.get(odd[0], "none"),
            )

    def __exit__(self, *_: object) -> None:
        """Close the files of the bag."""
        self._open.close()

    @property
    def topics(self) -> dict[str, str]:
        """Message type of each topic of the bag."""
        return {connection.topic: connection.msgtype for connection in self._all}

    def counts(self) -> dict[str, int]:
        """Number of messages by topic."""
        counts: Counter[str] = Counter()
        for connection in self._all:  # one for each file and topic
            counts[connection.topic] += connection.msgcount
        return dict(counts)

    def qos(self, topic: str) -> Qos | None:
        """The first profile that was offered when the topic was recorded; None when unknown."""
        connection = self._connections([topic])[0]
        profiles = getattr(connection.ext, "offered_qos_profiles", ())
        return profiles[0] if profiles else None

    @property
    def duration_s(self) -> float:
        """Seconds from the first message of the bag to the last."""
        return (self.end_ns - self.begin_ns) / 1e9

    @property
    def begin_ns(self) -> int:
        """Log time of the first message, in nanoseconds since the epoch; 0 without messages."""
        return min((r.start_time for r in self._readers if r.message_count), default=0)

    @property
    def end_ns(self) -> int:
        """Just after the log time of the last message; 0 without messages."""
        return max((r.end_time for r in self._readers if r.message_count), default=0)

    @property
    def _message_count(self) -> int:
        return sum(reader.message_count for reader in self._readers)

    def require(self, *topics: str) -> None:
        """Refuse a bag without these topics.

        Raises:
            BagError: names those that are missing and those that are there.
        """
        if absent := [topic for topic in topics if topic not in self.topics]:
            known = sorted(self.topics)
            there = ", ".join(shown(t) if fault_of_relative_path(t[1:]) else t for t in known[:50])
            there += f" and {len(known) - 50} more" if len(known) > 50 else ""
            raise BagError(
                f"{self.path} lacks the topic {', '.join(absent)}; it has: {there or 'none'}"
            )

    def raw(
        self, topics: Sequence[str] | None = None, span_ns: tuple[int, int] | None = None
    ) -> Iterator[Recorded]:
        """Messages in the order of log time.

        Args:
            topics: names; all when None.
            span_ns: log times from which on, and before which; all when None.

        Raises:
            BagError: a topic is missing, or the file is damaged.
        """
        connections = self._connections(topics)
        if not connections:
            return
        chosen = {connection.topic for connection in connections}
        with library_reads(self.path):
            begin_ns, end_ns = span_ns or (None, None)
            count = 0
            files = [
                reader.messages(own, begin_ns, end_ns)
                for reader in self._readers
                if (own := [one for one in reader.connections if one.topic in chosen])
            ]
            for connection, stamp_ns, data in merge(*files, key=lambda message: message[1]):
                # SQLite has any type in any column, and of a number Python makes as many bytes.
                if not isinstance(stamp_ns, int) or isinstance(data, int | str):
                    raise ValueError(f"a message of {connection.topic} has no bytes or no time")
                data = bytes(data)
                # Whatever the metadata say, if there are any: no CDR begins so.
                if data.startswith(ZSTD_MAGIC):
                    data = zstd_bytes(data)
                count += 1
                yield Recorded(connection.topic, connection.msgtype, stamp_ns, data)
            told = sum(connection.msgcount for connection in connections)
            if span_ns is None and count != told:
                raise ValueError(f"it has {count} messages where its index tells of {told}")
        if _states(self._files.paths) != self._states:
            raise BagError(
                f"{self.path} changed while it was read: wait until nothing writes to it, and "
                "repeat the command"
            )

    def messages(self, topics: Sequence[str]) -> Iterator[tuple[Recorded, Any]]:
        """Decoded messages in the order of log time.

        Raises:
            BagError: a topic is missing, or a message is damaged.
        """
        for recorded in self.raw(topics):
            yield recorded, self.decoded(recorded)

    def decoded(self, recorded: Recorded) -> Any:
        """The message of its CDR bytes.

        Raises:
            BagError: it is damaged, or of a type that has another layout in this bag than in ROS.
        """
        with library_reads(self.path):
            return self._store_of(recorded).deserialize_cdr(recorded.data, recorded.msgtype)

    def _store_of(self, recorded: Recorded) -> Typestore:
        """Whose classes a message gets: those of ROS, or the bag's where ROS has none."""
        kind = recorded.msgtype
        if kind not in self._stores:
            ours, own = typestore(), self._defined(recorded)
            # Layout alone counts: a CameraInfo that was one of ROS 1 may have fields D and K.
            if kind in ours.types and layout(ours, kind) != layout(own, kind):
                raise BagError(
                    f"{self.path}: {shown(kind)} of {recorded.topic} has other fields than in "
                    "ROS 2 Humble and later: it was recorded with another version, so convert the "
                    "bag, or leave the topic out"
                )
            self._stores[kind] = ours if kind in ours.types else own
        return self._stores[kind]

    def _defined(self, recorded: Recorded) -> Typestore:
        """The type of a message as the bag defines it, or where that does not, as ROS does."""
        kind, none = recorded.msgtype, MessageDefinitionFormat.NONE
        known = {c.msgtype: c.msgdef for c in self._all if c.msgdef.format != none}
        texts = {
            name: (one.data, one.format == MessageDefinitionFormat.IDL)
            for name, one in known.items()
        }
        text, idl = texts.get(kind, ("", False))
        # Those of other topics only where its own text is not complete.
        found = message_type(kind, text, idl=idl) or message_type_of_several(kind, texts)
        if found:
            return found.store
        why = "cannot be read, or lacks a type in it," if text else "is not in the bag"
        raise BagError(
            f"{self.path}: the definition of {shown(kind)} {why}, so the messages of "
            f"{shown(recorded.topic)} cannot: leave the topic out"
        )

    def _connections(self, topics: Sequence[str] | None) -> list[Connection]:
        if topics is None:
            return self._all
        self.require(*topics)
        return [connection for connection in self._all if connection.topic in topics]


def _states(files: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What tells whether files are still those that they were."""
    found = [file.stat() for file in files]
    return [(about.st_ino, about.st_size, about.st_mtime_ns) for about in found]


def read_marks(bag: Path) -> dict[str, str]:
    """`custom_data` of a bag's metadata, without a look at its messages.

    Raises:
        BagError: there is no readable metadata.
    """
    marks = read_metadata(bag).get("custom_data") or {}
    if not isinstance(marks, dict):
        raise BagError(f"{bag / 'metadata.yaml'} has custom_data that are no texts by name")
    return {str(key): str(value) for key, value in marks.items()}
