# SPDX-License-Identifier: Apache-2.0
"""Colours of boxes: in pictures, in charts and as RViz markers."""

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
OTHER_COLOUR: Colour = (230, 230, 230)
"""Of a class that nuScenes does not have."""
INK: Colour = (16, 20, 26)
"""Of letters on a light ground, and of the ground behind pictures."""


def class_colour(name: str) -> Colour:
    """Colour of a class's boxes."""
    return CLASS_COLOURS.get(name, OTHER_COLOUR)
