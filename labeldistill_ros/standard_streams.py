# SPDX-License-Identifier: Apache-2.0
"""Standard input, output and error of a program, whatever it was started with.

Imports next to nothing, as `early_signals`, since it comes before everything else.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import suppress


def secure_streams() -> None:
    """Open those that were closed to nothing, and let both outputs take any character.

    The next file that a program opens gets the lowest number that is free. Where that is 1 or 2,
    what a library prints lands in the middle of this file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes this number, as those below it are open
    # Python has none where the number was closed when it started.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - open as long as the process
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A path may have bytes that are no text, and a terminal may know ASCII alone.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def lose_what_nobody_reads() -> None:
    """Let what goes to a full pipe or a stopped terminal be lost, instead of waiting for a reader.

    ROS logs while it holds a lock, so that a node whose launcher stopped reading, or whose terminal
    is held by Ctrl-S, would stand still with its next warning.
    """
    for number in (1, 2):
        if not (stat.S_ISFIFO(os.fstat(number).st_mode) or os.isatty(number)):
            continue
        # Opened anew, since the flags of what was handed in are shared with other processes. There
        # may be no /proc, no reader, or a terminal of another user: then it stays as it is.
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            anew = os.open(f"/proc/self/fd/{number}", flags)
            os.dup2(anew, number)
            os.close(anew)
