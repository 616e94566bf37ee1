# SPDX-License-Identifier: Apache-2.0
"""What the libraries raise that read bags, when the bytes are not those of a bag.

They check little of what they read, so a wrong byte ends in whatever the next step makes of it: a
length of exabytes in a `MemoryError`, an unknown number of a topic in a `KeyError`. These are
faults of the file only around calls of a library: nothing of this project may run in them.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import yaml
import zstandard
from backports.zstd import ZstdError  # what rosbags decompresses with
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError

from labeldistill_core.errors import BagError
from labeldistill_core.names import shown

DAMAGED = (
    ReaderError,
    SerdeError,
    TypesysError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # of the library lz4, and of recursion
    SyntaxError,  # rosbags compiles the definitions of types
    TypeError,
    ValueError,
    yaml.YAMLError,
    sqlite3.Error,
    apsw.Error,  # of the same files, as rosbags reads them
    struct.error,
    ZstdError,
    zstandard.ZstdError,
)
"""What reading a broken bag raises."""


@contextmanager
def library_reads(bag: Path) -> Iterator[None]:
    """Turns what a library raises over a bag into a `BagError` that names the bag.

    Raises:
        BagError: the bytes are not those of a bag.
    """
    try:
        yield
    except DAMAGED as error:
        raise BagError(
            f"{bag} is no readable bag: {reason(error)}; if it is still recorded, wait for its "
            "end; if it was cut off or damaged, `labeldistill bag recover` saves what is whole"
        ) from error


def reason(error: BaseException) -> str:
    """An error of a library in a few words, without line breaks and of a bounded length."""
    if isinstance(error, MemoryError | OverflowError):
        return "a length in it is beyond all memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError | AttributeError | TypeError | AssertionError):
        text = f"{type(error).__name__} {text}"
    return text if text.isprintable() and len(text) <= 200 else shown(text)
