# SPDX-License-Identifier: Apache-2.0
"""Who stands or moves in a scene, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeldistill_core.frames import Array
from labeldistill_core.synthetic.meshes import Mesh
from labeldistill_core.synthetic.road import Road

_APART_M = 0.3
"""Closer ones count as touching."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Distance travelled over time, shared by all who keep their distance in one lane."""

    times_s: Array
    """(N,) seconds since the scene began, increasing."""
    distances_m: Array
    """(N,) metres travelled since time 0, one for each time."""

    @classmethod
    def standing(cls) -> Motion:
        """Does not move."""
        return cls(np.array([0.0, 1.0]), np.zeros(2))

    @classmethod
    def sample(cls, rng: np.random.Generator, duration_s: float, speed_m_s: float) -> Motion:
        """Cruising, braking to a stop, or setting off."""
        # From before the scene to behind it, since cameras and sweeps look past both ends.
        times = np.arange(-1.0, duration_s + 1.0, 0.05)
        kind = rng.choice(["cruise", "stop", "start"], p=[0.7, 0.15, 0.15])
        at, ramp = rng.uniform(0.2, 0.9) * duration_s, rng.uniform(3.0, 6.0)
        rise = np.clip((times - at) / ramp, 0, 1)
        share = {"cruise": np.ones_like(times), "stop": 1 - rise, "start": rise}[str(kind)]
        # Nobody keeps an exact speed, and a detector must not learn one.
        wave = 1 + 0.08 * np.sin(times * rng.uniform(0.2, 0.6) + rng.uniform(0, 6))
        speeds = speed_m_s * share * wave
        distances = np.concatenate([[0.0], np.cumsum((speeds[1:] + speeds[:-1]) / 2 * 0.05)])
        return cls(times, distances - np.interp(0.0, times, distances))

    @property
    def moves(self) -> bool:
        """Whether it ever changes its place."""
        return bool(np.ptp(self.distances_m) > 0)

    def distance_m(self, time_s: float) -> float:
        """Distance since time 0; negative before."""
        return float(self.distances_at(time_s))

    def distances_at(self, times_s: float | Array) -> Array:
        """Distances since time 0 at several times."""
        return np.asarray(np.interp(times_s, self.times_s, self.distances_m))


@dataclass(frozen=True)
class Turn:
    """A quarter of a circle after a straight run; straight on behind it."""

    after_m: float
    """Distance from the place at time 0 to where the arc begins."""
    radius_m: float
    """Radius of the arc in metres."""
    side: int
    """1 to the left, -1 to the right."""

    def offsets(self, distances_m: Array) -> tuple[Array, Array, Array]:
        """Forward, left and turned angle after distances (N,), each (N,)."""
        arc: Array = np.clip((distances_m - self.after_m) / self.radius_m, 0, np.pi / 2)
        beyond = np.maximum(distances_m - self.after_m - self.radius_m * np.pi / 2, 0)
        forward = np.minimum(distances_m, self.after_m) + self.radius_m * np.sin(arc)
        left = self.radius_m * (1 - np.cos(arc)) + beyond
        sign = float(self.side)
        return forward, sign * left, sign * arc


@dataclass(frozen=True, eq=False)
class Actor:
    """One annotated object."""

    class_name: str
    """Detection class, such as `car`."""
    size_m: tuple[float, float, float]
    """Length, width, height."""
    mesh: Mesh
    """In the object's frame, around its centre."""
    s_m: float
    """Along the street at time 0."""
    d_m: float
    """To the left of the centreline at time 0."""
    direction_rad: float
    """Of motion and heading, from the street's direction."""
    motion: Motion
    """Distance along that direction, or along the turn."""
    floor_m: float
    """Height of the ground under it."""
    parked: bool
    """A vehicle that nobody drives, or a cycle without rider."""
    turn: Turn | None = None
    """Out of that direction; straight on without one."""

    def track(self, times_s: float | Array) -> tuple[Array, Array, Array]:
        """Places s and d on the street, and directions from the street's, at times (N,)."""
        moved = self.motion.distances_at(times_s)
        forward, left, turned = moved, np.zeros_like(moved), np.zeros_like(moved)
        if self.turn:
            forward, left, turned = self.turn.offsets(moved)
        c, s = np.cos(self.direction_rad), np.sin(self.direction_rad)
        direction = self.direction_rad + turned
        return self.s_m + forward * c - left * s, self.d_m + forward * s + left * c, direction

    def pose(self, road: Road, time_s: float) -> tuple[float, float, float, float]:
        """Centre x, y, z in the map and yaw."""
        s, d, direction = self.track(time_s)
        point, heading = road.place(s, d)
        z = self.floor_m + self.size_m[2] / 2
        return float(point[0]), float(point[1]), z, float(heading + direction)

    def touches(self, other: Actor, times_s: Array) -> bool:
        """Whether the two overlap at one of several times, each seen as a row of discs."""
        gap = self._discs(times_s)[:, :, None] - other._discs(times_s)[:, None]
        reach = (self.size_m[1] + other.size_m[1]) / 2 + _APART_M
        return bool((np.hypot(gap[..., 0], gap[..., 1]) < reach).any())

    def _discs(self, times_s: Array) -> Array:
        """(N, discs, 2) centres as wide as the object, along its length."""
        length, width, _ = self.size_m
        s, d, direction = (values[:, None] for values in self.track(times_s))
        # Discs as wide as the object cover its length without a test of rotated rectangles.
        end = max(length - width, 0.0) / 2
        along = np.linspace(-end, end, 1 + int(np.ceil(2 * end / width)))
        return np.stack([s + along * np.cos(direction), d + along * np.sin(direction)], axis=-1)
