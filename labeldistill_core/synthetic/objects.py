# SPDX-License-Identifier: Apache-2.0
"""What the ten classes look like: shapes that fill their annotated box, in its frame.

Each function takes a generator and the box's length, width and height in metres and gives a mesh
around the box's centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from labeldistill_core.synthetic.meshes import Color, Mesh, Texture, box, prism, tube

Rng = np.random.Generator
Point = tuple[float, float, float]
Hubs = tuple[Point, Point]

_TYRE: Color = (0.03, 0.03, 0.03)
_GLASS: Color = (0.06, 0.07, 0.09)
_HEADLIGHT: Color = (0.9, 0.9, 0.8)
_TAILLIGHT: Color = (0.55, 0.03, 0.03)
_TUBE_M, _RIM_M = 0.045, 0.05


@dataclass(frozen=True)
class SizeRange:
    """Sizes of a class: mean and standard deviation of length, width, height, metres."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def sample(self, rng: Rng) -> tuple[float, float, float]:
        """One size; length, width and height grow together in part."""
        common = rng.normal()
        factor = [
            1 + s / m * (0.7 * common + 0.7 * float(np.clip(rng.normal(), -2, 2)))
            for m, s in zip(self.mean, self.std, strict=True)
        ]
        length, width, height = (
            m * float(np.clip(f, 0.6, 1.6)) for m, f in zip(self.mean, factor, strict=True)
        )
        return length, width, height


# Means over nuScenes as its detection literature gives them (method.md's anchors agree).
SIZES: dict[str, SizeRange] = {
    "car": SizeRange((4.62, 1.95, 1.73), (0.46, 0.16, 0.24)),
    "truck": SizeRange((6.93, 2.51, 2.84), (1.8, 0.43, 0.74)),
    "construction_vehicle": SizeRange((6.37, 2.85, 3.19), (2.2, 0.6, 0.6)),
    "bus": SizeRange((11.2, 2.94, 3.47), (1.4, 0.2, 0.4)),
    "trailer": SizeRange((12.3, 2.92, 3.87), (2.6, 0.3, 0.6)),
    "barrier": SizeRange((0.50, 2.53, 0.98), (0.14, 0.5, 0.12)),
    "motorcycle": SizeRange((2.11, 0.77, 1.47), (0.28, 0.15, 0.2)),
    "bicycle": SizeRange((1.70, 0.60, 1.28), (0.2, 0.15, 0.25)),
    "pedestrian": SizeRange((0.73, 0.67, 1.77), (0.15, 0.12, 0.15)),
    "traffic_cone": SizeRange((0.41, 0.41, 1.07), (0.1, 0.1, 0.2)),
}

_PAINTS: tuple[Color, ...] = (
    (0.75, 0.75, 0.75), (0.45, 0.46, 0.48), (0.06, 0.06, 0.07), (0.20, 0.21, 0.23),
    (0.42, 0.04, 0.04), (0.05, 0.09, 0.30), (0.55, 0.47, 0.33), (0.05, 0.20, 0.10),
    (0.70, 0.50, 0.05), (0.65, 0.25, 0.04),
)  # fmt: skip
_PAINT_SHARES = np.array([0.22, 0.17, 0.15, 0.14, 0.08, 0.08, 0.06, 0.04, 0.03, 0.03])


def _paint(rng: Rng) -> Color:
    r, g, b = _PAINTS[rng.choice(len(_PAINTS), p=_PAINT_SHARES)]
    shade = rng.uniform(0.8, 1.2)
    return (min(r * shade, 0.9), min(g * shade, 0.9), min(b * shade, 0.9))


def _cloth(rng: Rng) -> Color:
    gray = rng.uniform(0.03, 0.6)
    tint = rng.uniform(0.4, 1.0, 3)
    return (float(gray * tint[0]), float(gray * tint[1]), float(gray * tint[2]))


def _wheels(
    length: float, width: float, height: float, radius: float, axles: int = 2
) -> list[Mesh]:
    at = np.linspace(-length * 0.32, length * 0.32, axles)
    thickness = min(0.25, width * 0.2)
    return [
        prism((x, y, -height / 2 + radius), radius, thickness, _TYRE, axis="y")
        for x in at
        for y in (-width / 2, width / 2 - thickness)
    ]


def _lights(length: float, width: float, low: float, high: float) -> list[Mesh]:
    f, w = length / 2, width / 2
    return [
        box((x, y, low), (x + 0.02, y + w * 0.35, high), color)
        for x, color in ((f - 0.02, _HEADLIGHT), (-f, _TAILLIGHT))
        for y in (-w * 0.98, w * 0.63)
    ]


def _car(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    paint = _paint(rng)
    waist = b + height * rng.uniform(0.52, 0.6)
    long_roof = rng.random() < 0.45
    rear, front = (-f * 0.97 if long_roof else -f * 0.7), f * rng.uniform(0.35, 0.5)
    taper = (length * 0.13, length * (0.03 if long_roof else 0.1), width * 0.08)
    return Mesh.merge(
        [
            box((-f, -w, b + height * 0.16), (f, w, waist), paint, taper=(0.04, 0.04, 0.03)),
            box(
                (rear, -w * 0.95, waist), (front, w * 0.95, height / 2 - 0.06), _GLASS, taper=taper
            ),
            box(
                (rear + taper[1], -w * 0.86, height / 2 - 0.06),
                (front - taper[0], w * 0.86, height / 2),
                paint,
            ),
            *_wheels(length, width, height, height * 0.19),
            *_lights(length, width, b + height * 0.38, b + height * 0.47),
        ]
    )


def _truck(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    paint, cargo = _paint(rng), _paint(rng)
    cab = f - min(2.0, length * 0.3)
    cab_top = b + min(height, max(1.9, height * rng.uniform(0.7, 1.0)))
    bed = height / 2 if rng.random() < 0.75 else b + height * 0.5
    top = height / 2 if bed < height / 2 else cab_top
    return Mesh.merge(
        [
            box((cab, -w * 0.95, b + 0.4), (f, w * 0.95, top), paint, taper=(0.15, 0, 0.05)),
            box((f - 0.25, -w * 0.8, b + height * 0.55), (f - 0.02, w * 0.8, top - 0.2), _GLASS),
            box((-f, -w, b + height * 0.25), (cab - 0.1, w, bed), cargo),
            box((-f, -w * 0.8, b + 0.35), (cab, w * 0.8, b + height * 0.25), _TYRE),
            *_wheels(length, width * 0.98, height, 0.45, 2 if length < 7.5 else 3),
            *_lights(length, width * 0.98, b + height * 0.26, b + height * 0.32),
        ]
    )


def _bus(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    paint, stripe = _paint(rng), _paint(rng)
    band = (b + height * 0.45, b + height * 0.82)
    return Mesh.merge(
        [
            box((-f + 0.02, -w + 0.02, b + 0.35), (f - 0.02, w - 0.02, height / 2), paint),
            box((-f + 0.2, -w, band[0]), (f - 0.4, w, band[1]), _GLASS),
            box((f - 0.1, -w * 0.92, b + height * 0.35), (f, w * 0.92, band[1] + 0.1), _GLASS),
            box((-f, -w * 0.8, band[0]), (-f + 0.1, w * 0.8, band[1]), _GLASS),
            box((-f + 0.1, -w, b + height * 0.3), (f - 0.3, w, b + height * 0.38), stripe),
            *_wheels(length, width, height, 0.5, 2 if length < 12.5 else 3),
            *_lights(length, width * 0.98, b + 0.6, b + 0.85),
        ]
    )


def _trailer(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    paint = _paint(rng)
    flat = rng.random() < 0.15
    body = box((-f, -w, b + 1.1), (f - 0.4, w, b + 1.4 if flat else height / 2), paint)
    load = box((-f * 0.6, -w * 0.8, b + 1.4), (f * 0.4, w * 0.8, height / 2), _paint(rng))
    wheels = [
        prism((x, y, b + 0.5), 0.5, 0.3, _TYRE, axis="y")
        for x in (-f * 0.8, -f * 0.65)
        for y in (-w, w - 0.3)
    ]
    beam = box((-f, -0.5, b + 0.8), (f, 0.5, b + 1.1), _TYRE)
    legs = box((f * 0.6, -w * 0.6, b), (f * 0.65, w * 0.6, b + 1.1), _TYRE)
    return Mesh.merge([body, beam, legs, *wheels, *([load] if flat else [])])


def _construction_vehicle(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    paint: Color = (0.65, 0.42, 0.04) if rng.random() < 0.7 else _paint(rng)
    body = b + height * 0.5
    arm = height * rng.uniform(0.12, 0.2)
    return Mesh.merge(
        [
            box((-f, -w, b), (f * 0.3, -w * 0.55, b + height * 0.28), _TYRE),
            box((-f, w * 0.55, b), (f * 0.3, w, b + height * 0.28), _TYRE),
            box((-f, -w * 0.8, b + height * 0.28), (f * 0.25, w * 0.8, body), paint),
            box((-f * 0.4, -w * 0.1, body), (f * 0.2, w * 0.75, height / 2), _GLASS),
            box((-f * 0.45, -w * 0.15, height / 2 - 0.12), (f * 0.25, w * 0.8, height / 2), paint),
            box((f * 0.1, -w * 0.45, body), (f * 0.3, -w * 0.15, height / 2), paint),
            box((f * 0.1, -w * 0.45, height / 2 - arm), (f * 0.9, -w * 0.15, height / 2), paint),
            box((f * 0.8, -w * 0.4, b + 0.3), (f * 0.95, -w * 0.2, height / 2), paint),
            box((f * 0.7, -w * 0.7, b + 0.1), (f, w * 0.1, b + height * 0.25), _TYRE),
        ]
    )


def _barrier(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    concrete = rng.random() < 0.45
    color: Color = (
        (0.45, 0.44, 0.42)
        if concrete
        else ((0.6, 0.14, 0.03), (0.6, 0.6, 0.6))[int(rng.random() < 0.4)]
    )
    base = box((-f, -w, b), (f, w, b + height * 0.3), color, Texture.ROUGH, (f * 0.4, f * 0.4, 0.0))
    if concrete:
        wall = box((-f * 0.5, -w, b + height * 0.3), (f * 0.5, w, height / 2), color, Texture.ROUGH)
        return Mesh.merge([base, wall])
    boards = [
        box((-f * 0.3, -w, low), (f * 0.3, w, low + height * 0.28), color)
        for low in (b + height * 0.36, b + height * 0.72)
    ]
    stripes = [
        box((-f * 0.34, y, low), (f * 0.34, y + 0.2, low + height * 0.28), (0.75, 0.75, 0.75))
        for low in (b + height * 0.36, b + height * 0.72)
        for y in np.arange(-w + 0.15, w - 0.2, 0.5)
    ]
    return Mesh.merge([base, *boards, *stripes])


def _rider(rng: Rng, seat: float, top: float, width: float) -> list[Mesh]:
    cloth = _cloth(rng)
    trunk = top - (top - seat) * 0.28
    return [
        box((-0.25, -width * 0.3, seat), (0.12, width * 0.3, trunk), cloth),
        box((-0.05, -width * 0.28, seat - 0.4), (0.25, width * 0.28, seat + 0.1), _cloth(rng)),
        prism((-0.02, 0, trunk), 0.12, top - trunk, _cloth(rng)),
    ]


def _two_wheeler(
    rng: Rng, length: float, width: float, height: float, ridden: bool, motor: bool
) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    radius = min(length * 0.19, 0.36)
    paint = _paint(rng)
    top = min(height, 1.15) + b  # of the vehicle itself; a rider reaches to the top of the box
    saddle = b + (0.75 if motor else 0.9) * min(1.0, height / 1.1)
    hubs = ((-f + radius, 0.0, b + radius), (f - radius, 0.0, b + radius))
    half = 0.2 if motor else 0.1
    parts = [
        *(_motor if motor else _frame)(hubs, radius, saddle, top, paint),
        box((-f * 0.6, -half, saddle - 0.1), (-f * 0.1, half, saddle), _TYRE),
        box((f * 0.45, -w, top - 0.06), (f * 0.52, w, top if ridden else height / 2), _TYRE),
        *(_rider(rng, saddle, height / 2, max(width, 0.5)) if ridden else []),
    ]
    return Mesh.merge(parts)


def _motor(hubs: Hubs, radius: float, saddle: float, top: float, paint: Color) -> list[Mesh]:
    """Wheels, fork, and a body that fills the space between them."""
    (rear, _, axle), (front, _, _) = hubs
    f = front + radius
    return [
        *(prism((x, -0.08, axle), radius, 0.16, _TYRE, axis="y", sides=10) for x in (rear, front)),
        box(
            (-f * 0.6, -0.15, axle + radius * 0.1), (f * 0.5, 0.15, saddle), paint,
            taper=(f * 0.1, f * 0.1, 0.0),
        ),
        box((f * 0.45, -0.04, axle), (f * 0.6, 0.04, top), _TYRE),
    ]  # fmt: skip


def _frame(hubs: Hubs, radius: float, saddle: float, top: float, paint: Color) -> list[Mesh]:
    """Rims and tubes, through which one sees, and so does a LiDAR."""
    rear, front = hubs
    f = front[0] + radius
    crank, seat = (-f * 0.08, 0.0, rear[2] - 0.05), (-f * 0.3, 0.0, saddle - 0.1)
    head = (f * 0.48, 0.0, top - 0.06)
    lines = ((rear, crank), (rear, seat), (crank, seat), (crank, head), (seat, head), (head, front))
    angles = np.linspace(0, 2 * np.pi, 11)
    corners = (radius - _RIM_M / 2) * np.column_stack([np.cos(angles), np.sin(angles)])
    rims = [
        tube((x + x1, 0.0, z + z1), (x + x2, 0.0, z + z2), _RIM_M, _TYRE)
        for x, _, z in hubs
        for (x1, z1), (x2, z2) in pairwise(corners.tolist())
    ]
    return [*rims, *(tube(start, end, _TUBE_M, paint) for start, end in lines)]


def _motorcycle(rng: Rng, length: float, width: float, height: float) -> Mesh:
    return _two_wheeler(rng, length, width, height, height > 1.5, motor=True)


def _bicycle(rng: Rng, length: float, width: float, height: float) -> Mesh:
    return _two_wheeler(rng, length, width, height, height > 1.4, motor=False)


def _pedestrian(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    shirt, trousers = _cloth(rng), _cloth(rng)
    skin: Color = ((0.55, 0.36, 0.26), (0.35, 0.2, 0.13), (0.16, 0.09, 0.06))[rng.integers(3)]
    hip, neck = b + height * 0.47, b + height * 0.84
    step = f * rng.uniform(0.2, 0.9)
    return Mesh.merge(
        [
            box((step - 0.16, 0.02, b), (step, w * 0.55, hip), trousers),
            box((-step, -w * 0.55, b), (-step + 0.16, -0.02, hip), trousers),
            box((-f * 0.4, -w * 0.65, hip - 0.08), (f * 0.4, w * 0.65, neck), shirt),
            box((-f * 0.6, w * 0.65, hip), (f * 0.1, w, neck - 0.05), shirt),
            box((-f * 0.1, -w, hip), (f * 0.6, -w * 0.65, neck - 0.05), shirt),
            prism((0, 0, neck), 0.11, height * 0.16, skin),
        ]
    )


def _traffic_cone(rng: Rng, length: float, width: float, height: float) -> Mesh:
    f, w, b = length / 2, width / 2, -height / 2
    radius = min(f, w) * 0.85
    orange: Color = (0.7, float(rng.uniform(0.12, 0.2)), 0.03)
    cone = prism((0, 0, b + 0.04), radius, height - 0.04, orange, top_radius=radius * 0.2)
    band = prism(
        (0, 0, b + height * 0.5), radius * 0.65, height * 0.2, (0.75, 0.75, 0.75),
        top_radius=radius * 0.5,
    )  # fmt: skip
    return Mesh.merge([box((-f, -w, b), (f, w, b + 0.04), _TYRE), cone, band])


SHAPES: dict[str, Callable[[Rng, float, float, float], Mesh]] = {
    "car": _car,
    "truck": _truck,
    "construction_vehicle": _construction_vehicle,
    "bus": _bus,
    "trailer": _trailer,
    "barrier": _barrier,
    "motorcycle": _motorcycle,
    "bicycle": _bicycle,
    "pedestrian": _pedestrian,
    "traffic_cone": _traffic_cone,
}
"""Class name to the function that builds its mesh."""
