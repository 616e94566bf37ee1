# SPDX-License-Identifier: Apache-2.0
"""Shared memory of Fast DDS that processes leave behind when they are killed.

Each participant has a segment in /dev/shm, of 34 MiB with `config/fastdds.xml`, and beside it a
lock file, `<segment>_el`, that it holds locked as long as it lives. Its own end removes both. After
SIGKILL the kernel frees the lock alone: the segment stays until somebody removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/dev/shm")
# Fast DDS 3 and 2. Files of ports have a number in place of the 16 digits and are left alone: they
# hold 52 kB, the next process with this number takes them up, and others may still write to them.
_LOCK = re.compile(r"((?:fastdds|fastrtps)_[0-9a-f]{16})_el")
_NEW_S = 1.0
"""So long nobody's lock file may be one whose owner has made it and is about to lock it."""


def remove_abandoned_segments(folder: Path = _FOLDER) -> int:
    """Remove this user's segments whose processes are gone; those of living ones stay.

    Args:
        folder: where the segments lie.

    Returns:
        The bytes that were freed.
    """
    if not folder.is_dir():  # other systems than Linux
        return 0
    return sum(
        _remove_if_abandoned(folder / match[1], folder / match[0])
        for match in map(_LOCK.fullmatch, os.listdir(folder))
        if match
    )


def kill_node(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kill a node's process if it still runs, and free the shared memory that it leaves then."""
    if process.poll() is None:
        process.kill()
        process.wait()
        remove_abandoned_segments()


def _remove_if_abandoned(segment: Path, lock: Path) -> int:
    """The bytes of a segment that was removed; 0 where it has an owner or is another user's."""
    # Any of the files may vanish meanwhile: its owner ends, or another process cleans up as well.
    with suppress(OSError), lock.open("rb") as file:
        known = os.fstat(file.fileno())
        if known.st_uid != os.geteuid() or time.time() - known.st_mtime < _NEW_S:
            return 0
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed = segment.stat().st_size if segment.exists() else 0
        # The lock file last: without it nobody could tell that the segment is abandoned.
        segment.unlink(missing_ok=True)
        lock.unlink()
        return freed
    return 0
