# SPDX-License-Identifier: Apache-2.0
"""Reading rosbag2 folders with errors that name the bag and the topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, Qos

from labeldistill_core.errors import BagError
from labeldistill_core.names import fault_of_relative_path, shown
from labeldistill_ros.bags.file_formats import SUFFIXES, refuse_other_kinds
from labeldistill_ros.bags.library_errors import library_reads
from labeldistill_ros.messages.bag_family import typestore


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
        if not self.path.exists():
            raise BagError(f"no bag {self.path}: there is no such file or folder")
        refuse_other_kinds(self.path)
        folder = self.path.is_dir()
        paths = [self.path]
        # The metadata are written last, so a recording that was killed has none; its files still
        # tell all.
        if folder and not (self.path / "metadata.yaml").exists() and (files := self._own_files()):
            paths = files
        with library_reads(self.path):
            self._reader = AnyReader(paths, default_typestore=typestore())

    def __enter__(self) -> BagReader:
        """Open the files of the bag."""
        with library_reads(self.path):
            self._reader.open()
            # `ros2 bag reindex` writes metadata that name neither topics nor files
            if not self._reader.message_count and (files := self._own_files()):
                self._reader.close()
                self._reader = AnyReader(files, default_typestore=typestore())
                self._reader.open()
        return self

    def _own_files(self) -> list[Path]:
        """Files in the folder of the bag, which its metadata need not name."""
        return sorted(p for p in self.path.glob("*") if p.suffix in SUFFIXES and p.is_file())

    def __exit__(self, *_: object) -> None:
        """Close the files of the bag."""
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Message type of each topic of the bag."""
        return {connection.topic: connection.msgtype for connection in self._reader.connections}

    def counts(self) -> dict[str, int]:
        """Number of messages by topic."""
        return {connection.topic: connection.msgcount for connection in self._reader.connections}

    def qos(self, topic: str) -> Qos | None:
        """The first profile that was offered when the topic was recorded; None when unknown."""
        connection = self._connections([topic])[0]
        profiles = getattr(connection.ext, "offered_qos_profiles", ())
        return profiles[0] if profiles else None

    @property
    def duration_s(self) -> float:
        """Seconds from the first message of the bag to the last."""
        return self._reader.duration / 1e9

    @property
    def begin_ns(self) -> int:
        """Log time of the first message, in nanoseconds since the epoch; 0 without messages."""
        return self._reader.start_time if self._reader.message_count else 0

    @property
    def end_ns(self) -> int:
        """Just after the log time of the last message; 0 without messages."""
        return self._reader.end_time if self._reader.message_count else 0

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
        with library_reads(self.path):
            begin_ns, end_ns = span_ns or (None, None)
            for connection, stamp_ns, data in self._reader.messages(connections, begin_ns, end_ns):
                yield Recorded(connection.topic, connection.msgtype, stamp_ns, bytes(data))

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
            BagError: it is damaged.
        """
        with library_reads(self.path):
            return self._reader.deserialize(recorded.data, recorded.msgtype)

    def _connections(self, topics: Sequence[str] | None) -> list[Connection]:
        if topics is None:
            return list(self._reader.connections)
        self.require(*topics)
        return [c for c in self._reader.connections if c.topic in topics]


def read_marks(bag: Path) -> dict[str, str]:
    """`custom_data` of a bag's metadata, without a look at its messages.

    Raises:
        BagError: there is no readable metadata.
    """
    path = bag / "metadata.yaml"
    with library_reads(bag):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        try:
            return dict(content["rosbag2_bagfile_information"].get("custom_data") or {})
        except (KeyError, TypeError, AttributeError) as error:
            raise BagError(f"{path} is no metadata of a bag") from error
