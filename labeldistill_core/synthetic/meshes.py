# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes with a colour and a texture for each triangle, and the solids they are made of.

Shapes: V vertices, T triangles. Axes: x forward, y left, z up, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Color = tuple[float, float, float]


class Texture(IntEnum):
    """How a surface varies around its colour."""

    PLAIN = 0
    ROUGH = 1
    FOLIAGE = 2
    FACADE = 3
    GROUND = 4


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles of one object, in the object's frame or in the map."""

    vertices: Floats
    """(V, 3) positions in metres."""
    triangles: Ints
    """(T, 3) indices of vertices, counter-clockwise from outside."""
    colors: Floats
    """(T, 3) albedo in 0 to 1, linear RGB."""
    textures: Ints
    """(T,) number of the `Texture` that each triangle has."""

    @classmethod
    def merge(cls, meshes: Sequence[Mesh]) -> Mesh:
        """All triangles of several meshes."""
        starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
        return cls(
            np.concatenate([mesh.vertices for mesh in meshes]),
            np.concatenate(
                [m.triangles + np.int32(start) for m, start in zip(meshes, starts, strict=False)]
            ),
            np.concatenate([mesh.colors for mesh in meshes]),
            np.concatenate([mesh.textures for mesh in meshes]),
        )

    def moved(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Mesh:
        """Turned about z, then shifted."""
        c, s = np.cos(yaw), np.sin(yaw)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        shift = np.array([x, y, z], np.float32)
        return replace(self, vertices=self.vertices @ rotation.T + shift)


_CUBE = np.array(
    [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32
)
_CUBE_TRIANGLES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ],
    np.int32,
)  # fmt: skip


def _mesh(vertices: Floats, triangles: Ints, color: Color, texture: Texture) -> Mesh:
    count = len(triangles)
    return Mesh(
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        np.tile(np.asarray(color, np.float32), (count, 1)),
        np.full(count, int(texture), np.int32),
    )


def box(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    color: Color,
    texture: Texture = Texture.PLAIN,
    taper: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Mesh:
    """Cuboid between two corners.

    Args:
        low: smallest x, y, z.
        high: largest x, y, z.
        color: albedo.
        texture: of all sides.
        taper: by how much the top is drawn in at the front, at the rear and at both sides.
    """
    lo, hi = np.asarray(low, np.float32), np.asarray(high, np.float32)
    vertices = (_CUBE + 0.5) * (hi - lo) + lo
    # Drawn in where the cube's corners were, so that front, rear and sides can taper together.
    top = _CUBE[:, 2] > 0
    vertices[top & (_CUBE[:, 0] > 0), 0] -= taper[0]
    vertices[top & (_CUBE[:, 0] < 0), 0] += taper[1]
    vertices[top, 1] -= np.sign(_CUBE[top, 1]) * taper[2]
    return _mesh(vertices, _CUBE_TRIANGLES, color, texture)


def tube(
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    thickness: float,
    color: Color,
) -> Mesh:
    """Square bar between two points that differ in x or z.

    Args:
        start: middle of one end.
        end: middle of the other.
        thickness: edge of the cross-section.
        color: albedo.
    """
    a, b = np.asarray(start), np.asarray(end)
    axis = (b - a) / np.linalg.norm(b - a)
    # Across the axis in the plane of x and z; for a bar along y it would be zero.
    side = np.array([-axis[2], 0.0, axis[0]])
    side /= np.linalg.norm(side)
    across = np.stack([side, np.cross(axis, side)]) * thickness
    vertices = a + (_CUBE[:, :1] + 0.5) * (b - a) + _CUBE[:, 1:] @ across
    return _mesh(vertices, _CUBE_TRIANGLES, color, Texture.PLAIN)


def prism(
    center: tuple[float, float, float],
    radius: float,
    height: float,
    color: Color,
    *,
    axis: str = "z",
    top_radius: float | None = None,
    sides: int = 8,
    texture: Texture = Texture.PLAIN,
) -> Mesh:
    """Cylinder, cone or frustum as a prism of `sides` sides.

    Args:
        center: middle of the bottom disc.
        radius: of the bottom disc.
        height: along the axis, from the bottom disc to the top.
        color: albedo.
        axis: "y" or "z".
        top_radius: of the top disc; the same as `radius` when not given.
        sides: number of sides.
        texture: of all sides.
    """
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    top = radius if top_radius is None else top_radius
    low = np.column_stack([ring * radius, np.zeros(sides)])
    high = np.column_stack([ring * top, np.full(sides, height)])
    ends = np.array([[0, 0, 0], [0, 0, height]])
    vertices = np.concatenate([low, high, ends])
    if axis == "y":  # x stays, the disc's second direction becomes -z
        vertices = np.column_stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]])
    i = np.arange(sides)
    j = (i + 1) % sides
    bottom_center, top_center = np.full(sides, 2 * sides), np.full(sides, 2 * sides + 1)
    triangles = np.concatenate(
        [
            np.column_stack([i, j, j + sides]),
            np.column_stack([i, j + sides, i + sides]),
            np.column_stack([bottom_center, j, i]),
            np.column_stack([top_center, i + sides, j + sides]),
        ]
    )
    return _mesh(vertices + np.asarray(center), triangles, color, texture)
