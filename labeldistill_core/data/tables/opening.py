# SPDX-License-Identifier: Apache-2.0
"""Tables are parsed once: later openings, in this process and in others, map an index of them.

The index lies beside the tables, or in the user's cache where they cannot be written to. Small
tables are parsed each time, which takes less than half a second.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from labeldistill_core.data.tables.build import build_columns
from labeldistill_core.data.tables.columns import TableColumns
from labeldistill_core.data.tables.schema import OPTIONAL, REQUIRED
from labeldistill_core.data.tables.store import (
    Stamp,
    Stamps,
    map_columns,
    spot_check,
    write_columns,
)
from labeldistill_core.errors import DataError
from labeldistill_core.files import refuse_special, user_cache
from labeldistill_core.runtime.allocator import give_back_freed_memory

_LOG = logging.getLogger(__name__)

INDEX_NAME = ".labeldistill-index"
"""Beside the tables."""
SMALL_BYTES = 16 << 20
"""Tables of fewer bytes have no index."""
_PLACE = "\0"
"""Stands for the folder of the tables in what is kept of them, since that may move."""
_LONGEST_WAIT_S = 600.0
"""For another process that builds; nuScenes takes a fiftieth of it."""


def open_columns(folder: Path) -> TableColumns:
    """The columns of a folder's tables.

    Raises:
        DataError: a table is missing or is no table, something is wrong in every scene, or the
            tables change while they are read.
    """
    columns = _opened(folder)
    # An index that was built elsewhere names that place nowhere.
    return _with_place(columns, _PLACE, str(folder))


def _opened(folder: Path) -> TableColumns:
    stamps = _stamps(folder)
    if sum(stamp.size for stamp in stamps.values()) < SMALL_BYTES:
        return _built(folder, stamps)[0]
    places = _places(folder)
    # Without the lock, which whoever only reads need not wait for.
    for place in places:
        if columns := map_columns(place, stamps):
            return columns
    built: tuple[TableColumns, Stamps] | None = None
    reasons = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock", timeout=_LONGEST_WAIT_S):
                # who held the lock before may have built it
                if columns := map_columns(place, stamps):
                    return columns
                for left in place.parent.glob(f"{place.name}.*.partial"):
                    left.unlink(missing_ok=True)  # by a process that was killed
                built = built or _built(folder, stamps)
                write_columns(place, *built)
                if columns := map_columns(place, built[1]):
                    # What was built lies in this process alone; from now on it reads the shared
                    # pages.
                    built = None
                    give_back_freed_memory()
                    return columns
        except (OSError, Timeout, NotImplementedError) as error:  # no locks on this file system
            reasons.append(f"{place.parent} ({getattr(error, 'strerror', None) or error})")
    _tell_once(folder, " and ".join(reasons))
    return (built or _built(folder, stamps))[0]


def _built(folder: Path, stamps: Stamps) -> tuple[TableColumns, Stamps]:
    """Columns and the state of the tables that they are made from."""
    for _ in range(2):
        # Twice at most: columns must be marked with the state of the tables that they are made
        # from.
        columns = _with_place(build_columns(folder), str(folder), _PLACE)
        after = _stamps(folder)
        if after == stamps:
            return columns, stamps
        stamps = after
    raise DataError(f"the tables in {folder} change while they are read; try again when they rest")


def _with_place(columns: TableColumns, place: str, other: str) -> TableColumns:
    """The columns, with another place of the tables in what the user is told."""
    meta = columns.meta
    notes = tuple(note.replace(place, other) for note in meta.notes)
    scenes = tuple(
        msgspec.structs.replace(scene, fault=scene.fault.replace(place, other))
        if scene.fault
        else scene
        for scene in meta.scenes
    )
    return replace(columns, meta=msgspec.structs.replace(meta, notes=notes, scenes=scenes))


def _stamps(folder: Path) -> Stamps:
    stamps = {}
    for name in (*REQUIRED, *OPTIONAL):
        path = folder / f"{name}.json"
        refuse_special(path)
        try:
            with path.open("rb") as file:
                # Of the open file: if another one takes its name, size and content still belong
                # together.
                about = os.fstat(file.fileno())
                spots = spot_check(partial(_read_at, file.fileno()), about.st_size)
        except FileNotFoundError:
            stamps[name] = Stamp(-1, 0, 0, 0)
        except OSError as error:
            raise DataError(f"{path} is no readable JSON table: {error}") from error
        else:
            stamps[name] = Stamp(about.st_size, about.st_mtime_ns, about.st_ctime_ns, spots)
    return stamps


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    return os.pread(descriptor, count, offset)


def _places(folder: Path) -> list[Path]:
    """Where the index may lie, the best first."""
    whole = folder.resolve()
    places = [whole / INDEX_NAME]
    if own := user_cache():
        name = hashlib.sha256(os.fsencode(whole)).hexdigest()[:32]
        places.append(own / "tables" / f"{name}.index")
    return places


@cache
def _tell_once(folder: Path, reasons: str) -> None:
    _LOG.warning(
        "%s: the tables are read anew by each process, since their index cannot be written to %s",
        folder,
        reasons,
    )
