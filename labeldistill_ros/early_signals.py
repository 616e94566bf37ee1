# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and SIGHUP while a program imports: one line and an exit code, no traceback.

Torch takes seconds to import, and an exception in the middle of it would come out of any of its
files. So until `started` a signal ends the process where it stands: nothing has been written yet.
Imports next to nothing, since it has to be quicker than the user.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_at_signals() -> None:
    """Let the signals end the process; one that is ignored stays so, as nohup wants."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def started() -> None:
    """Give the signals back to Python; nothing where `end_at_signals` was not called."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


def ignore_signals() -> None:
    """Let the process end by itself, since whoever wanted that may ask twice."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, f"ended by {signal.Signals(number).name} while it started\n".encode())
    os._exit(128 + number)
