# SPDX-License-Identifier: Apache-2.0
"""A street: its centreline, what lies across it, and its surfaces.

A place is given by (s, d): metres along the centreline, and metres to its left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from labeldistill_core.frames import Array
from labeldistill_core.synthetic.meshes import Color, Mesh, Texture

LANE_WIDTH_M = 3.5
KERB_HEIGHT_M = 0.12
CROSS_STREET_HALF_WIDTH_M = 4.5
SURROUNDINGS_M = 75.0
"""How far cross streets and the ground reach from the centreline."""

_STEP_M = 0.5
_QUAD_M = 2.0
_ASPHALT: Color = (0.10, 0.10, 0.105)
_PAVING: Color = (0.30, 0.29, 0.28)
_KERB: Color = (0.42, 0.41, 0.40)
_WHITE: Color = (0.62, 0.62, 0.60)
_YELLOW: Color = (0.60, 0.45, 0.08)


@dataclass(frozen=True, eq=False)
class Road:
    """A street with pavements on both sides and cross streets."""

    points: Array
    """(N, 2) centreline in the map, a point each half metre."""
    headings: Array
    """(N,) direction of the centreline, radians, without jumps."""
    lanes: int
    """Lanes in each direction; traffic keeps to the right."""
    parking_m: float
    """Width of the parking strip on each side, 0 without one."""
    pavement_m: float
    """Width of the pavements."""
    crossings_s: tuple[float, ...]
    """Where cross streets meet the centreline."""

    @classmethod
    def sample(cls, rng: np.random.Generator, length_m: float) -> Road:
        """A random street of a given length."""
        count = int(length_m / _STEP_M) + 1
        bend = np.zeros(count)
        start = 0
        while start < count:
            run = int(rng.uniform(30, 90) / _STEP_M)
            curved = rng.random() < 0.45
            bend[start : start + run] = rng.choice([-1, 1]) / rng.uniform(70, 250) * curved
            start += run
        # A steering wheel turns gradually: the mean over 15 m takes the jumps out of the curvature.
        bend = np.convolve(bend, np.full(31, 1 / 31), mode="same")
        headings = rng.uniform(-np.pi, np.pi) + np.cumsum(bend) * _STEP_M
        steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * _STEP_M
        points = np.cumsum(steps, axis=0)
        points += rng.uniform(100, 200, 2) - points.min(axis=0)  # nuScenes' maps begin at zero
        crossings, s = [], rng.uniform(20, 90)
        while s < length_m:
            crossings.append(float(s))
            s += rng.uniform(55, 130)
        return cls(
            points=points,
            headings=headings,
            lanes=int(rng.choice([1, 2], p=[0.55, 0.45])),
            parking_m=float(rng.choice([0.0, 2.4], p=[0.3, 0.7])),
            pavement_m=float(rng.uniform(2.5, 5.0)),
            crossings_s=tuple(crossings),
        )

    @property
    def length_m(self) -> float:
        """Length of the centreline."""
        return (len(self.points) - 1) * _STEP_M

    @property
    def half_width_m(self) -> float:
        """From the centreline to the kerb."""
        return self.lanes * LANE_WIDTH_M + self.parking_m

    def lane_d(self, lane: int, along: bool) -> float:
        """Middle of a lane; lane 0 is next to the centreline, `along` runs towards larger s."""
        return (-1 if along else 1) * (lane + 0.5) * LANE_WIDTH_M

    def crosses(self, s: float, margin_m: float = 0.0) -> bool:
        """Whether a cross street lies at s."""
        return any(abs(s - c) < CROSS_STREET_HALF_WIDTH_M + margin_m for c in self.crossings_s)

    def place(self, s: ArrayLike, d: ArrayLike) -> tuple[Array, Array]:
        """Points (..., 2) in the map and headings (...) of the centreline beside them."""
        at = np.asarray(s, np.float64) / _STEP_M
        index = np.arange(len(self.points))
        x, y, heading = (
            np.interp(at, index, values)
            for values in (self.points[:, 0], self.points[:, 1], self.headings)
        )
        offset = np.asarray(d, np.float64)
        return np.stack(
            [x - np.sin(heading) * offset, y + np.cos(heading) * offset], axis=-1
        ), np.asarray(heading)

    def mesh(self, rng: np.random.Generator) -> Mesh:
        """All surfaces that one can drive or walk on, and the ground around them."""
        half, edges = self.half_width_m, np.arange(0.0, self.length_m, _QUAD_M)
        blocked = np.array([self.crosses(s + _QUAD_M / 2) for s in edges])
        outer = half + self.pavement_m
        strips = [
            _Strip(self, edges, -half, half, (0.0, 0.0), _ASPHALT),
            *self._markings(edges, blocked),
        ]
        for side in (-1, 1):
            kerb = (side * half, side * (half + 0.15))
            pavement, free = (side * (half + 0.15), side * outer), edges[~blocked]
            strips += [
                _Strip(
                    self, free, side * half, side * half + side * 1e-3, (0.0, KERB_HEIGHT_M), _KERB
                ),
                _Strip(self, free, *kerb, (KERB_HEIGHT_M, KERB_HEIGHT_M), _KERB),
                _Strip(self, free, *pavement, (KERB_HEIGHT_M, KERB_HEIGHT_M), _PAVING),
                _Strip(
                    self, edges[blocked], side * half, side * SURROUNDINGS_M, (0.0, 0.0), _ASPHALT
                ),
            ]
        return Mesh.merge([strip.mesh() for strip in strips] + [self._ground(rng)])

    def _markings(self, edges: Array, blocked: Array) -> list[_Strip]:
        free = edges[~blocked.astype(bool)]
        # Two quads of paint, two of none.
        dashes = free[(free / _QUAD_M).astype(int) % 4 < 2]
        height, half_width = (0.004, 0.004), 0.07
        lines = [(0.0, free, _YELLOW if self.lanes == 2 else _WHITE)]
        lines += [
            (side * lane * LANE_WIDTH_M, dashes, _WHITE)
            for side in (-1, 1)
            for lane in range(1, self.lanes)
        ]
        if self.parking_m:
            lines += [(side * self.lanes * LANE_WIDTH_M, free, _WHITE) for side in (-1, 1)]
        out = [
            _Strip(self, at, d - half_width, d + half_width, height, color)
            for d, at, color in lines
        ]
        half = self.lanes * LANE_WIDTH_M
        for crossing in self.crossings_s:
            for edge in (-1, 1):
                s = np.array([crossing + edge * (CROSS_STREET_HALF_WIDTH_M + 1.0) - _QUAD_M / 2])
                out += [
                    _Strip(self, s, d, d + 0.5, height, _WHITE)
                    for d in np.arange(-half + 0.3, half - 0.5, 1.0)
                ]
        return out

    def _ground(self, rng: np.random.Generator) -> Mesh:
        low = self.points.min(0) - SURROUNDINGS_M * 2
        high = self.points.max(0) + SURROUNDINGS_M * 2
        corners = [[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]]
        color = ((0.13, 0.16, 0.06), (0.24, 0.22, 0.19), (0.17, 0.16, 0.15))[rng.integers(3)]
        return Mesh(
            # Three centimetres lower than the street, so that the two surfaces do not flicker.
            np.column_stack([corners, np.full(4, -0.03)]).astype(np.float32),
            np.array([[0, 1, 2], [0, 2, 3]], np.int32),
            np.tile(np.asarray(color, np.float32), (2, 1)),
            np.full(2, int(Texture.GROUND), np.int32),
        )


@dataclass(frozen=True, eq=False)
class _Strip:
    """Quads between two offsets from the centreline, at the given starts along it."""

    road: Road
    starts: Array
    d_from: float
    d_to: float
    heights: tuple[float, float]
    color: Color

    def mesh(self) -> Mesh:
        n = len(self.starts)
        corners = [
            (self.starts, self.d_from, self.heights[0]),
            (self.starts + _QUAD_M, self.d_from, self.heights[0]),
            (self.starts + _QUAD_M, self.d_to, self.heights[1]),
            (self.starts, self.d_to, self.heights[1]),
        ]
        vertices = np.stack(
            [
                np.column_stack([self.road.place(s, np.full(n, d))[0], np.full(n, z)])
                for s, d, z in corners
            ],
            axis=1,
        )
        first = 4 * np.arange(n)[:, None]
        triangles = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
        return Mesh(
            vertices.reshape(-1, 3).astype(np.float32),
            triangles.astype(np.int32),
            np.tile(np.asarray(self.color, np.float32), (2 * n, 1)),
            np.full(2 * n, int(Texture.GROUND), np.int32),
        )
