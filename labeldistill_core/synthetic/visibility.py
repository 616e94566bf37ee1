# SPDX-License-Identifier: Apache-2.0
"""How much of an object the cameras see."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.cameras import CameraCalibration
from labeldistill_core.frames import Array, Transform
from labeldistill_core.synthetic.raycast import Snapshot

_SURFACE_POINTS = 60


def visible_shares(
    snapshot: Snapshot,
    indices: NDArray[np.intp],
    map_from_ego: Transform,
    cameras: Iterable[CameraCalibration],
) -> Array:
    """Share of each object's surface that lies in one camera's view with nothing else before it.

    A far side is hidden by the object itself: that does not make it less visible.

    Args:
        snapshot: the world at the time.
        indices: (N,) of objects in the world.
        map_from_ego: pose of the vehicle at the time.
        cameras: of the vehicle; the one that sees most of an object counts.

    Returns:
        (N,) in 0 to 1.
    """
    if not len(indices):
        return np.zeros(0)
    geometry = snapshot.geometry
    surfaces = [_surface(snapshot, int(index)) for index in indices]
    points = np.concatenate(surfaces)
    counts = np.array([len(surface) for surface in surfaces])
    owners = np.repeat(np.arange(len(indices)), counts)
    best = np.zeros(len(indices))
    for camera in cameras:
        map_from_camera = map_from_ego @ camera.ego_from_camera
        u, v, depth = camera.project(map_from_camera.inverse.apply(points + geometry.origin)).T
        seen = (depth > 0.3) & (u >= 0) & (v >= 0)
        seen &= (u < camera.width_px) & (v < camera.height_px)
        origin = map_from_camera.translation - geometry.origin
        rays = (points[seen] - origin).astype(np.float32)
        hits = snapshot.cast(np.broadcast_to(origin, rays.shape), rays)
        own = hits.mask & (geometry.objects[hits.triangles] == indices[owners[seen]])
        # nuScenes rates visibility over all six cameras; the best of them is close to it and needs
        # no union of views.
        best = np.maximum(best, np.bincount(owners[seen][own], minlength=len(indices)) / counts)
    return best


def _surface(snapshot: Snapshot, index: int) -> Array:
    mesh = snapshot.geometry.world.actors[index].mesh
    # The annotation knows four levels of visibility, which a sample of the surface tells apart.
    step = max(1, len(mesh.triangles) // _SURFACE_POINTS)
    local = mesh.vertices[mesh.triangles[::step]].mean(axis=1)
    x, y, z, yaw = snapshot.poses[index]
    c, s = np.cos(yaw), np.sin(yaw)
    return np.column_stack(
        [
            local[:, 0] * c - local[:, 1] * s + x,
            local[:, 0] * s + local[:, 1] * c + y,
            local[:, 2] + z,
        ]
    )
