# SPDX-License-Identifier: Apache-2.0
"""Sensors and how they were mounted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.cameras import fault_of_intrinsics
from labeldistill_core.data.tables.columns import SensorRow, lidar_of
from labeldistill_core.data.tables.keys import Keys, hashes
from labeldistill_core.data.tables.parts import (
    Records,
    bad_poses,
    fault_of_pose,
    floats,
    unique_keys,
)
from labeldistill_core.data.tables.reading import read_table
from labeldistill_core.data.tables.schema import CalibratedSensor, Sensor
from labeldistill_core.frames import Array
from labeldistill_core.names import plain_name, shown


@dataclass(frozen=True, eq=False)
class Mountings:
    """M calibrated sensors."""

    sensors: list[SensorRow]
    """Of the data set."""
    sensor: NDArray[np.int64]
    """(M,) row of the sensor; below 0 where it is unknown."""
    pose: Array
    """(M, 7) x, y, z and quaternion."""
    intrinsics: Array
    """(M, 3, 3) matrix K in pixels; zero where it is no camera."""
    faults: dict[int, str]
    """What is wrong with a row."""
    keys: Keys
    """Of the tokens."""

    def of_lidar(self) -> NDArray[np.bool_]:
        """(M,) whether it is one of the LiDAR that is read."""
        lidar = lidar_of(self.sensors)
        named = [row for row, sensor in enumerate(self.sensors) if sensor.channel == lidar]
        return np.isin(self.sensor, named)


def read_mountings(folder: Path) -> Mountings:
    """Read sensors and calibrated sensors.

    Raises:
        DataError: a table is no table, a token is there twice, or a sensor's name is no plain name.
    """
    sensors = read_table(folder / "sensor.json", Sensor)
    path = folder / "sensor.json"
    for one in sensors:
        plain_name(one.channel, f"{path}, record {shown(one.token)}: the channel")
    sensor_keys = unique_keys(Records(path, [one.token for one in sensors]))
    rows = read_table(folder / "calibrated_sensor.json", CalibratedSensor)
    records = Records(folder / "calibrated_sensor.json", [row.token for row in rows])
    sensor = sensor_keys.rows(hashes((row.sensor_token for row in rows), len(rows)))
    pose = np.hstack(
        [
            floats((row.translation for row in rows), len(rows), 3),
            floats((row.rotation for row in rows), len(rows), 4),
        ]
    )
    intrinsics = np.zeros((len(rows), 3, 3))
    bad = np.flatnonzero(bad_poses(pose)).tolist()
    # By row and not raised, so that only scenes which use such a mounting are refused.
    faults = {row: f"{records[row]}: {fault_of_pose(pose[row])}" for row in bad}
    for i, row in enumerate(rows):
        if sensor[i] < 0:
            faults[i] = records.absent(i, "sensor_token", "sensor")
        elif sensors[sensor[i]].modality == "camera":
            if fault := _fault_of_matrix(row.camera_intrinsic or []):
                faults[i] = f"{records[i]}: its `camera_intrinsic` {fault}"
            else:
                intrinsics[i] = row.camera_intrinsic
    about = [SensorRow(one.channel, one.modality) for one in sensors]
    return Mountings(about, sensor, pose, intrinsics, faults, unique_keys(records))


def _fault_of_matrix(matrix: list[list[float]]) -> str:
    if len(matrix) != 3 or any(len(row) != 3 for row in matrix):
        return f"must be three rows of three numbers, in pixels, not {matrix}"
    if not np.isfinite(matrix).all() or matrix[0][0] <= 0 or matrix[1][1] <= 0:
        return f"must be finite with positive focal lengths, not {matrix}"
    return fault_of_intrinsics(np.array(matrix, dtype=np.float64))
