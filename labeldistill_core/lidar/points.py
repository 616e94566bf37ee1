# SPDX-License-Identifier: Apache-2.0
"""LiDAR scans of a sample and around it, as one cloud in one frame.

Shapes: P points; five numbers each: x, y, z (metres), intensity (0 to 255), age (seconds).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labeldistill_core.data.bev_augmentation import BevAugmentation
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_core.lidar.config import SweepsConfig

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Scan:
    """One turn of the sensor."""

    points: NDArray[np.float32]
    """(P, 5) in the sensor's frame; the last column is not used."""
    fixed_from_lidar: Transform
    """Pose of the sensor in the fixed frame at the time of the scan."""
    age_s: float
    """Of the scan when the sample was taken; negative after it."""


def cloud(
    scans: Sequence[Scan], map_from_ego: Transform, bev: BevAugmentation, config: SweepsConfig
) -> Tensor:
    """(P, 5) of all scans in the (augmented) ego frame; the sample's own scan comes first."""
    if len(scans) == 1:
        scans = [scans[0]] * (1 + config.repeat_when_alone)
    linear = bev.matrix[:3, :3].astype(np.float32)
    if not config.scale_height:
        linear[2, 2] = 1.0
    parts = []
    for scan in scans:
        # About the sensor, as published: the corners of the grid are farther away and stay empty.
        near = np.hypot(scan.points[:, 0], scan.points[:, 1]) < config.max_range_m
        points = scan.points[near]
        # In float64 up to here: by way of the map, coordinates are kilometres.
        xyz = (map_from_ego.inverse @ scan.fixed_from_lidar).apply(points[:, :3])
        part = np.empty_like(points)
        part[:, :3] = xyz.astype(np.float32) @ linear.T
        part[:, 3] = points[:, 3]
        part[:, 4] = scan.age_s
        parts.append(part)
    return torch.from_numpy(np.concatenate(parts))


@dataclass(frozen=True)
class Points:
    """Loads the cloud of a sample; a `PointSource` of the data sets."""

    config: SweepsConfig
    """Which scans are put together, and in which frame."""

    def look_for_sweeps(
        self, tables: NuScenesTables, tokens: Sequence[str], *, partial: bool
    ) -> None:
        """Find scans around the samples' own that are not there, before they are wanted.

        Args:
            tables: of the data root.
            tokens: samples whose own scans are there.
            partial: go on without those scans, and say so.

        Raises:
            DataError: some are not there, and the root may not be partial.
        """
        past, future = self.config.past, self.config.future
        lacking = [token for token in tokens if tables.lacks_sweeps(token, past, future)]
        told = f"{len(lacking)} of {len(tokens)} samples lack LiDAR scans between key frames"
        if lacking and not partial:
            raise DataError(
                f"{told} under {tables.dataroot}, such as sample {lacking[0]}: unpack the LiDAR "
                "sweeps there, choose scenes that are whole, or train with fewer scans with "
                "--partial"
            )
        if lacking:
            _LOG.warning("%s is partial: %s, which the teacher does not see", tables.dataroot, told)
        self._warn_where_alone(tables, tokens)

    def _warn_where_alone(self, tables: NuScenesTables, tokens: Sequence[str]) -> None:
        """Log a warning if no sample has any of the other scans that the teacher is to see."""
        past, future = self.config.past, self.config.future
        if past + future == 0 or any(tables.lidar_sweeps(t, past, future) for t in tokens):
            return
        _LOG.warning(
            "%s has no LiDAR scans between its key frames: the teacher, which is to see %d scans "
            "before a sample and %d after it, sees the sample's alone",
            tables.dataroot, past, future,
        )  # fmt: skip

    def __call__(
        self,
        tables: NuScenesTables,
        token: str,
        map_from_ego: Transform,
        bev: BevAugmentation,
    ) -> Tensor:
        """(P, 5) of a sample.

        Raises:
            DataError: the sample has no scan, or a file is missing or damaged.
        """
        own = tables.lidar(token)
        others = tables.lidar_sweeps(token, self.config.past, self.config.future)
        before = [record for record in others if record.stamp_ns < own.stamp_ns]
        if self.config.future_needs_past and len(before) < self.config.past:
            others = before
        records = [own, *others]
        scans = [
            Scan(
                record.scan(),
                record.fixed_from_ego @ record.ego_from_sensor,
                # Positive for the past, as the published teacher takes it.
                (own.stamp_ns - record.stamp_ns) / 1e9,
            )
            for record in records
        ]
        frame = map_from_ego if self.config.frame == "model" else own.fixed_from_ego
        return cloud(scans, frame, bev, self.config)
