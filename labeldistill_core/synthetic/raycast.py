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


class RaycastingScene:
    """A world's triangles: those that stay, ready for rays, and those that move."""

    def __init__(self, world: World) -> None:
        """Gather what does not change between snapshots."""
        self.world = world
        x, y, _, _ = world.ego.pose(world.road, 0.0)
        # Of all coordinates here, in the map, where float32 would be too coarse.
        self.origin: Array = np.array([x, y, 0.0])
        moves = np.array([actor.motion.moves for actor in world.actors], dtype=bool)
        self.movers: NDArray[np.intp] = np.flatnonzero(moves)
        self._poses = self._poses_of(np.arange(len(moves)), 0.0)
        # What stands goes into one acceleration structure, built once a scene; only movers are
        # built anew for each time.
        standing = np.flatnonzero(~moves)
        clutter = world.clutter.moved(-x, -y)
        # In the order of the triangles' indices: clutter, objects that stand, objects that move.
        order = [int(index) for index in (*standing, *self.movers)]
        meshes = [clutter, *(world.actors[index].mesh for index in order)]
        self.colors: Floats = np.concatenate([mesh.colors for mesh in meshes])
        self.textures: Ints = np.concatenate([mesh.textures for mesh in meshes])
        counts = [len(mesh.triangles) for mesh in meshes]
        self.objects: Ints = np.repeat(np.array([CLUTTER, *order], np.int32), counts)
        corners = [mesh.vertices[mesh.triangles] for mesh in meshes]
        empty = np.zeros((0, 3, 3), np.float32)
        split = 1 + len(standing)
        self._moving = np.concatenate([empty, *corners[split:]])
        self.standing_count = int(sum(counts[:split]))
        still = _placed(
            np.concatenate([empty, *corners[1:split]]),
            self.objects[counts[0] : self.standing_count],
            self._poses,
        )
        still = np.concatenate([corners[0], still])
        self._normals = _normals(still)
        self.standing = _scene(still)

    def at(self, time_s: float) -> Snapshot:
        """The world at one time.

        Args:
            time_s: since the scene's first key frame.
        """
        poses = self._poses.copy()
        poses[self.movers] = self._poses_of(self.movers, time_s)
        placed = _placed(self._moving, self.objects[self.standing_count :], poses)
        return Snapshot(self, poses, placed, np.concatenate([self._normals, _normals(placed)]))

    def _poses_of(self, indices: NDArray[np.intp], time_s: float) -> Array:
        actors = [self.world.actors[index] for index in indices]
        poses = [actor.pose(self.world.road, time_s) for actor in actors]
        out: Array = np.array(poses, np.float64).reshape(-1, 4) - [*self.origin, 0.0]
        return out


def _placed(corners: Floats, owners: Ints, poses: Array) -> Floats:
    """Triangles (T, 3, 3) of objects, moved from their objects' frames to where these are."""
    cosine, sine = np.cos(poses[:, 3]), np.sin(poses[:, 3])
    zero, one = np.zeros(len(poses)), np.ones(len(poses))
    rotation = np.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], axis=1).reshape(
        -1, 3, 3
    )
    turned = corners @ rotation.astype(np.float32)[owners].transpose(0, 2, 1)
    out: Floats = turned + poses[owners, None, :3].astype(np.float32)
    return out


def _normals(corners: Floats) -> Floats:
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # A degenerate triangle has no normal; it must not become NaN.
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    out: Floats = (normals / np.maximum(length, 1e-9)).astype(np.float32)
    return out


def _scene(corners: Floats) -> EmbreeScene:
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(corners, np.float32))
    return scene


class Snapshot:
    """The world at one time, ready for rays."""

    def __init__(
        self, geometry: RaycastingScene, poses: Array, moving: Floats, normals: Floats
    ) -> None:
        """Build the acceleration structure of what moves; that of what stands is the geometry's.

        Args:
            geometry: whose triangles these are; coordinates are the map's, less its origin.
            poses: (actors, 4) centre and yaw.
            moving: (M, 3, 3) corners of the triangles that move.
            normals: (T, 3) of all triangles, those that move last.
        """
        self.geometry, self.poses, self.normals = geometry, poses, normals
        self._moving = _scene(moving) if len(moving) else None

    def cast(self, origins: Floats, directions: Floats) -> Hits:
        """First hits of rays.

        Args:
            origins: (N, 3).
            directions: (N, 3), of any length.
        """
        origins = np.ascontiguousarray(origins, np.float32)
        directions = np.ascontiguousarray(directions, np.float32)
        hit = self.geometry.standing.run(origins, directions, query="INTERSECT", output=True)
        distances, triangles = hit["tfar"], hit["primID"]
        if self._moving:
            other = self._moving.run(origins, directions, query="INTERSECT", output=True)
            # Two structures are asked, so the nearer of two hits counts.
            nearer = (other["primID"] >= 0) & (other["tfar"] < distances)
            distances[nearer] = other["tfar"][nearer]
            triangles[nearer] = other["primID"][nearer] + self.geometry.standing_count
        return Hits(triangles >= 0, distances, triangles)

    def lit(self, points: Floats, direction: Floats) -> NDArray[np.bool_]:
        """Whether nothing stands between points (N, 3) and a far light in a direction (3,)."""
        points = np.ascontiguousarray(points, np.float32)
        directions = np.ascontiguousarray(np.broadcast_to(direction, points.shape), np.float32)
        lit = np.asarray(self.geometry.standing.run(points, directions, query="OCCLUDED")) < 0
        if self._moving:
            lit &= np.asarray(self._moving.run(points, directions, query="OCCLUDED")) < 0
        return lit
