# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 folder that appears under its name only when it is complete."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import zstandard
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.types import typestore

Storage = Literal["mcap", "sqlite3"]

_METADATA_VERSION: Literal[8] = 8  # the newest whose QoS profiles Humble can parse
_WORTH = 0.9
"""A chunk is compressed when no more than this share is left of it."""
_UNLIMITED = QosTime(9223372036, 854775807)


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

    Leaving the context without an exception gives the bag its name; with one, nothing is left.
    """

    def __init__(
        self,
        path: Path,
        *,
        storage: Storage = "mcap",
        zstd: bool = False,
        force: bool = False,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare.

        Args:
            path: folder to make.
            storage: file format inside; Humble reads mcap only with its plugin installed.
            zstd: compress the chunks of an mcap file that get smaller by it.
            force: replace what is there, once the new bag is complete.
            about: goes into `custom_data` of the bag's metadata.

        Raises:
            BagError: something is there already and `force` is not given, or it is no bag, or the
                storage cannot be compressed.
        """
        if zstd and storage != "mcap":
            raise BagError("zstd is for the storage mcap: leave it out, or use --storage mcap")
        self.path, self._zstd, self._about = Path(path), zstd, dict(about or {})
        self._plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._connections: dict[str, Connection] = {}
        self.counts: dict[str, int] = {}
        if self.path.exists() and not force:
            raise BagError(f"{self.path} is there already; use --force to replace it")
        if self.path.exists() and not (self.path / "metadata.yaml").is_file():
            raise BagError(f"{self.path} is no bag, so it is not replaced; choose another name")

    def __enter__(self) -> BagWriter:
        """Open a temporary folder beside the target; what a killed process left there goes."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for left in abandoned(self.path):
                shutil.rmtree(left, ignore_errors=True)
            self._folder = partial_folder(self.path, os.getpid())
            self._folder.mkdir()
            self._writer = Writer(
                self._folder / self.path.name,
                version=_METADATA_VERSION,
                storage_plugin=self._plugin,
            )
            for key, value in self._about.items():
                self._writer.set_custom_data(key, value)
            self._writer.open()
        except OSError as error:
            raise BagError(f"cannot write {self.path}: {error.strerror or error}") from error
        if self._zstd:
            _compress_where_it_helps(self._writer)
        return self

    def write(
        self, topic: str, msgtype: str, message: Any, stamp_ns: int, qos: Qos | None = None
    ) -> None:
        """Add a message.

        Args:
            topic: name.
            msgtype: such as `std_msgs/msg/String`.
            message: of the types of `types.typestore`, or CDR bytes.
            stamp_ns: log time.
            qos: offered profile, recorded with the first message of the topic.

        Raises:
            BagError: nobody here knows the type.
        """
        self.connect(topic, msgtype, qos)
        if not isinstance(message, bytes):
            message = typestore().serialize_cdr(message, msgtype)
        self._writer.write(self._connections[topic], stamp_ns, message)
        self.counts[topic] += 1

    def connect(self, topic: str, msgtype: str, qos: Qos | None = None) -> None:
        """Name a topic, which then is in the bag even without messages."""
        if topic in self._connections:
            return
        if msgtype not in typestore().types:
            raise BagError(f"{topic}: no definition of the type {msgtype} to store in the bag")
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=typestore(), offered_qos_profiles=[qos or reliable()]
        )
        self.counts[topic] = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete or drop the bag.

        Raises:
            BagError: the disk is full, or writing failed otherwise.
        """
        try:
            if kind is None:
                self._writer.close()
                if self.path.exists():
                    shutil.rmtree(self.path)
                (self._folder / self.path.name).rename(self.path)
            else:
                with suppress(Exception):  # only to close the file, which goes away
                    self._writer.abort()
        except OSError as failed:
            error = failed
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise BagError(
                f"cannot write {self.path}: {error.strerror or error}; nothing is left of it, and "
                "what was there before is untouched"
            ) from error


def partial_folder(path: Path, pid: int) -> Path:
    """Where a process keeps a bag until it is complete."""
    return path.parent / f".{path.name}.partial-{pid}"


def abandoned(path: Path) -> list[Path]:
    """Partial folders of a bag whose processes are no more."""
    out = []
    for folder in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            out.append(folder)
    return sorted(out)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _compress_where_it_helps(writer: Writer) -> None:
    """Each chunk of an mcap file names its own compression, so that JPEG can stay as it is."""
    storage: Any = writer.storage

    compressor = zstandard.ZstdCompressor(level=1)

    def compress(data: bytes) -> bytes:
        smaller = compressor.compress(data)
        storage.compression = "zstd" if len(smaller) < _WORTH * len(data) else ""
        return smaller if storage.compression else data

    storage.compressor = compress
