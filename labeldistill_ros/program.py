# SPDX-License-Identifier: Apache-2.0
"""The first and the last lines of every program of this package, however it is called.

Nothing heavy is imported here, so that signals are looked after first, see `early_signals`.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from labeldistill_ros.early_signals import end_at_signals
from labeldistill_ros.garbage import pause_collection
from labeldistill_ros.standard_streams import secure_streams


def begin_program() -> None:
    """Secure streams and signals; `resume_collection` is called when all is imported."""
    secure_streams()
    end_at_signals()
    pause_collection()


def end_program(code: int) -> NoReturn:
    """End the process; at once where a decoder hangs in a thread.

    Python would end such a thread in the middle of foreign code, which aborts the process.
    """
    decoders = [t for t in threading.enumerate() if t.daemon and t.name.startswith("decode")]
    for thread in decoders:
        thread.join(0.05)  # those that have nothing to do are on their way out
    if any(thread.is_alive() for thread in decoders):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
