# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM while a program still imports: one line and the exit code, no traceback.

Torch takes seconds to import, and an exception in the middle of it would come out of any of its
files. So until `started` a signal ends the process where it stands: nothing has been written yet.
Imports next to nothing, since it has to be quicker than the user.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def end_at_signals() -> None:
    """Let SIGINT and SIGTERM end the process; a signal that is ignored stays so, as nohup wants."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def started() -> None:
    """Give the signals back to Python; nothing where `end_at_signals` was not called."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, f"ended by {signal.Signals(number).name} while it started\n".encode())
    os._exit(128 + number)
