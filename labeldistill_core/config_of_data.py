# SPDX-License-Identifier: Apache-2.0
"""A configuration for the cameras and classes that a data root has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.classes import UNSCORED_CATEGORIES
from labeldistill_core.config_files import ClassEntry, Lists, with_lists
from labeldistill_core.data.tables.columns import TableColumns
from labeldistill_core.data.tables.opening import open_columns
from labeldistill_core.data.versions import found_version
from labeldistill_core.errors import DataError
from labeldistill_core.presets import Preset

_LARGE_M = 3.0
"""Length from which on nuScenes scores a class up to the farther of the two ranges."""
_FAR_M, _NEAR_M = 50.0, 40.0


def like_data(preset: Preset, dataroot: Path, version: str | None = None) -> Preset:
    """A preset with the cameras of a data root, and the classes of which it has boxes.

    Classes of the preset keep their categories, range, task and radius. A category that none of
    them means becomes a class of its own, called by its last word, in a task of its own; range and
    radius follow from the size of its boxes. A data root without boxes keeps the preset's classes.

    Args:
        preset: to begin with.
        dataroot: in nuScenes form.
        version: folder of its tables; see `found_version`.

    Raises:
        DataError: the tables cannot be used, or have no camera.
        ConfigError: a camera's name cannot be one of a configuration.
    """
    folder = dataroot / found_version(dataroot, version)
    columns = open_columns(folder)
    known = Lists.of(preset)
    cameras = _cameras(columns)
    if not cameras:
        raise DataError(f"{folder} has no key frame of a camera, so no student can be made for it")
    classes = tuple(_numbered(_classes(columns, known))) or known.classes
    return with_lists(preset, Lists(cameras, classes))


def _cameras(columns: TableColumns) -> tuple[str, ...]:
    """Those that have key frames."""
    mountings = columns.data.mounting[columns.data.is_key_frame]
    taken = set(columns.mountings.sensor[np.unique(mountings)].tolist())
    sensors = enumerate(columns.meta.sensors)
    names = [s.channel for row, s in sensors if s.modality == "camera" and row in taken]
    return tuple(dict.fromkeys(names))  # a sensor may stand in its table twice


def _classes(columns: TableColumns, known: Lists) -> Iterator[ClassEntry]:
    """Of which there are boxes: the known ones in their order, then the others."""
    category = columns.boxes.category
    # A category may stand in its table twice.
    sizes_m: dict[str, list[NDArray[np.float64]]] = {}
    for row in np.unique(category[category >= 0]).tolist():
        sizes = columns.boxes.values[category == row, 3:5]
        sizes_m.setdefault(columns.meta.categories[row], []).append(sizes)
    meant = {name: one for one in known.classes for name in one.categories}
    there = {meant[name].name for name in sizes_m if name in meant}
    yield from (one for one in known.classes if one.name in there)
    taken = {one.name for one in known.classes}
    others = sorted(sizes_m.keys() - meant.keys() - UNSCORED_CATEGORIES)
    first = 1 + max(one.task for one in known.classes)
    for task, own in enumerate(others, first):
        word = re.sub(r"[^\w-]", "_", own.rpartition(".")[2])
        name = re.sub(r"[^\w-]", "_", own) if word in taken else word
        # A category of one word may be called as a known class is.
        if name in taken:
            name = next(n for i in count(2) if (n := f"{name}_{i}") not in taken)
        taken.add(name)
        length_m, width_m = np.median(np.concatenate(sizes_m[own]), axis=0).tolist()
        # Half the mean side is within a factor of two of nuScenes' radii for all its classes.
        radius_m2 = round(((length_m + width_m) / 4) ** 2, 2)
        range_m = _FAR_M if max(length_m, width_m) >= _LARGE_M else _NEAR_M
        yield ClassEntry(name, (own,), range_m, task, max(radius_m2, 0.01))


def _numbered(classes: Iterator[ClassEntry]) -> Iterator[ClassEntry]:
    """With tasks from 0 without gaps."""
    found = list(classes)
    tasks = sorted({one.task for one in found})
    for one in found:
        yield replace(one, task=tasks.index(one.task))
