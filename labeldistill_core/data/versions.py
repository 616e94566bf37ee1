# SPDX-License-Identifier: Apache-2.0
"""Which of a data root's versions is meant."""

from __future__ import annotations

from pathlib import Path

from labeldistill_core.errors import DataError

_USUAL_VERSION = "v1.0-trainval"


def found_version(dataroot: Path, version: str | None) -> str:
    """The version that is meant.

    Args:
        dataroot: folder with the versions' folders.
        version: name of one; None where none is named.

    Raises:
        DataError: it is not there, none is there, or none is named where there are several.
    """
    version = version and version.rstrip("/")  # which a shell adds to the name of a folder
    if version and (dataroot / version / "scene.json").is_file():
        return version
    if not dataroot.is_dir():
        raise DataError(f"no data root {dataroot}: there is no such folder")
    # Hidden folders are those that a command fills, or that one left that was killed.
    found = (path.parent.name for path in dataroot.glob("*/scene.json"))
    versions = sorted(name for name in found if not name.startswith("."))
    if version is None and len(versions) == 1:
        return versions[0]
    if version is None and _USUAL_VERSION in versions:
        return _USUAL_VERSION
    there = f"it has the versions {', '.join(versions)}" if versions else "it has no tables at all"
    if version is None and versions:
        raise DataError(f"data root {dataroot}: {there}; say which (--version)")
    named = "*" if version is None else version or repr(version)
    raise DataError(f"data root {dataroot} has no tables {named}/*.json; {there}")
