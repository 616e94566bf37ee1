# SPDX-License-Identifier: Apache-2.0
"""SQLite files of bags: opened without a change to them, and refused where they are none of a bag.

Source: SQLite, "Write-Ahead Logging" and "URI Filenames".
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from labeldistill_core.errors import BagError
from labeldistill_ros.bags.decompression import temporary_folder

_LOGS = ("-wal", "-journal")
"""Endings of the files beside a database that hold what is not in it yet, or no more."""


def refuse_unfinished(file: Path) -> None:
    """Refuse a database whose last messages lie in a log beside it, where no reader looks.

    Raises:
        BagError: names the log.
    """
    if log := _log(file):
        raise BagError(
            f"{file} has messages in {log.name} that are not in it yet: if it is still recorded, "
            "wait for its end; if the recorder was killed, `labeldistill bag recover` saves them"
        )


def refuse_odd_tables(file: Path) -> None:
    """Refuse a database whose tables are computed when they are read.

    A view can have rows without end, and a computed column bytes without end.

    Raises:
        BagError: names the table.
        sqlite3.Error: the file is damaged.
    """
    with opened(file) as base:
        for name in ("messages", "topics"):
            kinds = base.execute(
                "SELECT type, sql FROM sqlite_master WHERE name = ?", (name,)
            ).fetchall()
            hidden = [row for row in base.execute(f"PRAGMA table_xinfo({name})") if row[6]]
            virtual = any("virtual" in str(sql).lower().split("(")[0] for _, sql in kinds)
            if hidden or virtual or any(kind == "view" for kind, _ in kinds):
                raise BagError(
                    f"{file}: {name} is no plain table, as bags have them, but computed when it is "
                    "read: record the topics anew, or use the bag that this one was made of"
                )


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A database that stays as it is, also where its folder cannot be written to.

    Yields:
        A connection that sees what lies in logs beside the file, too.

    Raises:
        sqlite3.Error: it cannot be opened.
        BagError: there is no room for a copy of one with logs.
    """
    if not _log(file):
        # SQLite looks for no locks and no logs, and so writes none either.
        with closing(_connected(file, "immutable=1")) as base:
            yield base
        return
    # To read a log SQLite has to write beside it, and it would merge the two when it is closed.
    with temporary_folder() as folder:
        copy = Path(folder) / "bag.db3"
        try:
            for ending in ("", *_LOGS):
                if (part := file.with_name(file.name + ending)).is_file():
                    shutil.copyfile(part, f"{copy}{ending}")
        except OSError as error:
            raise BagError(
                f"{file} cannot be copied to {folder}, where it has to be merged with its log: "
                f"{error.strerror}; set TMPDIR to a folder on a larger disk"
            ) from error
        with closing(_connected(copy, "mode=rw")) as base:
            yield base


def _connected(file: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(bytes(file.absolute()))}?{options}", uri=True)


def _log(file: Path) -> Path | None:
    for ending in _LOGS:
        log = file.with_name(file.name + ending)
        if log.is_file() and log.stat().st_size:
            return log
    return None
