# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from labeldistill_core.errors import ConfigError, DataError

_LOG = logging.getLogger(__name__)
TEXT_BYTES = 1 << 20
"""Of a text that people write; the longest of ours has a twentieth of it."""
_PART_BYTES = 1 << 24
LONGEST_WAIT_S = 60.0
"""For another process to leave a block of `one_at_a_time`."""


@contextmanager
def sole_user(lock: Path, refusal: str) -> Iterator[bool]:
    """Keep other processes out of what a lock file stands for.

    The system releases it when the process dies, so that one that was killed locks nothing for
    ever.

    Args:
        lock: the file, which stays.
        refusal: what is told where another process holds it.

    Yields:
        Whether it is held; a file system may have no locks.

    Raises:
        ConfigError: another process holds it.
        OSError: the file cannot be made.
    """
    _made_folder(lock)
    held = FileLock(lock, timeout=0, mode=0o644)
    try:
        held.acquire()
    except Timeout as error:
        raise ConfigError(refusal) from error
    except NotImplementedError:
        _LOG.warning("%s is on a file system without locks: run one at a time", lock.parent)
    try:
        yield held.is_locked
    finally:
        held.release()


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait while another process is in such a block for the same folder, and leave no lock file.

    The system lets go of it for a process that dies. Who is in the block after a minute is not
    waited for: it may be what started this process, as the shell's `flock` does.
    """
    number = None
    try:
        with suppress(OSError):  # unreadable, gone, or on a file system without locks
            number = os.open(folder, os.O_RDONLY)
            _wait_for(number, folder)
        yield
    finally:
        if number is not None:
            os.close(number)


def _wait_for(number: int, folder: Path) -> None:
    until_s = time.monotonic() + LONGEST_WAIT_S
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until_s:
                _LOG.warning("%s is locked by another process, and not waited for", folder)
                return
        time.sleep(0.05)


def refuse_special(path: Path) -> None:
    """Refuse what is no file that can be read from its beginning to its end more than once.

    A pipe without a writer is waited for without end, and a device may have no end.

    Raises:
        DataError: it is a pipe, a device or a socket.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is a pipe, a device or a socket: name a file")


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a file that is read once, of up to so many bytes.

    What a shell pipes into a command, as `/dev/stdin` or `<(...)`, is read too.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        DataError: it has more, or is a device or a pipe that may have no writer.
        OSError: it cannot be read.
    """
    piped = path.is_fifo() and path.absolute().parts[1:2] in (("dev",), ("proc",))
    if not piped:
        refuse_special(path)
    with path.open("rb") as file:
        parts, left = [], most + 1
        # In parts, as a pipe gives them, and as memory for all that is allowed is not needed.
        while left and (part := file.read(min(left, _PART_BYTES))):
            parts.append(part)
            left -= len(part)
    if not left:
        raise DataError(
            f"{path} has more than {most / 2**20:g} MiB, which no such file has: name another one"
        )
    return b"".join(parts)


def refuse_unwritable(*paths: Path | None) -> None:
    """See that files can be written later, before what is to stand in them is worked out.

    Folders are made; None is left out.

    Raises:
        OSError: one is a folder, or its folder cannot be written to.
    """
    for path in paths:
        if path:
            _refuse_unwritable(path)


def _refuse_unwritable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stays(path):
        return
    target = Path(os.path.realpath(path))
    partial = _partial(target)
    try:
        _made_folder(target)
        # Under the name that it will have first, which is longer than its own.
        partial.touch(exist_ok=False)
        partial.unlink()
    except OSError as error:
        error.filename = str(path)  # it names a temporary one
        raise


def _made_folder(file: Path) -> Path:
    """The folder of a file, which is made where it is not there."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file, which nobody is to remove for another one's sake
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(file)) from error
    return file.parent


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Tell which file it was where the system does not, as on a full disk.

    Raises:
        OSError: as it came, with a file name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that is to be there wholly or not at all, whenever the process ends.

    Folders are made. A link stays, and the file that it leads to is replaced. What is no file, such
    as `/dev/null`, is written to directly, and what is open already, as `/dev/stdout`, where it
    stands. Of several that write it at once, the last one to end
    gives the file. What a killed process leaves is called `NAME.XXXXXXXX.partial`.

    Raises:
        OSError: it cannot be written, as on a full disk; a file of this name stays as it was.
    """
    if (number := open_descriptor(path)) is not None:
        with naming(path), TemporaryDirectory() as folder:
            content = Path(folder) / "content"
            yield content
            sys.stdout.flush()  # what was printed before
            with content.open("rb") as source, os.fdopen(os.dup(number), "wb") as out:
                shutil.copyfileobj(source, out)
        return
    if path.exists() and not path.is_file():
        with naming(path):
            yield path
        return
    target = Path(os.path.realpath(path))
    partial = _partial(target)
    try:
        # In the same folder, since renaming is atomic within one file system alone.
        _made_folder(target)
        yield partial
        os.replace(partial, target)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)  # a full disk names none, and nobody knows the partial one
        with suppress(OSError):  # as where a part of the path is a file
            partial.unlink()
        raise


def _partial(target: Path) -> Path:
    """Where a file is written before it is whole.

    A name for each writer: two that share one would mix their bytes, or rename half a file.
    """
    return target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")


def clear_partial(*files: Path, older_s: float = 0.0) -> None:
    """Remove what processes left that were killed while they wrote these files; see `whole_file`.

    Args:
        *files: as they are called when they are whole.
        older_s: how long ago, since another process may be writing them; 0 where none can be.
    """
    before_s = time.time() - older_s
    for file in files:
        for left in file.parent.glob(f"{glob.escape(file.name)}.{'[0-9a-f]' * 8}.partial"):
            with suppress(FileNotFoundError):  # it became whole meanwhile
                if left.stat().st_mtime <= before_s:
                    left.unlink()


def stays(path: Path) -> bool:
    """Whether what is written to a path can be read from it again and replaced.

    Not so of devices, pipes and what is open already, as `/dev/stdout`.
    """
    return open_descriptor(path) is None and (path.is_file() or not path.exists())


def open_descriptor(path: Path) -> int | None:
    """Number of the open file that a path stands for, as `/dev/stdout` does; None for others.

    Opened by its name anew, a file to which the shell sends the output would lose what is in it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    if folder == "/dev" and name in ("stdout", "stderr"):
        return 1 if name == "stdout" else 2
    is_number = folder in ("/dev/fd", "/proc/self/fd") and name.isascii() and name.isdecimal()
    return int(name) if is_number and path.exists() else None


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is there wholly or not at all; see `whole_file`.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as file:
        file.write_bytes(data)


def user_cache() -> Path | None:
    """Folder for what can be made anew at any time; None for a user without a home."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "labeldistill" if os.path.isabs(folder) else None


def write_json(path: Path, content: Any) -> None:
    """Write figures as JSON that people can read, wholly or not at all; folders are made.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
