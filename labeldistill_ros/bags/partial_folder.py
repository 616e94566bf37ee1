# SPDX-License-Identifier: Apache-2.0
"""Where a bag lies until it is complete, and what becomes of it when its process is killed."""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from labeldistill_core.errors import BagError

_LOG = logging.getLogger(__name__)

_PARTIAL = ".partial-"
_NAME = re.compile(r"\.(.+)\.partial-([0-9]+)(?:\.[0-9]+)?", re.DOTALL)
"""Name of the bag, number of the process, and a number where that was taken."""
REPLACED = ".replaced"
"""Ending of a bag that is about to be replaced, in the partial folder of the new one."""
EARLY = "early"
"""Bag in a recording's partial folder, of what came before simulated time began."""
_UNNAMED = f"{_PARTIAL}new-"
"""Before the number of the process, until the folder has its lock."""
_SOON_S = 60.0
"""A folder that is older and has no name yet is of a process that was killed."""
_DISPOSABLE = "can be made again"
"""In the lock of a bag that no killed process need leave; without it nothing is thrown away."""


class PartialFolder:
    """A folder beside a bag's name, which its process keeps locked while it writes there."""

    def __init__(self, path: Path, *, disposable: bool, source: Path | None = None) -> None:
        """Make it. What killed processes left of the same bag goes, if that is disposable.

        Args:
            path: of the bag that is to be.
            disposable: its messages can be had again, so that nothing of it need be kept.
            source: bag that is read meanwhile, which must not go.

        Raises:
            BagError: another process is writing the same bag.
            OSError: it cannot be made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path, source, tell=disposable)  # a recorder recovers what is told
        own = f".{path.name}{_PARTIAL}{os.getpid()}"
        # Containers give the same numbers again, also to who follows a recording that was killed.
        names = (own if n == 0 else f"{own}.{n}" for n in count())
        self.path = next(p for p in map(path.with_name, names) if not os.path.lexists(p))
        """The folder."""
        self.bag = self.path / path.name
        """Folder of the bag in it."""
        self.disposable = disposable
        """Whether its messages can be had again."""
        # Locked before it has its name, since others take one that nobody holds for abandoned.
        unnamed = path.with_name(f".{path.name}{_UNNAMED}{os.getpid()}")
        shutil.rmtree(unnamed, ignore_errors=True)
        try:
            (unnamed / path.name).mkdir(parents=True)
            self._lock = (unnamed / _lock_name(path.name)).open("w")
            with suppress(OSError):  # file systems without locks leave the number of the process
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.mark(_DISPOSABLE if disposable else "")
            unnamed.rename(self.path)
        except BaseException:
            shutil.rmtree(unnamed, ignore_errors=True)
            raise

    def keep(self) -> None:
        """From now on what is in it is worth something."""
        self.disposable = False
        self.mark("")

    def dispose(self) -> None:
        """From now on nothing in it is worth anything."""
        self.disposable = True
        with suppress(OSError):  # on a full disk it is kept, if the process is killed now
            self.mark(_DISPOSABLE)

    def mark(self, text: str) -> None:
        """Say in the lock what becomes of the folder if the process is killed.

        Raises:
            OSError: the disk is full.
        """
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(text)
        self._lock.flush()

    def leave(self) -> None:
        """End with what is in it left there."""
        with suppress(OSError):
            self._lock.close()

    def remove(self) -> None:
        """End with nothing left."""
        # The lock last, as what is left without it counts as worth keeping.
        with suppress(OSError):
            for part in self.path.iterdir():
                if part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part, ignore_errors=True)
            self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _clear(path: Path, source: Path | None, *, tell: bool) -> None:
    """Take away what killed processes left of a bag that can be made again; tell of the rest."""
    for left in path.parent.glob(f".{glob.escape(path.name)}{_UNNAMED}*"):
        with suppress(OSError):  # its process is making it, or has made it
            if time.time() - left.stat().st_mtime > _SOON_S:
                shutil.rmtree(left)
    for left in _folders(path):
        if _is_locked(left):
            raise BagError(
                f"{path} is being written by another process: wait for its end, or choose another "
                "name"
            )
        spared = source is not None and _overlap(left, source)
        if spared or not _is_abandoned(left):
            continue
        if _is_disposable(left):
            shutil.rmtree(left, ignore_errors=True)
        elif tell:
            _LOG.warning(
                "%s has what an earlier recording left: `labeldistill bag recover %s OUT` makes a "
                "bag of it",
                left,
                left,
            )


def abandoned(path: Path) -> list[Path]:
    """Partial folders of a bag whose processes are no more, and that hold what was recorded."""
    return [p for p in _folders(path) if _is_abandoned(p) and not _is_disposable(p)]


def is_replaced(path: Path) -> bool:
    """Whether a folder is the bag that was about to be replaced, in the partial one of another."""
    bag = path.name.removesuffix(REPLACED)
    return bag != path.name and path.with_name(_lock_name(bag)).exists()


def take_away(folder: Path) -> Path | None:
    """Remove a partial folder whose process is no more.

    Returns:
        Where the bag is now that was about to be replaced; None where there was none.
    """
    match = _NAME.fullmatch(folder.name)
    replaced, out = folder / f"{match[1] if match else folder.name}{REPLACED}", None
    if os.path.lexists(replaced):
        names = (folder.with_name(f"{replaced.name}-{n}") for n in count(1))
        out = next(name for name in names if not os.path.lexists(name))
        replaced.rename(out)
    shutil.rmtree(folder)
    return out


def is_early(path: Path) -> bool:
    """Whether a folder is the partial one of what came before simulated time began."""
    match = _NAME.fullmatch(path.name)
    return match is not None and match[1] == EARLY


def _folders(path: Path) -> list[Path]:
    found = path.parent.glob(f".{glob.escape(path.name)}{_PARTIAL}*")
    return sorted(p for p in found if (m := _NAME.fullmatch(p.name)) and m[1] == path.name)


def _pid(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    assert match
    return int(match[2])


def _lock_name(bag: str) -> str:
    """What the process of an incomplete bag keeps locked; no bag has this name there."""
    return f"{bag}.lock"


def _lock_file(folder: Path) -> Path:
    return folder / _lock_name(folder.name[1:].rpartition(_PARTIAL)[0])


def _is_disposable(folder: Path) -> bool:
    """Whether nothing in it is worth anything: it can be made again, or nothing was written."""
    with suppress(OSError):  # none, or another user's
        if _lock_file(folder).read_text(errors="replace") == _DISPOSABLE:
            return True
    try:
        return not any(os.path.getsize(file) for file in folder.rglob("*") if file.is_file())
    except OSError:  # somebody else is taking it away
        return False


def _is_locked(folder: Path) -> bool | None:
    """Whether somebody writes there; None where that cannot be told by the lock."""
    try:
        with _lock_file(folder).open("rb") as lock:
            # Shared, so that two who look do not take each other for who writes.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return None


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody writes there; told by a lock, as containers give the same numbers again."""
    locked = _is_locked(folder)
    return not _is_alive(_pid(folder)) if locked is None else not locked


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _overlap(one: Path, other: Path) -> bool:
    """Whether two paths are the same, or one lies within the other."""
    one, other = one.resolve(), other.resolve()
    return one == other or one in other.parents or other in one.parents


def refuse_source(out: Path, source: Path) -> None:
    """Refuse to write a bag in the place of the one that is read, which would be lost.

    Raises:
        BagError: they are the same, or one lies within the other.
    """
    if _overlap(out, source):
        raise BagError(f"{out} is, or holds, the bag {source} that is read: choose another name")
