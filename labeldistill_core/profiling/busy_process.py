# SPDX-License-Identifier: Apache-2.0
"""A process that takes a core, as others do on a vehicle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRAM = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends also when the process that started it is killed."""


@contextmanager
def busy_process() -> Iterator[None]:
    """One core's worth of work beside this process, without memory or input and output."""
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM])
    try:
        yield
    finally:
        # At once: it has nothing to save, and would distort what is measured next.
        process.kill()
        process.wait()
