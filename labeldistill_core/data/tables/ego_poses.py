# SPDX-License-Identifier: Apache-2.0
"""Ego poses of sensor data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.tables.faults import TableFaults
from labeldistill_core.data.tables.keys import Hashes, Keys, hashes
from labeldistill_core.data.tables.parts import Parts, Records, bad_poses, fault_of_pose, floats
from labeldistill_core.data.tables.reading import read_rows
from labeldistill_core.data.tables.schema import EgoPose
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Array
from labeldistill_core.names import shown

_MOST_BAD = 100_000
"""More poses that cannot be used are a fault of the table, not of some scenes."""


def read_ego_poses(
    folder: Path, wanted: Hashes, data: Records, scene: NDArray[np.int64], faults: TableFaults
) -> Array:
    """Read `ego_pose.json`.

    Args:
        folder: with the tables.
        wanted: (D,) hashes of the tokens that records of sensor data name.
        data: those records.
        scene: (D,) row of the scene of each.
        faults: what is wrong with scenes goes there.

    Returns:
        (D, 7) x, y, z and quaternion w, x, y, z of each record.

    Raises:
        DataError: the table is no table, or two records of one token differ.
    """
    path = folder / "ego_pose.json"
    parts, before = Parts(), 0
    bad: dict[int, str] = {}
    for rows in read_rows(path, EgoPose):
        pose = np.empty((len(rows), 7))
        pose[:, :3] = floats((row.translation for row in rows), len(rows), 3)
        pose[:, 3:] = floats((row.rotation for row in rows), len(rows), 4)
        # Written as sentences now, while the tokens are at hand.
        for i in np.flatnonzero(bad_poses(pose)).tolist():
            bad[before + i] = f"{path}, record {shown(rows[i].token)}: {fault_of_pose(pose[i])}"
        if len(bad) > _MOST_BAD:
            raise DataError(f"{next(iter(bad.values()))}; {len(bad) - 1} others are wrong too")
        parts.add(token=hashes((row.token for row in rows), len(rows)), pose=pose)
        before += len(rows)
    keys = Keys(parts.take("token", np.empty(0, np.int64)))
    poses: Array = parts.take("pose", np.empty((0, 7)))
    # several tools write one pose for each sensor under one token; that does no harm if all agree
    first, second = keys.repeated()
    if len(first) and (differ := (poses[first] != poses[second]).any(axis=1)).any():
        token = _token(path, int(first[differ][0]))
        raise DataError(f"{path} has more than one record {shown(token)}, and they differ")
    row = keys.rows(wanted)
    faults.where(row < 0, scene, lambda i: data.absent(i, "ego_pose_token", "ego_pose"))
    if bad:
        faults.where(np.isin(row, list(bad)), scene, lambda i: bad[int(row[i])])
    if not len(poses):
        return np.zeros((len(row), 7))
    # A record without a pose gets any other, since its scene cannot be used.
    return np.asarray(poses[np.maximum(row, 0)])


def _token(path: Path, row: int) -> str:
    """Read once more, since tokens of millions of poses are not kept for an error's sake."""
    for rows in read_rows(path, EgoPose):
        if row < len(rows):
            return rows[row].token
        row -= len(rows)
    return ""
