# SPDX-License-Identifier: Apache-2.0
"""Records of sensor data with their ego poses, sample after sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.tables.chains import Chains
from labeldistill_core.data.tables.columns import STAMP, DataColumns
from labeldistill_core.data.tables.ego_poses import read_ego_poses
from labeldistill_core.data.tables.faults import TableFaults
from labeldistill_core.data.tables.keys import ABSENT, Keys, hashes
from labeldistill_core.data.tables.mountings import Mountings
from labeldistill_core.data.tables.parts import Grouping, Parts, Records, refuse_repeated
from labeldistill_core.data.tables.reading import read_rows
from labeldistill_core.data.tables.schema import SampleData
from labeldistill_core.data.tables.texts import TextCollector, Texts
from labeldistill_core.names import fault_of_relative_path, shown

_FARTHEST_KEY_FRAME_US = 5_000_000
"""Sensors are a tenth of a second apart; what is farther from its sample has another clock or
another unit."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OrderedData:
    """Sensor data in the order of the samples."""

    columns: DataColumns
    """The records."""
    start: Integers
    """(S + 1,) first record of each sample."""
    posed_by: Integers
    """(S,) record whose ego pose is that of the sample; -1 without any."""
    patterns: Texts
    """Of file names."""


class _Patterns:
    """File names with the time stamp taken out: a few thousand instead of millions."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.faults: dict[int, str] = {}

    def of(self, names: Sequence[str], stamps_us: Sequence[int]) -> Integers:
        rows = self.rows
        out = []
        for name, stamp_us in zip(names, stamps_us, strict=True):
            pattern = name.replace(str(stamp_us), STAMP, 1)
            row = rows.get(pattern)
            if row is None:
                row = rows[pattern] = len(rows)
                # Once for a pattern, as the stamp adds only digits. Tables of others could name any
                # file.
                if fault := fault_of_relative_path(name):
                    self.faults[row] = f"{shown(name)} is no path below the data root: {fault}"
            out.append(row)
        return np.array(out, np.int64)

    def texts(self) -> Texts:
        collector = TextCollector()
        collector.extend(list(self.rows))
        return collector.texts()


def read_sensor_data(
    folder: Path, chains: Chains, mountings: Mountings, faults: TableFaults
) -> OrderedData:
    """Read `sample_data.json` and `ego_pose.json`.

    Args:
        folder: with the tables.
        chains: samples.
        mountings: calibrated sensors.
        faults: what is wrong with scenes goes there.

    Raises:
        DataError: a table is no table, or a token is there twice.
    """
    path = folder / "sample_data.json"
    parts, tokens, patterns = Parts(), TextCollector(), _Patterns()
    for rows in read_rows(path, SampleData):
        tokens.extend([row.token for row in rows])
        _add(parts, rows, patterns)
    keys = Keys(parts.take("token", np.empty(0, np.int64)))
    in_table = tokens.texts()
    refuse_repeated(keys, Records(path, in_table))
    group = Grouping(chains.keys.rows(_integers(parts, "sample")), len(chains.tokens))
    ordered = in_table.reordered(group.order)
    records, scene = Records(path, ordered), group.of_each(chains.scene)
    # Large, as the keys below, and not needed while the poses are read.
    del in_table
    prev, next_ = (group.moved(keys.rows(_integers(parts, side))) for side in ("prev", "next"))
    del keys
    mounting = mountings.keys.rows(_integers(parts, "mounting"))[group.order]
    pattern = _integers(parts, "pattern")[group.order]
    stamp_us = _integers(parts, "stamp_us")[group.order]
    is_key = parts.take("is_key", np.empty(0, np.bool_))[group.order]

    for side, rows_ in (("prev", prev), ("next", next_)):
        faults.where(rows_ == ABSENT, scene, lambda i, s=side: records.absent(i, s, "sample_data"))  # type: ignore[misc]
    field, table = "calibrated_sensor_token", "calibrated_sensor"
    # `mounting` is -2 for a token that is unknown and -1 for none: every record needs one.
    faults.where(mounting < 0, scene, lambda i: records.absent(i, field, table))
    if known := mountings.faults:
        faults.where(np.isin(mounting, list(known)), scene, lambda i: known[int(mounting[i])])
    if named := patterns.faults:
        faults.where(
            np.isin(pattern, list(named)),
            scene,
            lambda i: f"{records[i]}: its `filename` {named[int(pattern[i])]}",
        )
    apart_us = np.abs(stamp_us - group.of_each(chains.stamp_us))
    faults.where(
        is_key & (apart_us > _FARTHEST_KEY_FRAME_US),
        scene,
        lambda i: (
            f"{records[i]}: its `timestamp` is {apart_us[i] / 1e6:g} s away from that of its "
            "sample; both must be microseconds"
        ),
    )
    _tell_of_samples_without(path, chains, group, faults)
    if group.lost:
        faults.notes.append(
            f"{path}: {group.lost} of {len(records.tokens)} records belong to no sample in "
            f"sample.json, such as {shown(records.tokens[len(scene) - group.lost])}"
        )
    columns = DataColumns(
        token=ordered,
        stamp_us=stamp_us,
        sample=group.group.astype(np.int32),
        pose=read_ego_poses(folder, _integers(parts, "pose")[group.order], records, scene, faults),
        mounting=_narrow(np.maximum(mounting, 0)),
        is_key_frame=is_key,
        width_px=parts.take("width", np.empty(0, np.uint16))[group.order],
        height_px=parts.take("height", np.empty(0, np.uint16))[group.order],
        pattern=_narrow(pattern),
        prev=np.maximum(prev, -1).astype(np.int32),
        next=np.maximum(next_, -1).astype(np.int32),
    )
    posed_by = _posed_by(columns, mountings.of_lidar(), group.start, chains.stamp_us)
    return OrderedData(columns, group.start, posed_by, patterns.texts())


def _add(parts: Parts, rows: list[SampleData], patterns: _Patterns) -> None:
    count = len(rows)
    stamps_us = [int(row.timestamp) for row in rows]
    parts.add(
        token=hashes((row.token for row in rows), count),
        sample=hashes((row.sample_token for row in rows), count),
        pose=hashes((row.ego_pose_token for row in rows), count),
        mounting=hashes((row.calibrated_sensor_token for row in rows), count),
        prev=hashes((row.prev for row in rows), count),
        next=hashes((row.next for row in rows), count),
        stamp_us=np.array(stamps_us, np.int64),
        is_key=np.fromiter((row.is_key_frame for row in rows), np.bool_, count),
        width=np.fromiter((row.width or 0 for row in rows), np.uint16, count),
        height=np.fromiter((row.height or 0 for row in rows), np.uint16, count),
        pattern=patterns.of([row.filename for row in rows], stamps_us),
    )


def _integers(parts: Parts, name: str) -> Integers:
    return parts.take(name, np.empty(0, np.int64))


def _tell_of_samples_without(
    path: Path, chains: Chains, group: Grouping, faults: TableFaults
) -> None:
    without = np.diff(group.start) == 0
    for row, scene in enumerate(chains.scenes):
        rows = np.flatnonzero(without[scene.first : scene.first + scene.samples])
        if len(rows):
            token = shown(chains.tokens[scene.first + int(rows[0])])
            faults.add(row, f"{path} has no record of sample {token}; the tables are not complete")


def _posed_by(
    data: DataColumns, is_lidar: NDArray[np.bool_], start: Integers, stamps_us: Integers
) -> Integers:
    """The LiDAR's key frame; where there is none, the one nearest in time."""
    out = np.full(len(stamps_us), -1, np.int64)
    keys = np.flatnonzero(data.is_key_frame & (data.sample >= 0))
    rows = keys[is_lidar[data.mounting[keys]]] if len(is_lidar) else keys[:0]
    # The first, where a sample has two.
    samples, first = np.unique(data.sample[rows], return_index=True)
    out[samples] = rows[first]
    for sample in np.flatnonzero(out < 0).tolist():
        begin, end = start[sample : sample + 2].tolist()
        near = begin + np.flatnonzero(data.is_key_frame[begin:end])
        if len(near):
            out[sample] = near[np.abs(data.stamp_us[near] - stamps_us[sample]).argmin()]
    return out


def _narrow(rows: Integers) -> NDArray[Any]:
    """In the smallest unsigned type that holds them."""
    return rows.astype(np.min_scalar_type(int(rows.max(initial=0))))
