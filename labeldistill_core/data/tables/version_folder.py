# SPDX-License-Identifier: Apache-2.0
"""The folder of a version of tables: it appears when it is complete, and others' files in it stay.

Source: nuScenes, "Database schema".
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from labeldistill_core.data.splits import SPLITS_FILE
from labeldistill_core.data.tables.opening import INDEX_NAME
from labeldistill_core.data.tables.writing import OF_A_SCENE, OF_ALL, Rows
from labeldistill_core.errors import DataError
from labeldistill_core.files import naming, write_whole

LABELS_FILE = "labels.json"
"""Beside the tables: where the annotations come from that machines made."""
_OWN_FILES = frozenset(
    (*(f"{name}.json" for name in (*OF_A_SCENE, *OF_ALL)), SPLITS_FILE, LABELS_FILE)
)


def write_version(
    folder: Path, parts: Iterable[Rows], splits: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Make the folder of a version; the tables that are there go once the new ones are complete.

    Args:
        folder: such as `DATAROOT/v1.0-trainval`.
        parts: rows of the scenes, and those that they share; one at a time is in memory.
        splits: names of scenes by split, where they are none of nuScenes'.

    Raises:
        OSError: it cannot be written.
    """
    folder = folder.resolve()  # of a link, what it leads to is written anew
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    partial.mkdir(parents=True)
    try:
        with naming(folder):
            _write_tables(partial, parts)
        if splits is not None:
            write_whole(partial / SPLITS_FILE, json.dumps(splits, indent=1).encode())
        replace_folder(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_folder(new: Path, folder: Path) -> None:
    """Give a folder of tables the name of another one, whose tables go; other files in it stay.

    Raises:
        OSError: it cannot be renamed.
    """
    old = folder.with_name(f".{folder.name}.replaced")
    # Of a call that was killed after one of the two renames below.
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    _keep_others(old, folder)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    _keep_others(old, folder)


def remove_tables(folder: Path) -> None:
    """Take the tables of a version away, and its folder where nothing else is in it.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in _OWN_FILES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # of what others put there
        folder.rmdir()


def refuse_labelled(tables: Path) -> None:
    """Refuse to write tables over those that were labelled in their place.

    Raises:
        DataError: they are such.
    """
    if (tables / LABELS_FILE).is_file():
        raise DataError(
            f"the tables {tables} were labelled in their place, and would lose that: use another "
            "folder, and --into with `labeldistill label`"
        )


def _keep_others(old: Path, folder: Path) -> None:
    """Move what is no table out of an old folder into the new one, and remove the old one."""
    if not old.is_dir():
        return
    for path in old.iterdir():
        own = path.name in _OWN_FILES or path.name.startswith(INDEX_NAME)
        if not own and not (folder / path.name).exists():
            os.rename(path, folder / path.name)
    shutil.rmtree(old, ignore_errors=True)


def _write_tables(folder: Path, parts: Iterable[Rows]) -> None:
    names = (*OF_A_SCENE, *OF_ALL)
    files = {name: (folder / f"{name}.json").open("w") for name in names}
    written: dict[str, set[str]] = {name: set() for name in OF_ALL}
    begun = set()
    try:
        for part in parts:
            for name, rows in part.items():
                for row in rows:
                    if name in written:
                        if row["token"] in written[name]:
                            continue
                        written[name].add(row["token"])
                    # a row a line
                    files[name].write((",\n" if name in begun else "[\n") + json.dumps(row))
                    begun.add(name)
        for name, file in files.items():
            file.write("\n]" if name in begun else "[]")
    finally:
        for file in files.values():
            file.close()
