# SPDX-License-Identifier: Apache-2.0
"""Scans of a world by a spinning 32-beam LiDAR."""

from __future__ import annotations

import numpy as np

from labeldistill_core.frames import Transform
from labeldistill_core.synthetic.meshes import Floats
from labeldistill_core.synthetic.raycast import Snapshot
from labeldistill_core.synthetic.rig import LIDAR_PERIOD_S, ego_from_lidar

BEAMS = 32
AZIMUTHS = 1084
_ELEVATIONS_RAD = np.radians(np.linspace(-30.67, 10.67, BEAMS))
_RANGE_M = (1.0, 100.0)
_RANGE_NOISE_M = 0.02


def scan(
    snapshot: Snapshot,
    time_s: float,
    rng: np.random.Generator,
    mounted: Transform | None = None,
) -> Floats:
    """One turn that ends at a given time.

    The vehicle moves during the turn; points are given where they are seen from at its end.

    Args:
        snapshot: the world at the end of the turn.
        time_s: end of the turn.
        rng: for noise and dropouts.
        mounted: its mounting pose, `ego` from the LiDAR's frame; that of nuScenes when None.

    Returns:
        (P, 5): x, y, z in the LiDAR's frame, metres, intensity in 0 to 255, ring.
    """
    world = snapshot.geometry.world
    mounted = mounted or ego_from_lidar()
    map_from_lidar = world.map_from_ego(time_s) @ mounted
    start = (world.map_from_ego(time_s - LIDAR_PERIOD_S) @ mounted).translation
    share = np.arange(AZIMUTHS) / AZIMUTHS  # of the turn
    # The sensor spins clockwise and ends where it began, behind the vehicle.
    azimuth = np.pi - 2 * np.pi * share
    azimuth, elevation = np.meshgrid(azimuth, _ELEVATIONS_RAD)
    rays = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        axis=-1,
    ).reshape(-1, 3)
    directions = (rays @ map_from_lidar.rotation.T).astype(np.float32)
    # Each ray starts where the sensor was when it fired, so scans are distorted by the vehicle's
    # motion and corrected as in nuScenes.
    path = start + share[:, None] * (map_from_lidar.translation - start) - snapshot.geometry.origin
    origins = np.tile(path, (BEAMS, 1)).astype(np.float32)
    hits = snapshot.cast(origins, directions)

    kept = hits.mask & (hits.distances_m > _RANGE_M[0]) & (hits.distances_m < _RANGE_M[1])
    distances, triangles = hits.distances_m[kept], hits.triangles[kept]
    cosine = np.abs(np.einsum("ij,ij->i", snapshot.normals[triangles], directions[kept]))
    albedo = snapshot.geometry.colors[triangles].mean(axis=1)
    # The echo falls with the square of the distance; dark or slanting surfaces vanish first.
    echo = (0.08 + albedo) * (0.25 + 0.75 * cosine) * (31.0 / np.maximum(distances, 5.0)) ** 2
    # Even a good echo is lost now and then.
    returned = rng.random(len(echo)) < 0.98 * (1 - np.exp(-2.0 * echo))
    noisy = distances + rng.normal(0, _RANGE_NOISE_M, len(distances))
    points = origins[kept] + directions[kept] * noisy[:, None] + snapshot.geometry.origin
    local = map_from_lidar.inverse.apply(points)
    intensity = np.clip(255 * albedo * (0.2 + 0.8 * cosine) * 0.5, 0, 255).astype(int)
    rings = np.repeat(np.arange(BEAMS), AZIMUTHS)[kept]
    out: Floats = np.column_stack([local, intensity, rings]).astype(np.float32)[returned]
    return out
