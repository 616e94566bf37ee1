# SPDX-License-Identifier: Apache-2.0
"""Outputs of a frozen teacher on disk, one file for each teacher, shared by all processes.

A header, then records of one size: key, check sum, half-precision tensors. Records are only added
under the folder's lock, so a process that is killed leaves whole ones behind. A record that is
damaged counts as absent and is written anew. LMDB would do as much, but a database that was cut
short ends the process that reads it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from labeldistill_core.checked_header import packed_header, read_header
from labeldistill_core.errors import DataError
from labeldistill_core.files import refuse_special, write_whole

_LOG = logging.getLogger(__name__)

FORMAT = 1
"""Of the file, and of what a teacher computes from the same points; part of the file's name."""
_MARK = b"LDTEACH\n"
_RECORD = struct.Struct("<16sI")
_BLOCK = 1 << 16
"""Header and records are multiples of it, since what is mapped begins at a page, of 64 KiB at most.
"""
_PAYLOAD = 64
"""Where the tensors of a record begin."""
_RESERVE_BYTES = 1 << 30
"""Of the disk, which checkpoints need more."""
_LONGEST_WAIT_S = 60.0
"""For other processes that write a record, which takes milliseconds."""
_SUFFIX = ".outputs"

Shapes = tuple[tuple[int, ...], ...]
"""Of the tensors of one sample."""


class OutputCache:
    """Tensors of one sample by key; safe when several processes read and write.

    What cannot be kept is told once, in a warning, and costs only time: the cache then holds what
    it held before.
    """

    def __init__(self, folder: Path, identity: Sequence[str], limit_bytes: int) -> None:
        """Open or begin the file of one teacher.

        Args:
            folder: of the files of all teachers.
            identity: what the outputs depend on beside the key.
            limit_bytes: for the files of all teachers; those that were not used for longest and
                that nobody uses go first.
        """
        name = hashlib.sha256(json.dumps([FORMAT, *identity]).encode()).hexdigest()[:32]
        self._path, self._limit_bytes = folder / f"{name}{_SUFFIX}", limit_bytes
        self._lock = FileLock(folder / ".lock", timeout=_LONGEST_WAIT_S)
        self._file: BinaryIO | None = None
        self._writes = limit_bytes > 0
        self._shapes: Shapes = ()
        self._places: dict[bytes, int] = {}
        self._seen = 0
        self._damaged: set[bytes] = set()
        self._open()

    def read(self, key: bytes) -> list[Tensor] | None:
        """Tensors in half precision; None where they are absent or damaged.

        Args:
            key: of 16 bytes.
        """
        if key in self._damaged:
            return None
        if key not in self._places:
            self._look_for_new()  # which another process may have written
        if self._file is None or key not in self._places:
            return None
        try:
            # Private, since torch takes only what it could write to; the pages are shared all the
            # same until somebody does.
            record = mmap.mmap(
                self._file.fileno(),
                self._record_bytes,
                access=mmap.ACCESS_COPY,
                offset=self._begin(self._places[key]),
            )
        except (OSError, ValueError):  # the file was cut short
            self._damaged.add(key)
            return None
        found, check = _RECORD.unpack_from(record)
        end = _PAYLOAD + _payload_bytes(self._shapes)
        with memoryview(record)[_PAYLOAD:end] as payload:
            if found != key or check != _check(key, payload):
                self._damaged.add(key)
                return None
        tensors, offset = [], _PAYLOAD
        for shape in self._shapes:
            flat = torch.frombuffer(record, dtype=torch.float16, count=prod(shape), offset=offset)
            tensors.append(flat.view(shape))
            offset += 2 * prod(shape)
        return tensors

    def write(self, key: bytes, tensors: Sequence[Tensor]) -> None:
        """Keep the tensors of a sample, if there is room for them.

        Args:
            key: of 16 bytes.
            tensors: in half precision, on the CPU, of the same shapes for every key.
        """
        if not self._writes:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                if self._file is None:
                    self._begin_file(tuple(tuple(tensor.shape) for tensor in tensors))
                self._look_for_new()
                if key not in self._places or key in self._damaged:
                    self._write(key, tensors)
        # also where the file system has no locks
        except (DataError, OSError, Timeout, NotImplementedError) as error:
            self._give_up(getattr(error, "strerror", None) or str(error))

    def _open(self) -> None:
        """Use the file that is there; one that cannot be written to is read."""
        if not self._path.is_file():  # a pipe would be waited for
            return
        for mode in ("r+b", "rb"):
            try:
                file: BinaryIO = self._path.open(mode, buffering=0)
            except FileNotFoundError:
                return
            except OSError:
                continue
            shapes = _read_header(file)
            if shapes is None:
                file.close()  # begun anew by the first who writes
                return
            self._use(file, shapes)
            return

    def _use(self, file: BinaryIO, shapes: Shapes) -> None:
        try:
            # Held until the process ends, so that nobody removes a file which is in use.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # somebody just removes it
            file.close()
            return
        with suppress(OSError):  # of another user
            os.utime(self._path)
        self._file, self._shapes = file, shapes
        self._look_for_new()

    def _begin_file(self, shapes: Shapes) -> None:
        """Begin an empty file, unless another process did since."""
        self._open()
        if self._file is None:
            refuse_special(self._path)
            write_whole(self._path, packed_header(_MARK, shapes).ljust(_BLOCK, b"\0"))
            self._open()

    def _look_for_new(self) -> None:
        if self._file is None:
            return
        size = os.fstat(self._file.fileno()).st_size
        whole = max(0, (size - _BLOCK) // self._record_bytes)
        if whole < self._seen:  # somebody cut it short
            self._places.clear()
            self._seen = 0
        for place in range(self._seen, whole):
            self._places[os.pread(self._file.fileno(), 16, self._begin(place))] = place
        self._seen = whole

    def _write(self, key: bytes, tensors: Sequence[Tensor]) -> None:
        assert self._file is not None
        if tuple(tuple(tensor.shape) for tensor in tensors) != self._shapes:
            self._give_up(f"{self._path.name} holds tensors of other shapes: remove it")
            return
        file = self._file.fileno()
        # What a process that was killed left behind the last whole record is written over.
        end = self._seen
        place = self._places.get(key, end)
        if place == end and (reason := self._no_room()):
            self._give_up(reason)
            return
        payload = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)
        head = _RECORD.pack(key, _check(key, payload)).ljust(_PAYLOAD, b"\0")
        record = (head + payload).ljust(self._record_bytes, b"\0")
        try:
            done = 0
            while done < len(record):
                done += os.pwrite(file, record[done:], self._begin(place) + done)
        except OSError:
            if place == end:
                os.ftruncate(file, self._begin(end))
            raise
        self._places[key], self._seen = place, max(end, place + 1)
        self._damaged.discard(key)

    def _no_room(self) -> str:
        """Why there is none for one more record; makes room where that is possible."""
        folder = self._path.parent
        if shutil.disk_usage(folder).free < self._record_bytes + _RESERVE_BYTES:
            return "the disk is nearly full"
        files = {path: path.stat() for path in folder.glob(f"*{_SUFFIX}")}
        total = sum(about.st_size for about in files.values())
        for path in sorted(files, key=lambda path: files[path].st_mtime_ns):
            if total + self._record_bytes <= self._limit_bytes:
                break
            if path != self._path and _remove_unused(path):
                total -= files[path].st_size
        full = total + self._record_bytes > self._limit_bytes
        return f"{self._limit_bytes / 2**30:g} GiB are full" if full else ""

    def _give_up(self, reason: str) -> None:
        self._writes = False
        _LOG.warning(
            "of the teacher's outputs %d samples are kept in %s and no more: %s. The others are "
            "computed in each epoch; --teacher-cache names another folder, --teacher-cache-gib "
            "how much it may hold",
            len(self._places), self._path.parent, reason,
        )  # fmt: skip

    @property
    def _record_bytes(self) -> int:
        size = _PAYLOAD + _payload_bytes(self._shapes)
        return size + -size % _BLOCK

    def _begin(self, place: int) -> int:
        return _BLOCK + place * self._record_bytes


def _payload_bytes(shapes: Shapes) -> int:
    return 2 * sum(map(prod, shapes))


def _check(key: bytes, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(key))


def _read_header(file: BinaryIO) -> Shapes | None:
    """Shapes of a record's tensors; None where the header is damaged."""
    head = os.pread(file.fileno(), _BLOCK, 0)
    if len(head) < _BLOCK:
        return None
    found = read_header(head, _MARK, Shapes)
    if found is None:
        return None
    shapes, _ = found
    return shapes if all(side > 0 for shape in shapes for side in shape) else None


def _remove_unused(path: Path) -> bool:
    """Whether a file could be removed, since no process has it open."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True
