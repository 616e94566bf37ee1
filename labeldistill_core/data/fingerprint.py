# SPDX-License-Identifier: Apache-2.0
"""Hashes of what the tables say of samples: what a run that goes on must find as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import SensorRecord

_MOST_STEPS = 2.0**62
"""Farther ones are no 64-bit integers."""


def boxes_sha256(tables: NuScenesTables, tokens: Sequence[str]) -> str:
    """Hash of the boxes that samples have, as far as training and scoring see them.

    Args:
        tables: of the data root.
        tokens: of the samples.
    """
    digest = hashlib.sha256()
    for token in tokens:
        truth = tables.ground_truth(token)
        digest.update(_rounded(truth.boxes.values.numpy(), 1e4))
        said = truth.boxes.labels.tolist(), truth.attributes, truth.num_lidar_pts
        digest.update(repr(said).encode())
        # Told where there are any: both decide which boxes count.
        if any(truth.num_radar_pts):
            digest.update(f"radar {truth.num_radar_pts}".encode())
        if len(truth.bicycle_racks):
            digest.update(b"racks" + _rounded(truth.bicycle_racks, 1e4))
    return digest.hexdigest()


def sensors_sha256(tables: NuScenesTables, tokens: Sequence[str]) -> str:
    """Hash of the cameras and LiDAR scans of samples: calibrations, poses, times and files.

    Files count by their names and by whether they are there, not by what is in them.

    Args:
        tables: of the data root.
        tokens: of the samples.
    """
    digest = hashlib.sha256()
    for token in tokens:
        for channel, record in sorted(tables.sensors(token).items()):
            if record.modality in ("camera", "lidar"):
                _add(digest, tables, channel, record)
    return digest.hexdigest()


def poses_sha256(tables: NuScenesTables, tokens: Sequence[str], *, scans: bool) -> str:
    """Hash of what is known of samples without their images: poses, and the LiDAR scan.

    As `sensors_sha256`, but no image that comes or goes changes it.

    Args:
        tables: of the data root.
        tokens: of the samples.
        scans: with the scan of each, which is to be there; else the poses alone.
    """
    digest = hashlib.sha256()
    for token in tokens:
        for channel, pose in sorted(tables.camera_poses(token).items()):
            digest.update(channel.encode() + _rounded(pose.matrix, 1e6))
        if scans:
            record = tables.lidar(token)
            _add(digest, tables, record.channel, record)
    return digest.hexdigest()


def sweeps_sha256(
    tables: NuScenesTables, tokens: Sequence[str], past: int, future: int
) -> str | None:
    """Hash of the LiDAR scans around those of samples, as `sensors_sha256` has their own.

    Args:
        tables: of the data root.
        tokens: of the samples.
        past: scans before each, at most.
        future: scans after it, at most.

    Returns:
        None where no scans are asked for.
    """
    if not past and not future:
        return None
    digest = hashlib.sha256()
    for token in tokens:
        digest.update(token.encode())
        for record in tables.lidar_sweeps(token, past, future):
            _add(digest, tables, record.channel, record)
    return digest.hexdigest()


def _add(digest: Any, tables: NuScenesTables, channel: str, record: SensorRecord) -> None:
    name = record.path.relative_to(tables.dataroot).as_posix()
    said = channel, record.stamp_ns, record.width_px, record.height_px, name
    digest.update(repr((*said, record.is_there)).encode())
    poses = record.ego_from_sensor.matrix, record.fixed_from_ego.matrix, record.intrinsics_px
    # Together, since a data root has a million of them.
    digest.update(_rounded(np.concatenate([values.ravel() for values in poses]), 1e6))


def _rounded(values: Any, share: float) -> bytes:
    """Numbers in steps of one over a share: the last bits of poses depend on the processor."""
    with np.errstate(over="ignore"):  # whoever uses such numbers refuses them by name
        steps = np.round(values * share)
    steps[np.isnan(steps)] = -1e9
    return bytes(steps.clip(-_MOST_STEPS, _MOST_STEPS).astype(np.int64).tobytes())
