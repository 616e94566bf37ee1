# SPDX-License-Identifier: Apache-2.0
"""Which files are those of a ROS 2 bag, told by their first bytes rather than by their names."""

from __future__ import annotations

from pathlib import Path

from labeldistill_core.errors import BagError
from labeldistill_core.names import shown

MCAP_MAGIC = b"\x89MCAP0\r\n"
_ROS1_MAGIC = b"#ROSBAG V"
_PROFILE = len(MCAP_MAGIC) + 1 + 8
"""Where the profile begins in an MCAP file: behind the opcode and length of its first record."""
_LONGEST_PROFILE = 32
_SUFFIXES = (".mcap", ".db3")
COMPRESSED = ".zstd"
"""Ending that rosbag2 adds to a file which it has compressed as a whole."""


def bag_files(path: Path) -> list[Path]:
    """The files with messages in a folder, or the file itself; some may be compressed as a whole.

    A compressed file beside which the plain one lies is left out: a recorder that is killed while
    it compresses leaves both, of which the plain one is complete.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    named = [p for p in files if p.name.removesuffix(COMPRESSED).endswith(_SUFFIXES)]
    return [p for p in named if p.suffix != COMPRESSED or p.with_suffix("") not in named]


def refuse_other_kinds(path: Path) -> None:
    """Refuse what is a bag, but none of ROS 2.

    Args:
        path: a file, or a folder whose own files are looked at.

    Raises:
        BagError: says what it is, and how to make a ROS 2 bag of it.
    """
    # Names prove nothing: a ROS 1 bag may be renamed, and MCAP files of other profiles end in .mcap
    # too.
    for file in [path] if path.is_file() else sorted(path.glob("*")):
        if not file.is_file():
            continue
        try:
            with file.open("rb") as stream:
                head = stream.read(_PROFILE + 4 + _LONGEST_PROFILE)
        except OSError as error:
            raise BagError(f"{file} cannot be read: {error.strerror}") from error
        if head.startswith(_ROS1_MAGIC):
            raise BagError(
                f"{file} is a bag of ROS 1, not of ROS 2: convert it first, with "
                "`rosbags-convert --src BAG --dst FOLDER`"
            )
        if head.startswith(MCAP_MAGIC) and (profile := _profile(head)) not in ("ros2", None):
            raise BagError(
                f"{file} is an MCAP file of the profile {shown(str(profile))}, not of ROS 2, such "
                "as Foxglove's tools make: convert the data set itself with `labeldistill bag "
                "from-nuscenes`, or record the topics from ROS 2"
            )


def _profile(head: bytes) -> str | None:
    """Profile that an MCAP file begins with; None where its bytes are no text of this length."""
    size = int.from_bytes(head[_PROFILE : _PROFILE + 4], "little")
    text = head[_PROFILE + 4 : _PROFILE + 4 + size]
    # The file may end behind its magic, or within the length.
    headed = head[len(MCAP_MAGIC) :].startswith(b"\x01") and len(head) >= _PROFILE + 4
    if not headed or size > _LONGEST_PROFILE or len(text) < size:
        return None
    return text.decode("ascii", "replace")
