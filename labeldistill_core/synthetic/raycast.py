# SPDX-License-Identifier: Apache-2.0
"""What rays hit in a world at one time, by Embree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from labeldistill_core.frames import Array
from labeldistill_core.synthetic.meshes import Floats, Ints
from labeldistill_core.synthetic.world import World

CLUTTER = -1
"""Object index of whatever is not annotated."""


@dataclass(frozen=True, eq=False)
class Hits:
    """Where N rays end."""

    mask: NDArray[np.bool_]
    """(N,) whether a ray hit anything."""
    distances_m: Floats
    """(N,) along the ray, in lengths of its direction; large where nothing was hit."""
    triangles: Ints
    """(N,) index of the triangle, -1 where nothing was hit."""


class Stage:
    """A world's triangles, those that stay and those that move with an object."""

    def __init__(self, world: World) -> None:
        """Gather what does not change between snapshots."""
        self.world = world
        x, y, _, _ = world.ego.pose(world.road, 0.0)
        # Of all coordinates here, in the map, where float32 would be too coarse.
        self.origin: Array = np.array([x, y, 0.0])
        clutter = world.clutter.moved(-x, -y)
        self._clutter = clutter.vertices[clutter.triangles]
        self._clutter_normals = _normals(self._clutter)
        meshes = [actor.mesh for actor in world.actors]
        corners = [mesh.vertices[mesh.triangles] for mesh in meshes]
        counts = [len(clutter.triangles), *(len(mesh.triangles) for mesh in meshes)]
        self.colors: Floats = np.concatenate([clutter.colors, *(m.colors for m in meshes)])
        self.textures: Ints = np.concatenate([clutter.textures, *(m.textures for m in meshes)])
        self.objects: Ints = np.repeat(
            np.arange(CLUTTER, len(meshes), dtype=np.int32), np.array(counts)
        )
        self._moving_objects = self.objects[counts[0] :]
        self._moving = np.concatenate(corners or [np.zeros((0, 3, 3), np.float32)])

    def at(self, time_s: float) -> Snapshot:
        """The world at one time.

        Args:
            time_s: since the scene's first key frame.
        """
        poses = np.array([a.pose(self.world.road, time_s) for a in self.world.actors])
        poses = poses.reshape(-1, 4) - [*self.origin, 0.0]
        cosine, sine = np.cos(poses[:, 3]), np.sin(poses[:, 3])
        zero, one = np.zeros(len(poses)), np.ones(len(poses))
        rotation = np.stack(
            [cosine, -sine, zero, sine, cosine, zero, zero, zero, one], axis=1
        ).reshape(-1, 3, 3)
        owner = self._moving_objects
        turned = self._moving @ rotation.astype(np.float32)[owner].transpose(0, 2, 1)
        placed = turned + poses[owner, None, :3].astype(np.float32)
        corners = np.concatenate([self._clutter, placed])
        normals = np.concatenate([self._clutter_normals, _normals(placed)])
        return Snapshot(self, poses, corners, normals)


def _normals(corners: Floats) -> Floats:
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    out: Floats = (normals / np.maximum(length, 1e-9)).astype(np.float32)
    return out


class Snapshot:
    """The world at one time, ready for rays."""

    def __init__(self, stage: Stage, poses: Array, corners: Floats, normals: Floats) -> None:
        """Build the acceleration structure.

        Args:
            stage: whose triangles these are; coordinates are the map's, less its origin.
            poses: (actors, 4) centre and yaw.
            corners: (T, 3, 3).
            normals: (T, 3).
        """
        self.stage, self.poses, self.normals = stage, poses, normals
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(corners, np.float32))

    def cast(self, origins: Floats, directions: Floats) -> Hits:
        """First hits of rays.

        Args:
            origins: (N, 3).
            directions: (N, 3), of any length.
        """
        hit = self._scene.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            query="INTERSECT",
            output=True,
        )
        return Hits(hit["primID"] >= 0, hit["tfar"], hit["primID"])

    def lit(self, points: Floats, direction: Floats) -> NDArray[np.bool_]:
        """Whether nothing stands between points (N, 3) and a far light in a direction (3,)."""
        directions = np.ascontiguousarray(np.broadcast_to(direction, points.shape), np.float32)
        blocked = self._scene.run(np.ascontiguousarray(points), directions, query="OCCLUDED")
        return np.asarray(blocked) < 0
