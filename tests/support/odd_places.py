# SPDX-License-Identifier: Apache-2.0
"""What may be in the place of a file that a program keeps for itself."""

from __future__ import annotations

import os
from pathlib import Path

ODD = ("folder", "pipe", "loop", "dangling link")


def put_there(path: Path, what: str) -> None:
    """Make one of `ODD`."""
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path.name)
    else:
        path.symlink_to(path.parent / "not there" / "file")
