# SPDX-License-Identifier: Apache-2.0
"""Colours of boxes: in pictures, in charts and as RViz markers."""

from __future__ import annotations

import colorsys
import hashlib
from functools import cache

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

CLASS_COLOURS: dict[str, Colour] = {
    "car": (255, 158, 27),
    "truck": (255, 90, 60),
    "construction_vehicle": (214, 160, 110),
    "bus": (255, 105, 180),
    "trailer": (190, 120, 255),
    "barrier": (150, 165, 190),
    "motorcycle": (240, 230, 70),
    "bicycle": (255, 200, 170),
    "pedestrian": (70, 170, 255),
    "traffic_cone": (0, 220, 220),
}
"""Colour of each class, light enough for RViz's dark background."""
TRUTH_COLOUR: Colour = (130, 255, 110)
"""Of ground truth; no class has a colour near it."""
INK: Colour = (16, 20, 26)
"""Of letters on a light ground, and of the ground behind pictures."""


@cache
def class_colour(name: str) -> Colour:
    """Colour of a class's boxes; one that nuScenes does not have has the same everywhere, too."""
    if name in CLASS_COLOURS:
        return CLASS_COLOURS[name]
    # Of the name alone, so that runs, machines and other lists of classes agree.
    first, second = hashlib.blake2b(name.encode(), digest_size=2).digest()
    # From cyan by way of blue and red to orange: the green between is that of ground truth.
    hue = (0.5 + 0.6 * first / 255) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.45 + 0.35 * second / 255, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
