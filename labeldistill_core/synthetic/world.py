# SPDX-License-Identifier: Apache-2.0
"""One scene: a street, what stands on it, who moves on it, and the light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME
from labeldistill_core.frames import Transform
from labeldistill_core.synthetic.actors import Actor, Motion, Turn
from labeldistill_core.synthetic.light import Light
from labeldistill_core.synthetic.meshes import Color, Mesh, Texture, box, prism
from labeldistill_core.synthetic.objects import SHAPES, SIZES
from labeldistill_core.synthetic.road import KERB_HEIGHT_M, LANE_WIDTH_M, Road

Rng = np.random.Generator

_MARGIN_M = 110.0
"""Street before the first and after the last place of the vehicle."""
_CRUISE_M_S = (3.0, 13.0)
_CREEP_M_S = (0.3, 2.0)
_CROSS_LANE_M = 2.0
"""From the middle of a cross street to the middles of its lanes."""
_TURNING_M_S = (3.0, 4.5)
_TURN_RADIUS_M = {-1: 5.0, 1: 9.0}


@dataclass(frozen=True, eq=False)
class World:
    """Everything that the sensors can see of one scene."""

    road: Road
    """The street that everybody drives and stands on."""
    ego: Actor
    """The vehicle that carries the sensors; it has no mesh that they see."""
    actors: tuple[Actor, ...]
    """Objects that are annotated."""
    clutter: Mesh
    """What is not annotated: surfaces, buildings, vegetation, street furniture; in the map."""
    light: Light
    """Time of day and weather of the scene."""

    def map_from_ego(self, time_s: float) -> Transform:
        """Pose of the vehicle; its frame is on the ground."""
        x, y, _, yaw = self.ego.pose(self.road, time_s)
        quaternion = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        return Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, quaternion, (x, y, 0.0))

    @classmethod
    def sample(cls, rng: Rng, duration_s: float) -> World:
        """A random scene."""
        speed = float(rng.uniform(*_CRUISE_M_S)) * float(rng.random() < 0.9)
        motion = Motion.sample(rng, duration_s, speed)
        # Margins at both ends, so that the street goes on beyond what the sensors see.
        road = Road.sample(rng, motion.distance_m(duration_s) + 2 * _MARGIN_M)
        builder = _Builder(rng, road, duration_s)
        lane = int(rng.integers(road.lanes))
        ego = Actor(
            "car", (4.1, 1.7, 1.6), box((0, 0, 0), (1, 1, 1), (0, 0, 0)), _MARGIN_M,
            road.lane_d(lane, along=True), 0.0, motion, 0.0, parked=False,
        )  # fmt: skip
        # The order matters: what comes first takes the place, and the ego vehicle needs its own.
        builder.reserve(ego.s_m, ego.d_m, 8.0)
        builder.traffic(lane, motion)
        builder.parked()
        builder.works()
        builder.pavement()
        # Those that turn come last, since their paths are checked against everybody else.
        builder.turning(ego)
        clutter = [road.mesh(rng), *builder.furniture(), *builder.buildings()]
        return cls(road, ego, tuple(builder.actors), Mesh.merge(clutter), Light.sample(rng))


class _Builder:
    """Fills a street, keeping things apart."""

    def __init__(self, rng: Rng, road: Road, duration_s: float) -> None:
        self._rng, self._road, self._duration_s = rng, road, duration_s
        # Log-normal, so that most streets are calm and a few are crowded, as in recordings.
        self._density = float(np.clip(rng.lognormal(-0.2, 0.45), 0.3, 1.8))
        self._taken: list[tuple[float, float, float]] = []
        self.actors: list[Actor] = []

    def reserve(self, s: float, d: float, radius: float) -> bool:
        """Take a place unless something is there."""
        # Reach along the street and across it are bounded apart: two lanes side by side may both be
        # taken, though a bus is longer than a lane is wide.
        if any(
            abs(s - s2) < radius + r2 and abs(d - d2) < min(radius, 1.6) + min(r2, 1.6)
            for s2, d2, r2 in self._taken
        ):
            return False
        self._taken.append((s, d, radius))
        return True

    def traffic(self, ego_lane: int, ego_motion: Motion) -> None:
        """Vehicles in the lanes, and waiting or coming in the cross streets."""
        rng, road = self._rng, self._road
        names = ["car", "truck", "bus", "motorcycle", "bicycle", "trailer"]
        shares = [0.6, 0.14, 0.1, 0.05, 0.05, 0.06]
        for along in (True, False):
            for lane in range(road.lanes):
                mine = along and lane == ego_lane
                speed = float(rng.uniform(*(_CREEP_M_S if rng.random() < 0.2 else _CRUISE_M_S)))
                # One motion a lane keeps everybody at his distance, so nobody has to be simulated
                # as a driver.
                motion = ego_motion if mine else Motion.sample(rng, self._duration_s, speed)
                reach = motion.distance_m(self._duration_s)
                # Vehicles that will drive in during the scene have to start before its street.
                s = rng.uniform(0, 25) - (reach if along else 0)
                while s < road.length_m + (0 if along else reach):
                    name = str(rng.choice(names, p=shares))
                    self._vehicle(
                        name, s, road.lane_d(lane, along), 0.0 if along else np.pi, motion
                    )
                    # A Poisson stream of traffic, with room for one vehicle at least.
                    s += rng.exponential(45 / self._density) + 14
        for crossing in road.crossings_s:
            for side in (-1, 1):
                for i in range(int(rng.poisson(0.9 * self._density))):
                    d = side * (road.half_width_m + 5 + 7.5 * i + rng.uniform(0, 2))
                    self._vehicle(
                        str(rng.choice(["car", "truck", "motorcycle"], p=[0.8, 0.1, 0.1])),
                        crossing - side * _CROSS_LANE_M, d, -side * np.pi / 2, Motion.standing(),
                    )  # fmt: skip
                if rng.random() < 0.4:
                    motion = Motion.sample(rng, self._duration_s, float(rng.uniform(3, 8)))
                    start = side * (road.half_width_m + rng.uniform(6, 25))
                    self._vehicle(
                        "car", crossing + side * _CROSS_LANE_M, start, side * np.pi / 2, motion
                    )

    def turning(self, ego: Actor) -> None:
        """Vehicles that turn at a crossing while nobody is in their way."""
        rng, road = self._rng, self._road
        times = np.arange(-0.1, self._duration_s + 0.1, 0.1)
        for crossing in road.crossings_s:
            for _ in range(int(rng.poisson(2.5 * self._density))):
                name = str(rng.choice(["car", "motorcycle", "bicycle"], p=[0.8, 0.1, 0.1]))
                motion = Motion.sample(rng, self._duration_s, float(rng.uniform(*_TURNING_M_S)))
                heading = int(rng.integers(4))  # quarters, from the street's direction
                side = int(rng.choice([-1, 1]))
                lane = (0.5 if side > 0 else road.lanes - 0.5) * LANE_WIDTH_M
                before, behind = (
                    (lane, _CROSS_LANE_M) if heading % 2 == 0 else (_CROSS_LANE_M, lane)
                )
                # In the plane of s and d: a vehicle keeps to the right of where it heads.
                ahead, away = 1j**heading, 1j ** (heading + side)
                corner = crossing - 1j * ahead * before - 1j * away * behind
                radius = _TURN_RADIUS_M[side]
                after = motion.distance_m(rng.uniform(0.0, 0.8) * self._duration_s)
                start = corner - ahead * (radius + after)
                actor = self._actor(
                    name, start.real, start.imag, heading * np.pi / 2, motion,
                    Turn(after, radius, side),
                )  # fmt: skip
                inside = 0 < start.real < road.length_m and abs(start.imag) < 60
                if inside and not any(actor.touches(o, times) for o in (ego, *self.actors)):
                    self.actors.append(actor)

    def parked(self) -> None:
        """Vehicles along the kerbs and in yards."""
        rng, road = self._rng, self._road
        for side in (-1, 1):
            heading = 0.0 if side < 0 else np.pi
            if road.parking_m:
                d, s = side * (road.half_width_m - road.parking_m / 2 - 0.1), rng.uniform(0, 12)
                while s < road.length_m:
                    name = str(
                        rng.choice(
                            ["car", "truck", "motorcycle", "bus", "bicycle"],
                            p=[0.78, 0.09, 0.04, 0.04, 0.05],
                        )
                    )
                    if not road.crosses(s, 6.0):
                        self._vehicle(name, s, d, heading + rng.normal(0, 0.02), Motion.standing())
                    s += 6.5 + rng.exponential(6 / self._density)
            for _ in range(int(rng.poisson(road.length_m / 60 * self._density))):
                name = str(
                    rng.choice(
                        ["car", "trailer", "truck", "construction_vehicle"],
                        p=[0.4, 0.2, 0.22, 0.18],
                    )
                )
                s = rng.uniform(0, road.length_m)
                d = side * (road.half_width_m + road.pavement_m + rng.uniform(4, 9))
                if not road.crosses(s, 10):
                    yaw = heading + rng.choice([0, np.pi / 2, -np.pi / 2, rng.uniform(-3, 3)])
                    self._vehicle(name, s, d, float(yaw), Motion.standing())
                    # No building may grow over a yard with a vehicle in it.
                    self._taken.append((s, d, 8.0))

    def works(self) -> None:
        """Rows of barriers and cones, with machines."""
        rng, road = self._rng, self._road
        for _ in range(int(rng.poisson(road.length_m / 110))):
            side, s = float(rng.choice([-1, 1])), rng.uniform(10, road.length_m - 40)
            inside = max(0.6, road.parking_m)
            d = side * (road.half_width_m - inside + 0.5)
            name = str(rng.choice(["barrier", "traffic_cone"], p=[0.65, 0.35]))
            gap = 2.9 if name == "barrier" else rng.uniform(2.0, 5.0)
            for i in range(int(rng.integers(4, 15))):
                place = s + i * gap
                if not road.crosses(place, 1.0):
                    self._add(
                        name, place, d + rng.normal(0, 0.08), np.pi / 2 + rng.normal(0, 0.05),
                        Motion.standing(), radius=1.3 if name == "barrier" else 0.4, floor=0.0,
                    )  # fmt: skip
            if rng.random() < 0.5:
                off = side * (road.half_width_m + road.pavement_m / 2 + 1.5)
                machine = s + rng.uniform(0, 20)
                self._vehicle(
                    "construction_vehicle",
                    machine,
                    off,
                    float(rng.uniform(-3, 3)),
                    Motion.standing(),
                )
        for _ in range(int(rng.poisson(road.length_m / 140))):
            self._add(
                "traffic_cone", rng.uniform(0, road.length_m),
                float(rng.choice([-1, 1])) * (road.half_width_m - 0.4), 0.0,
                Motion.standing(), radius=0.4, floor=0.0,
            )  # fmt: skip

    def pavement(self) -> None:
        """People, alone and in groups, and parked cycles."""
        rng, road = self._rng, self._road
        # People walk along the pavement in either direction; a group shares its direction and pace.
        walkers = [0.0, np.pi]
        for _ in range(int(rng.poisson(road.length_m / 21 * self._density))):
            side, s = float(rng.choice([-1, 1])), rng.uniform(0, road.length_m)
            stands = rng.random() < 0.2
            speed = float(rng.uniform(0.7, 1.8))
            heading = float(rng.choice(walkers))
            motion = Motion.sample(rng, self._duration_s, speed)
            for _ in range(1 + int(rng.poisson(1.2))):
                d = side * (road.half_width_m + rng.uniform(0.5, road.pavement_m - 0.3))
                yaw = float(rng.uniform(-3, 3)) if stands else heading + rng.normal(0, 0.03)
                self._add(
                    "pedestrian", s + rng.normal(0, 1.2), d, yaw,
                    Motion.standing() if stands else motion, radius=0.45, floor=KERB_HEIGHT_M,
                )  # fmt: skip
        for _ in range(int(rng.poisson(road.length_m / 120))):
            side, s = float(rng.choice([-1, 1])), rng.uniform(0, road.length_m)
            name = str(rng.choice(["bicycle", "motorcycle"]))
            across = rng.random() < 0.7
            gap, lean = (0.95, np.pi / 2) if across else (2.5, 0.0)
            for i in range(int(rng.integers(1, 5))):
                self._add(
                    name, s + i * gap, side * (road.half_width_m + 1.1), lean, Motion.standing(),
                    radius=0.3, floor=KERB_HEIGHT_M,
                )  # fmt: skip

    def _vehicle(self, name: str, s: float, d: float, direction: float, motion: Motion) -> None:
        if name in ("motorcycle", "bicycle") and motion.distance_m(self._duration_s) > 0:
            # Two-wheelers ride in the right half of their lane.
            d -= float(np.cos(direction)) * self._rng.uniform(0, LANE_WIDTH_M * 0.3)
        self._add(name, s, d, direction, motion, radius=SIZES[name].mean[0] / 2 + 0.6, floor=0.0)

    def _add(
        self, name: str, s: float, d: float, direction: float, motion: Motion,
        *, radius: float, floor: float,
    ) -> None:  # fmt: skip
        actor = self._actor(name, s, d, direction, motion, floor=floor)
        # Their sizes vary so much that the mean of the class would let neighbours overlap.
        if name in ("truck", "bus", "trailer", "construction_vehicle"):
            radius = max(radius, actor.size_m[0] / 2 + 0.6)
        if self.reserve(s, d, radius):
            self.actors.append(actor)

    def _actor(
        self, name: str, s: float, d: float, direction: float, motion: Motion,
        turn: Turn | None = None, floor: float = 0.0,
    ) -> Actor:  # fmt: skip
        rng = self._rng
        size = SIZES[name].sample(rng)
        parked = motion.distance_m(self._duration_s) == 0
        if name in ("motorcycle", "bicycle"):
            # With a rider the annotated box is as high as he is.
            height = rng.uniform(1.0, 1.25) if parked else rng.uniform(1.6, 1.85)
            size = (size[0], size[1], float(height))
        mesh = SHAPES[name](rng, *size)
        return Actor(name, size, mesh, s, d, direction, motion, floor, parked, turn)

    def furniture(self) -> list[Mesh]:
        """Trees, lamp posts, bins and hedges."""
        rng, road = self._rng, self._road
        meshes: list[Mesh] = []
        kinds: list[tuple[Callable[[Rng], Mesh], float, float]] = [
            (_tree, 18.0, 0.7),
            (_lamp, 35.0, 0.5),
            (_bin, 45.0, 0.9),
            (_hedge, 40.0, 2.5),
        ]
        for shape, spacing_m, inset_m in kinds:
            for _ in range(int(rng.poisson(2 * road.length_m / spacing_m))):
                side, s = float(rng.choice([-1, 1])), float(rng.uniform(0, road.length_m))
                beyond = shape is _hedge or rng.random() < 0.3
                d = side * (road.half_width_m + (road.pavement_m if beyond else 0) + inset_m)
                if not road.crosses(s, 2.0) and self.reserve(s, d, 0.7):
                    point, heading = road.place(s, d)
                    meshes.append(
                        shape(rng).moved(float(point[0]), float(point[1]), 0, float(heading))
                    )
        return meshes

    def buildings(self) -> list[Mesh]:
        """Fronts along both pavements, with gaps."""
        rng, road = self._rng, self._road
        meshes = []
        for side in (-1.0, 1.0):
            s = rng.uniform(-20, 5)
            while s < road.length_m:
                length, depth = rng.uniform(8, 28), rng.uniform(8, 18)
                # Mostly two or three floors, a tower now and then.
                height = float(np.clip(rng.lognormal(2.1, 0.5), 3.5, 35))
                setback = rng.choice([0.5, 12.0], p=[0.6, 0.4]) + rng.uniform(0, 4)
                d = side * (road.half_width_m + road.pavement_m + setback + depth / 2)
                middle = s + length / 2
                near = abs(d) - depth / 2
                # A front must not stand on what was placed beside the pavement.
                clear = not any(
                    abs(middle - s2) < length / 2 + r2 and abs(d2) > near - 3 and d2 * side > 0
                    for s2, d2, r2 in self._taken
                )
                if clear and rng.random() < 0.8 and not road.crosses(middle, length / 2 + 2):
                    tone, tint = rng.uniform(0.12, 0.55), rng.uniform(0.75, 1.0, 3)
                    color = (float(tone * tint[0]), float(tone * tint[1]), float(tone * tint[2]))
                    point, heading = road.place(middle, d)
                    meshes.append(
                        box(
                            (-length / 2, -depth / 2, -height / 2),
                            (length / 2, depth / 2, height / 2), color, Texture.FACADE,
                        ).moved(float(point[0]), float(point[1]), height / 2, float(heading))
                    )  # fmt: skip
                s += length + rng.choice([0.3, rng.uniform(2, 14)])
        return meshes


def _tree(rng: Rng) -> Mesh:
    height, crown = rng.uniform(4, 9), rng.uniform(1.2, 2.6)
    green = (rng.uniform(0.04, 0.12), rng.uniform(0.12, 0.24), rng.uniform(0.02, 0.06))
    color: Color = (float(green[0]), float(green[1]), float(green[2]))
    low = height * 0.35
    return Mesh.merge(
        [
            prism((0, 0, 0), 0.16, height * 0.6, (0.10, 0.07, 0.05), sides=6),
            prism((0, 0, low), crown * 0.6, height * 0.25, color, top_radius=crown,
                  texture=Texture.FOLIAGE),
            prism((0, 0, low + height * 0.25), crown, height * 0.4, color, top_radius=crown * 0.3,
                  texture=Texture.FOLIAGE),
        ]
    )  # fmt: skip


def _lamp(rng: Rng) -> Mesh:
    gray = float(rng.uniform(0.1, 0.4))
    return prism((0, 0, 0), 0.1, float(rng.uniform(4, 8)), (gray, gray, gray), sides=6)


def _bin(rng: Rng) -> Mesh:
    color: Color = (0.05, 0.14, 0.07) if rng.random() < 0.5 else (0.2, 0.2, 0.22)
    half = float(rng.uniform(0.25, 0.5))
    return box((-half, -half * 0.8, 0), (half, half * 0.8, float(rng.uniform(0.8, 1.3))), color)


def _hedge(rng: Rng) -> Mesh:
    half = float(rng.uniform(0.8, 3.0))
    height = float(rng.uniform(0.6, 1.4))
    return box((-half, -0.5, 0), (half, 0.5, height), (0.07, 0.15, 0.04), Texture.FOLIAGE)
