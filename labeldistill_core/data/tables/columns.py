# SPDX-License-Identifier: Apache-2.0
"""The columns that the tables are kept in.

Samples stand scene after scene in the order of time; samples that no scene leads to follow. Sensor
data and boxes stand sample after sample, in each in the order of their table, so the records of a
sample are neighbours in every column; those of unknown samples come last.

Shapes: C scenes, S samples, D records of sensor data, P file name patterns, M mountings, B boxes,
I instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.tables.texts import Texts

LIDAR = "LIDAR_TOP"
"""Name of nuScenes' LiDAR, and of the one that is read where a data set has several."""
STAMP = "\0"
"""Stands in a pattern for the time stamp in microseconds."""


class SceneRow(msgspec.Struct, frozen=True):
    """One scene."""

    name: str
    """Unlike all others."""
    first: int
    """Row of its first sample."""
    samples: int
    """How many it has."""
    fault: str
    """Why it cannot be used; empty where it can."""
    about: dict[str, str]
    """Description, place, date and vehicle, as far as they are told."""


class SensorRow(msgspec.Struct, frozen=True):
    """One sensor."""

    channel: str
    """Its name, such as `CAM_FRONT`."""
    modality: str
    """camera, lidar or radar."""


def lidar_of(sensors: Sequence[SensorRow]) -> str:
    """Name of the LiDAR whose scans are read; empty where none is, or none of several is `LIDAR`.

    Args:
        sensors: of the data set.
    """
    names = {one.channel for one in sensors if one.modality == "lidar"}
    return names.pop() if len(names) == 1 else LIDAR if LIDAR in names else ""


class Meta(msgspec.Struct, frozen=True):
    """The small tables."""

    scenes: tuple[SceneRow, ...]
    """In the order of their table."""
    sensors: tuple[SensorRow, ...]
    """In the order of their table."""
    categories: tuple[str, ...]
    """Their names."""
    attributes: tuple[str, ...]
    """Their names."""
    visibilities: tuple[str, ...]
    """Their levels."""
    notes: tuple[str, ...]
    """What the user is told at each opening."""


@dataclass(frozen=True, eq=False)
class SampleColumns:
    """Samples."""

    token: Texts
    """(S)."""
    stamp_us: NDArray[np.int64]
    """(S,)."""
    scene: NDArray[np.int32]
    """(S,) row of the scene; -1 where there is none."""
    data_start: NDArray[np.int64]
    """(S + 1,) first record of sensor data, and the end of the last sample's."""
    box_start: NDArray[np.int64]
    """(S + 1,) the same for boxes."""
    posed_by: NDArray[np.int64]
    """(S,) record whose ego pose is that of the sample; -1 without any."""


# Narrow types, since nuScenes has 2.6 million of these records and each opening maps them.
@dataclass(frozen=True, eq=False)
class DataColumns:
    """Records of sensor data."""

    token: Texts
    """(D)."""
    stamp_us: NDArray[np.int64]
    """(D,)."""
    sample: NDArray[np.int32]
    """(D,) row of the sample; -1 where there is none."""
    pose: NDArray[np.float64]
    """(D, 7) ego pose: x, y, z and the quaternion w, x, y, z."""
    mounting: NDArray[Any]
    """(D,) unsigned, row of the calibrated sensor."""
    is_key_frame: NDArray[np.bool_]
    """(D,)."""
    width_px: NDArray[np.uint16]
    """(D,) zero where unknown."""
    height_px: NDArray[np.uint16]
    """(D,) zero where unknown."""
    pattern: NDArray[Any]
    """(D,) unsigned, which pattern the file's name follows."""
    prev: NDArray[np.int32]
    """(D,) record of the same sensor before; -1 without."""
    next: NDArray[np.int32]
    """(D,) record of the same sensor after; -1 without."""


@dataclass(frozen=True, eq=False)
class MountingColumns:
    """Calibrated sensors and patterns of file names."""

    sensor: NDArray[np.uint16]
    """(M,) row of the sensor."""
    pose: NDArray[np.float64]
    """(M, 7) pose on the vehicle: x, y, z and the quaternion w, x, y, z."""
    intrinsics: NDArray[np.float64]
    """(M, 3, 3) matrix K in pixels; zero where it is no camera."""
    patterns: Texts
    """(P) paths below the data root, `STAMP` in place of the record's time stamp."""


@dataclass(frozen=True, eq=False)
class BoxColumns:
    """Annotations."""

    token: Texts
    """(B)."""
    values: NDArray[np.float64]
    """(B, 9) see `boxes.BOX_FIELDS`; a velocity is NaN where it cannot be estimated."""
    category: NDArray[np.int16]
    """(B,) row in `Meta.categories`; -1 where the box is left out, whatever it is."""
    instance: NDArray[np.int32]
    """(B,) row in `instances`."""
    attribute: NDArray[np.int16]
    """(B,) row in `Meta.attributes`; -1 without."""
    visibility: NDArray[np.int16]
    """(B,) row in `Meta.visibilities`; -1 without."""
    num_lidar_pts: NDArray[np.int32]
    """(B,) LiDAR points inside."""
    num_radar_pts: NDArray[np.int32]
    """(B,) radar points inside."""
    instances: Texts
    """(I) instance tokens."""


@dataclass(frozen=True, eq=False)
class TableColumns:
    """All that is kept of one version's tables."""

    meta: Meta
    """The small tables."""
    samples: SampleColumns
    """Samples."""
    data: DataColumns
    """Sensor data with ego poses."""
    mountings: MountingColumns
    """Calibrated sensors and patterns of file names."""
    boxes: BoxColumns
    """Annotations."""
