# SPDX-License-Identifier: Apache-2.0
"""Names that come with data and become paths, topics and lines of a log: what they may look like.

Tables, bags and result files are written by others. Whatever takes a name out of them for a path
asks here, so that a scene called `../x` or a file called `/etc/passwd` stays what it is: a fault.
"""

from __future__ import annotations

from labeldistill_core.errors import DataError

_LONGEST = 255
"""Bytes that a file system allows for one name."""


def fault_of_name(name: str) -> str:
    """Why a text is no plain name, that is, one part of a path; empty where it is one."""
    if not name:
        return "it is empty"
    # Also the controls that turn the direction of writing, by which a name can look like another.
    if not name.isprintable():
        return "it has a character that cannot be printed"
    # Data are copied to Windows too, where a backslash parts a path.
    if "/" in name or "\\" in name:
        return "it has a slash"
    if name in (".", ".."):
        return "it stands for a folder"
    if len(name.encode()) > _LONGEST:
        return f"it is longer than {_LONGEST} bytes"
    return ""


def fault_of_relative_path(path: str) -> str:
    """Why a text is no path below a folder, parted by single slashes; empty where it is one."""
    if path.startswith("/"):
        return "it is absolute"
    parts = path.split("/")
    if ".." in parts:
        return "it leaves its folder"
    for part in parts:
        if fault := fault_of_name(part):
            return fault
    return ""


def plain_name(name: str, what: str) -> str:
    """The name, where it is one part of a path.

    Args:
        name: as the data has it.
        what: it is, for the error, such as `scene.json, record 'x': name`.

    Raises:
        DataError: it is empty, has a slash or characters that cannot be printed, or is too long.
    """
    if fault := fault_of_name(name):
        raise DataError(f"{what} {shown(name)} is no plain name: {fault}")
    return name


def shown(text: str) -> str:
    """A text of others as a message shows it: quoted, escaped, cut."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def plain_text(text: str, longest: int = 200) -> str:
    """A text of others within a message: without quotes, escaped where it cannot be printed, cut.

    For names that are mostly plain, such as those of weights.
    """
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]
