# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 folder that appears under its name only when it is complete."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from labeldistill_core.errors import BagError
from labeldistill_core.names import shown
from labeldistill_ros.bags.message_types import definition
from labeldistill_ros.bags.metadata import METADATA_VERSION, information, metadata_text, qos_text
from labeldistill_ros.bags.partial_folder import REPLACED, PartialFolder
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.storage import Buffer, McapFile, Sqlite3File
from labeldistill_ros.messages.bag_family import typestore

_LOG = logging.getLogger(__name__)

Storage = Literal["mcap", "sqlite3"]


@dataclass(frozen=True, kw_only=True)
class BagOutput:
    """How a bag is written; the options of every command that writes one."""

    storage: Storage = "mcap"
    """File format of the bag; Humble reads mcap only with its plugin installed."""
    force: bool = False
    """Replace a bag that is there already."""


_UNLIMITED = QosTime(9223372036, 854775807)
_NEVER_NS = 2**63 - 1
_OWN_NAME = re.compile(r"metadata\.yaml|.*\.(mcap|db3)(\.zstd|-wal|-shm|-journal)?", re.DOTALL)
"""What a bag's folder has: metadata, and files of messages with what SQLite keeps beside them."""


def reliable(depth: int = 10, *, latched: bool = False) -> Qos:
    """What a player offers: reliable, which every subscriber takes.

    Args:
        depth: of the queue.
        latched: late subscribers get the last messages, as for `/tf_static`.
    """
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _UNLIMITED,
        _UNLIMITED,
        QosLiveliness.AUTOMATIC,
        _UNLIMITED,
        avoid_ros_namespace_conventions=False,
    )


class BagWriter:
    """Writes messages in the order of their calls; a context manager.

    Leaving the context without an exception gives the bag its name; with one, nothing is left of
    what can be had again.
    """

    def __init__(
        self,
        path: Path,
        *,
        storage: Storage = "mcap",
        zstd: bool = False,
        force: bool = False,
        about: Mapping[str, str] | None = None,
        keep: bool = False,
        source: Path | None = None,
    ) -> None:
        """Check that the bag can be written; nothing is made yet.

        Args:
            path: folder to make.
            storage: file format inside; Humble reads mcap only with its plugin installed.
            zstd: compress the chunks of an mcap file that get smaller by it.
            force: replace what is there, once the new bag is complete; an empty bag is replaced
                without.
            about: goes into `custom_data` of the bag's metadata.
            keep: the messages cannot be had again, so what could be written before a failure
                stays in the temporary folder, and no other writer takes it away.
            source: bag that is read meanwhile, which may be what a killed process left of this one.

        Raises:
            BagError: something is there already and `force` is not given, or it is no bag, or the
                storage cannot be compressed or cannot be in such a folder.
        """
        if zstd and storage != "mcap":
            raise BagError("zstd is for the storage mcap: leave it out, or use --storage mcap")
        if "\ufffd" in os.fsencode(Path(path).name).decode(errors="replace"):
            raise BagError(
                f"{path}: a bag's metadata name its files, and this name is no text in UTF-8: "
                "choose another one"
            )
        if Path(path).name in ("", ".."):
            raise BagError(f"{path} is no name of a bag: name the folder that is to be made")
        if storage == "sqlite3" and set(str(Path(path).absolute())) & set("#%?"):
            raise BagError(
                f"{path}: the storage sqlite3 takes its path as a URI, so no #, % or ? may be in "
                "it; choose another name, or --storage mcap"
            )
        self.path, self._storage_name, self._zstd = Path(path), storage, zstd
        self._about, self._keep, self._force = dict(about or {}), keep, force
        self._source = source
        self._topics: dict[str, tuple[Connection, Qos]] = {}
        self._span_ns = (_NEVER_NS, 0)
        self.counts: dict[str, int] = {}
        self._refuse_present()

    def _refuse_present(self) -> None:
        """Refuse to replace what is worth something; asked before the work and at its end."""
        try:
            refuse_others_files(self.path)
            kept = not self._force and _has_messages(self.path)
        except OSError as error:
            raise BagError(f"cannot write {self.path}: {_reason(error)}") from error
        if kept:
            raise BagError(f"{self.path} is there already; use --force to replace it")

    def __enter__(self) -> BagWriter:
        """Open a temporary folder beside the target; see `PartialFolder`."""
        try:
            self._folder = PartialFolder(self.path, disposable=not self._keep, source=self._source)
            self._storage: McapFile | Sqlite3File = (
                McapFile(self._folder.bag, zstd=self._zstd)
                if self._storage_name == "mcap"
                else Sqlite3File(self._folder.bag)
            )
        except (OSError, sqlite3.Error) as error:
            raise BagError(f"cannot write {self.path}: {_reason(error)}") from error
        return self

    def write(
        self, topic: str, msgtype: str, message: Any, stamp_ns: int, qos: Qos | None = None
    ) -> None:
        """Add a message.

        Args:
            topic: name.
            msgtype: such as `std_msgs/msg/String`.
            message: of the family `BAG`, or CDR bytes, or a tuple of their pieces.
            stamp_ns: log time.
            qos: offered profile, recorded with the first message of the topic.

        Raises:
            BagError: nobody here knows the type.
        """
        self.connect(topic, msgtype, qos)
        pieces: tuple[Buffer, ...]
        if isinstance(message, tuple):
            pieces = message
        elif isinstance(message, bytes):
            pieces = (message,)
        else:
            pieces = (typestore().serialize_cdr(message, msgtype),)
        self._storage.write(self._topics[topic][0], stamp_ns, *pieces)
        self._span_ns = (min(self._span_ns[0], stamp_ns), max(self._span_ns[1], stamp_ns))
        self.counts[topic] += 1

    def connect(
        self,
        topic: str,
        msgtype: str,
        qos: Qos | None = None,
        defined: tuple[str, str] | None = None,
    ) -> None:
        """Name a topic, which then is in the bag even without messages.

        Args:
            topic: name.
            msgtype: such as `std_msgs/msg/String`.
            qos: offered profile.
            defined: text and hash of the type's definition; those of this project when None.

        Raises:
            BagError: nobody here knows the type.
        """
        if topic in self._topics:
            return
        if defined is None and msgtype not in typestore().types:
            raise BagError(f"{topic}: no definition of the type {msgtype} to store in the bag")
        (text, digest), qos = defined or definition(msgtype), qos or reliable()
        connection = Connection(
            id=len(self._topics) + 1,
            topic=topic,
            msgtype=msgtype,
            msgdef=MessageDefinition(MessageDefinitionFormat.MSG, text),
            digest=digest,
            msgcount=0,
            ext=ConnectionExtRosbag2("cdr", [qos]),
            owner=None,  # or writer and chunk would live until a search for cycles
        )
        if msgtype not in {known.msgtype for known, _ in self._topics.values()}:
            self._storage.add_msgtype(connection)
        self._storage.add_connection(connection, qos_text(qos))
        self._topics[topic] = (connection, qos)
        self.counts[topic] = 0

    def flush(self) -> None:
        """Make sure that all messages so far can be recovered if the process is killed."""
        self._storage.flush()

    @property
    def partial(self) -> Path:
        """Folder in which the bag is until it is complete."""
        return self._folder.path

    def discard(self) -> None:
        """Leave without a bag, and without a trace of it."""
        with suppress(Exception):  # only to close the file, which goes away
            self._storage.abort()
        self._folder.remove()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete or drop the bag.

        Raises:
            BagError: the disk is full, or writing failed otherwise, or something is under the
                bag's name now that must not be replaced.
        """
        failed = error
        try:
            if kind is None:
                self._complete()
            else:
                with suppress(Exception):  # only to close the file, which goes away
                    self._storage.abort()
        except BaseException as found:
            failed = found
            if not isinstance(found, OSError | sqlite3.Error):
                raise
        finally:
            if failed is None or self._folder.disposable:
                self._folder.remove()
            else:
                self._folder.leave()
        if isinstance(failed, OSError | sqlite3.Error):
            folder = self._folder.path
            left = (
                "nothing is left of it, and what was there before is untouched"
                if self._folder.disposable
                else f"what was written until then is in {folder}: with room for it, "
                f"`labeldistill bag recover {folder} OUT` makes a bag of it"
            )
            raise BagError(f"cannot write {self.path}: {_reason(failed)}; {left}") from failed

    def _complete(self) -> None:
        """Close the file, add the metadata, and give the bag its name."""
        topics = [
            (connection, profile, self.counts[topic])
            for topic, (connection, profile) in self._topics.items()
        ]
        span_ns = self._span_ns if any(self.counts.values()) else (0, 0)
        file = self._storage.path.name
        text = metadata_text(self._storage_name, file, topics, span_ns, self._about)
        self._storage.close(METADATA_VERSION, information(text))
        bag = self._folder.bag
        (bag / "metadata.yaml").write_text(text, encoding="utf-8")
        try:
            self._refuse_present()
        except BagError as error:
            self._folder.keep()
            raise BagError(
                f"{error}; it came while this bag was written, which is complete in {bag}: move it "
                "from there"
            ) from error
        if not os.path.lexists(self.path):
            bag.rename(self.path)
            return
        try:
            # Between the two names, or if the process is killed there, both bags are in the folder
            # alone.
            self._folder.keep()
            self.path.rename(self._replaced)
            bag.rename(self.path)
        except BaseException:
            if os.path.lexists(self._replaced) and not os.path.lexists(self.path):
                with suppress(OSError):
                    self._replaced.rename(self.path)
            if os.path.lexists(self._replaced):
                _LOG.error("%s: what was there before is in %s", self.path, self._replaced)
            elif not self._keep:
                self._folder.dispose()
            raise
        self._folder.dispose()

    @property
    def _replaced(self) -> Path:
        """Where the bag that is replaced is until the new one has its name."""
        return self._folder.path / f"{self.path.name}{REPLACED}"


def _reason(error: OSError | sqlite3.Error) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def refuse_others_files(path: Path) -> None:
    """Refuse to replace what is no bag, or a bag's folder that holds files of others.

    Raises:
        BagError: names what would be lost.
    """
    if os.path.lexists(path) and (why := _why_not_replaceable(path)):
        raise BagError(f"{path} {why}")


def _why_not_replaceable(path: Path) -> str:
    """Empty for a bag, complete or cut off, and a folder of nothing but files of one, or none."""
    files = list(path.iterdir()) if path.is_dir() else []
    others = [file for file in files if not (file.is_file() and _OWN_NAME.fullmatch(file.name))]
    empty = path.is_dir() and not files
    # Another folder takes its place, which a mounted disk or the end of a link does not allow.
    if os.path.ismount(path) or (empty and path.is_symlink()):
        return "cannot be replaced by a folder: name one within it"
    if not empty and len(others) == len(files):
        return "is no bag, so it is not replaced; choose another name"
    if others:
        return (
            f"holds {shown(others[0].name)}, which is no part of a bag and would be lost: move it "
            "away, or choose another name"
        )
    return ""


def _has_messages(path: Path) -> bool:
    """Whether what is there may be worth something: unless it is a bag that has no message."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return False
    try:
        with BagReader(path) as bag:
            return any(bag.counts().values())
    except BagError:
        return True
