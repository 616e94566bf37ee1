# SPDX-License-Identifier: Apache-2.0
"""Which files a bag is made of, and what its metadata say of them.

The files themselves tell what they hold. Metadata that tell otherwise, as after an edit or a copy,
must cost no messages: they only say which files belong together and how these are compressed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml

from labeldistill_core.data.tables.store import spot_check
from labeldistill_core.errors import BagError
from labeldistill_core.files import naming, refuse_special
from labeldistill_core.names import shown
from labeldistill_ros.bags.file_formats import bag_files

_LOG = logging.getLogger(__name__)

_METADATA = "metadata.yaml"
_LONGEST = 64 << 20
"""Bytes of metadata; ten thousand topics in as many files need a tenth of it."""
_MOST_TOLD = 5


@dataclass(frozen=True)
class BagFiles:
    """The files of a bag."""

    paths: tuple[Path, ...]
    """Files of messages, in the order of the metadata or, without those, of their names."""
    compression: str = ""
    """`file` where each file is compressed as a whole, `message` where each message is."""
    counts: Mapping[str, tuple[str, int]] | None = None
    """Type and number of messages of each topic, as the metadata tell; None where nothing does."""
    others: tuple[Path, ...] = ()
    """Files of messages in the folder that the metadata do not name."""


def find_files(path: Path) -> BagFiles:
    """The files of a bag.

    Args:
        path: folder of a bag, whose metadata may be missing, or a file of it.

    Raises:
        BagError: the metadata cannot be read, or name files that are not there, or it is a file
            of another name.
    """
    if not path.is_dir():
        refuse_special(path)
        if not bag_files(path):
            raise BagError(
                f"{path} is no file of a bag, whose names end in .mcap or .db3: name one, or the "
                "bag's folder"
            )
        return BagFiles((path,))
    inside = bag_files(path)
    # The metadata are written last, so a recording that was killed has none.
    if not (path / _METADATA).exists():
        return BagFiles(tuple(without_copies(inside)))
    about = read_metadata(path)
    try:
        # Names alone, as older versions of rosbag2 wrote paths from above the folder.
        names = about.get("relative_file_paths") or ()
        if isinstance(names, str):
            raise TypeError("relative_file_paths is a text and no list")
        named = [path / PurePath(name).name for name in names]
        mode = str(about.get("compression_mode") or "").lower()
        form = str(about.get("compression_format") or "")
        counts = {
            str(one["topic_metadata"]["name"]): (
                str(one["topic_metadata"]["type"]),
                int(one["message_count"]),
            )
            for one in about.get("topics_with_message_count") or ()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_metadata(path, f"{type(error).__name__} {error}") from error
    # As `ros2 bag reindex` writes them for some bags.
    if not named or not counts:
        return BagFiles(tuple(without_copies(inside)))
    if missing := [file.name for file in named if not file.is_file()]:
        told = ", ".join(map(shown, missing[:_MOST_TOLD]))
        raise BagError(
            f"{path} lacks {len(missing)} of its {len(named)} files, {told}: copy them there, or "
            f"remove {_METADATA} to use those that are there"
        )
    if twice := {file.name for file in named if named.count(file) > 1}:
        raise _no_metadata(path, f"the file {shown(sorted(twice)[0])} is named twice")
    mode = "" if mode in ("none", "storage") else mode
    if mode not in ("", "file", "message") or (mode and form != "zstd"):
        raise BagError(
            f"{path} is compressed by {shown(form)} in the mode {shown(mode)}, which cannot be "
            "read here: decompress it with `ros2 bag convert`"
        )
    others = tuple(file for file in inside if file not in named)
    return BagFiles(tuple(named), mode, counts, others)


def read_metadata(folder: Path) -> dict[str, Any]:
    """What the metadata of a bag say.

    Raises:
        BagError: there are none that can be read.
    """
    path = folder / _METADATA
    refuse_special(path)
    try:
        if path.is_file() and path.stat().st_size > _LONGEST:
            raise _no_metadata(folder, f"it has more than {_LONGEST >> 20} MiB")
        # The loader in C: metadata of many files take the other one seconds.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 - a SafeLoader
        about = content["rosbag2_bagfile_information"]
        if not isinstance(about, dict):
            raise TypeError
    except OSError as error:
        raise BagError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise _no_metadata(folder, "it has no rosbag2_bagfile_information") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise _no_metadata(folder, " ".join(str(error).split())) from error
    return about


def without_copies(files: Sequence[Path]) -> list[Path]:
    """Files of which none holds the messages of another one once more; the others are told.

    Raises:
        OSError: one cannot be read.
    """
    kept: dict[tuple[int, int], Path] = {}
    for file in files:
        with naming(file), file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            key = size, spot_check(partial(_read_at, stream.fileno()), size)
        if key in kept:
            first = kept[key].name
            _LOG.warning("%s holds the same as %s, and is left out", shown(file.name), shown(first))
        else:
            kept[key] = file
    return list(kept.values())


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    return os.pread(descriptor, count, offset)


def _no_metadata(folder: Path, why: str) -> BagError:
    why = why if why.isprintable() and len(why) <= 200 else shown(why)
    return BagError(
        f"{folder / _METADATA} is no metadata of a readable bag: {why}; remove it, and the files "
        "beside it are read by themselves"
    )
