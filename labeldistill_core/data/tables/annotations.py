# SPDX-License-Identifier: Apache-2.0
"""Boxes of the annotations, sample after sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.classes import BICYCLE_RACK, UNSCORED_CATEGORIES
from labeldistill_core.data.tables.chains import Chains
from labeldistill_core.data.tables.columns import BoxColumns
from labeldistill_core.data.tables.faults import TableFaults
from labeldistill_core.data.tables.keys import ABSENT, NOTHING, Keys, hashes
from labeldistill_core.data.tables.parts import (
    Grouping,
    Parts,
    Records,
    bad_poses,
    fault_of_pose,
    floats,
    refuse_repeated,
    unique_keys,
)
from labeldistill_core.data.tables.reading import read_rows, read_table
from labeldistill_core.data.tables.schema import (
    Attribute,
    Category,
    Instance,
    SampleAnnotation,
    Visibility,
)
from labeldistill_core.data.tables.texts import TextCollector, Texts
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Array
from labeldistill_core.names import shown

# As in the devkit's `box_velocity`: to one neighbour, and twice that between two.
_MAX_VELOCITY_GAP_S = 1.5

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OrderedBoxes:
    """Boxes in the order of the samples."""

    columns: BoxColumns
    """The boxes."""
    start: Integers
    """(S + 1,) first box of each sample."""
    categories: tuple[str, ...]
    """Names."""
    attributes: tuple[str, ...]
    """Names."""
    visibilities: tuple[str, ...]
    """Levels."""


def read_annotations(folder: Path, chains: Chains, faults: TableFaults) -> OrderedBoxes:
    """Read annotations, instances, categories, attributes and visibilities.

    Args:
        folder: with the tables.
        chains: samples.
        faults: what is wrong with scenes goes there.

    Raises:
        DataError: a table is no table, or a token is there twice.
    """
    attributes = read_table(folder / "attribute.json", Attribute, optional=True)
    levels = read_table(folder / "visibility.json", Visibility, optional=True)
    attribute_keys = unique_keys(Records(folder / "attribute.json", [a.token for a in attributes]))
    level_keys = unique_keys(Records(folder / "visibility.json", [v.token for v in levels]))
    path = folder / "sample_annotation.json"
    parts, tokens = Parts(), TextCollector()
    for rows in read_rows(path, SampleAnnotation):
        tokens.extend([row.token for row in rows])
        # A part becomes numbers before the next is read: nuScenes has 1.2 million annotations, too
        # many to hold as objects.
        _add(parts, rows, attribute_keys, level_keys)
    none = np.empty(0, np.int64)
    keys, in_table = Keys(parts.take("token", none)), tokens.texts()
    refuse_repeated(keys, Records(path, in_table))
    names, of_instance, instances, instance_keys = _read_instances(folder, keys)
    group = Grouping(chains.keys.rows(parts.take("sample", none)), len(chains.tokens))
    ordered_tokens = in_table.reordered(group.order)
    records, scene = Records(path, ordered_tokens), group.of_each(chains.scene)

    def ordered(name: str) -> Integers:
        return np.asarray(parts.take(name, none)[group.order])

    instance = instance_keys.rows(ordered("instance"))
    attribute, level = ordered("attribute"), ordered("level")
    for rows_, table in ((attribute, "attribute"), (level, "visibility")):
        if not (folder / f"{table}.json").exists():
            # Where an optional table is absent, it is no fault to name what would stand in it.
            rows_[:] = NOTHING
    prev, next_ = (group.moved(keys.rows(parts.take(side, none))) for side in ("prev", "next"))
    pose = parts.take("pose", np.empty((0, 7)))[group.order]
    size = parts.take("size", np.empty((0, 3)))[group.order]
    # Boxes of unknown instances take the entry behind the last; their scene is refused below.
    category = np.append(of_instance, -1)[np.where(instance < 0, len(of_instance), instance)]

    # Faults are those of scenes rather than errors: a scene without any stays usable.
    for rows_, field, table in (
        (np.where(instance < 0, ABSENT, instance), "instance_token", "instance"),
        (attribute, "attribute_tokens", "attribute"),
        (level, "visibility_token", "visibility"),
        (prev, "prev", "sample_annotation"),
        (next_, "next", "sample_annotation"),
    ):
        faults.where(
            rows_ == ABSENT,
            scene,
            # As defaults, since a closure would see what the loop ended with.
            lambda i, f=field, t=table: records.absent(i, f, t),  # type: ignore[misc]
        )
    faults.where(bad_poses(pose), scene, lambda i: f"{records[i]}: {fault_of_pose(pose[i])}")
    faults.where(
        ~np.isfinite(size).all(axis=1),
        scene,
        lambda i: f"{records[i]}: its `size` is not finite: {size[i].tolist()}",
    )
    never = [name in UNSCORED_CATEGORIES and name != BICYCLE_RACK for name in names]
    flat = (size <= 0).any(axis=1) & ~np.array([*never, True])[category]
    # A note and no fault: one box without a size must not cost its scene.
    if flat.any():
        faults.notes.append(
            f"{path}: {int(flat.sum())} boxes have no width, length or height, such as "
            f"{shown(records.tokens[int(np.argmax(flat))])}; they are left out"
        )
    if group.lost:
        faults.notes.append(
            f"{path}: {group.lost} of {len(records.tokens)} boxes belong to no sample in "
            f"sample.json, such as {shown(records.tokens[len(scene) - group.lost])}"
        )
    values = np.column_stack(
        [
            pose[:, :3],
            size[:, [1, 0, 2]],  # the table has the width first
            _yaw(pose[:, 3:]),
            _velocity(pose[:, :3], group.of_each(chains.stamp_us), prev, next_),
        ]
    )
    columns = BoxColumns(
        token=ordered_tokens,
        values=values,
        category=np.where((size <= 0).any(axis=1), -1, category).astype(np.int16),
        instance=np.maximum(instance, -1).astype(np.int32),
        attribute=np.maximum(attribute, -1).astype(np.int16),
        visibility=np.maximum(level, -1).astype(np.int16),
        num_lidar_pts=ordered("num_lidar_pts").astype(np.int32),
        num_radar_pts=ordered("num_radar_pts").astype(np.int32),
        instances=instances,
    )
    return OrderedBoxes(
        columns,
        group.start,
        tuple(names),
        tuple(attribute.name for attribute in attributes),
        tuple(level.level for level in levels),
    )


def _add(
    parts: Parts, rows: list[SampleAnnotation], attribute_keys: Keys, level_keys: Keys
) -> None:
    count = len(rows)
    pose = np.empty((count, 7))
    pose[:, :3] = floats((row.translation for row in rows), count, 3)
    pose[:, 3:] = floats((row.rotation for row in rows), count, 4)
    # nuScenes gives a box one attribute at most.
    first = ((row.attribute_tokens or ("",))[0] for row in rows)
    parts.add(
        token=hashes((row.token for row in rows), count),
        sample=hashes((row.sample_token for row in rows), count),
        instance=hashes((row.instance_token for row in rows), count),
        prev=hashes((row.prev for row in rows), count),
        next=hashes((row.next for row in rows), count),
        attribute=attribute_keys.rows(hashes(first, count)),
        level=level_keys.rows(hashes((row.visibility_token for row in rows), count)),
        pose=pose,
        size=floats((row.size for row in rows), count, 3),
        num_lidar_pts=np.fromiter((row.num_lidar_pts for row in rows), np.int64, count),
        num_radar_pts=np.fromiter((row.num_radar_pts for row in rows), np.int64, count),
    )


def _read_instances(folder: Path, annotations: Keys) -> tuple[list[str], Integers, Texts, Keys]:
    """Names of the categories; category and token of each instance."""
    categories = read_table(folder / "category.json", Category)
    names = [category.name for category in categories]
    category_keys = unique_keys(
        Records(folder / "category.json", [category.token for category in categories])
    )
    rows = read_table(folder / "instance.json", Instance)
    records = Records(folder / "instance.json", [row.token for row in rows])
    category = category_keys.rows(hashes((row.category_token for row in rows), len(rows)))
    # a whole table without boxes is that of a test set, or of one that is not annotated
    for field in ("first_annotation_token", "last_annotation_token") if len(annotations) else ():
        ends = annotations.rows(hashes((getattr(row, field) for row in rows), len(rows)))
        _refuse_absent(records, ends == ABSENT, field, "sample_annotation")
    _refuse_absent(records, category < 0, "category_token", "category")
    texts = TextCollector()
    texts.extend([row.token for row in rows])
    return names, category, texts.texts(), unique_keys(records)


def _refuse_absent(records: Records, bad: NDArray[np.bool_], field: str, table: str) -> None:
    # Instances and categories belong to no scene that could be left out instead.
    if bad.any():
        raise DataError(records.absent(int(np.argmax(bad)), field, table))


def _yaw(wxyz: Array) -> Array:
    w, x, y, z = wxyz.T
    # Of any length, so not 1 - 2 (y y + z z).
    return np.asarray(np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z))


def _velocity(center: Array, stamp_us: Integers, prev: Integers, next_: Integers) -> Array:
    """(B, 2) difference of the centres before and after, as the devkit's `box_velocity`.

    NaN where there is neither, or where they are too far apart in time.
    """
    own = np.arange(len(center))
    first, last = np.where(prev < 0, own, prev), np.where(next_ < 0, own, next_)
    elapsed_s = 1e-6 * stamp_us[last] - 1e-6 * stamp_us[first]
    longest_s = np.where((prev >= 0) & (next_ >= 0), 2 * _MAX_VELOCITY_GAP_S, _MAX_VELOCITY_GAP_S)
    known = (elapsed_s > 0) & (elapsed_s <= longest_s)
    out = np.full((len(center), 2), np.nan)
    moved_m = center[last, :2] - center[first, :2]
    out[known] = moved_m[known] / elapsed_s[known, None]
    return out
