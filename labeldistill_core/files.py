# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is there wholly or not at all, whenever the process ends.

    Raises:
        OSError: it cannot be written, as on a full disk; a file of this name stays as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, since renaming is atomic within one file system alone.
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)  # a full disk names none, and nobody knows the partial one
        with suppress(OSError):  # as where a part of the path is a file
            partial.unlink()
        raise


def write_json(path: Path, content: Any) -> None:
    """Write figures as JSON that people can read, wholly or not at all; folders are made.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
