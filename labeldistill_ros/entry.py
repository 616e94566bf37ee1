# SPDX-License-Identifier: Apache-2.0
"""Where the programs `labeldistill` and `detector_node` begin.

They import nothing heavy before signals are looked after, see `early_signals`.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from labeldistill_ros.early_signals import end_at_signals
from labeldistill_ros.garbage import pause_collection, resume_collection
from labeldistill_ros.standard_streams import secure_streams


def command() -> NoReturn:
    """The program `labeldistill`; ends with the codes of `console`."""
    secure_streams()
    end_at_signals()
    pause_collection()  # until the command is imported, see `cli`
    from labeldistill_ros.cli import main

    _end(main())


def node() -> NoReturn:
    """The program `detector_node`; ends with the codes of `console`."""
    secure_streams()
    end_at_signals()
    pause_collection()
    from labeldistill_ros.node.detector_node import main

    resume_collection()
    _end(main())


def _end(code: int) -> NoReturn:
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
