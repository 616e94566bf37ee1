# SPDX-License-Identifier: Apache-2.0
"""Lines, dashed lines and text of the pictures."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from labeldistill_core.frames import Array
from labeldistill_core.visualization.colours import INK, Colour

Rectangle = tuple[float, float, float, float]

_SMALLEST_PX = 6
"""Letters of a tag that is wider than the picture."""
SUPERSAMPLING = 2
"""Lines are drawn this much larger and averaged, as Pillow does not smooth them."""


@cache
def font(size_px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that Pillow brings."""
    # Not a font of the system: pictures are the same on every machine, and in containers without
    # any.
    return ImageFont.load_default(size_px)


def dash(starts: Array, ends: Array, dash_px: float, gap_px: float) -> tuple[Array, Array]:
    """Cut M lines into dashes.

    Args:
        starts: (M, 2) pixels.
        ends: (M, 2) pixels.
        dash_px: length of a dash.
        gap_px: length between dashes.

    Returns:
        Starts and ends of all dashes, in the order of the lines; each line begins with a dash.
    """
    begins, stops = [], []
    for start, end in zip(starts, ends, strict=True):
        length = float(np.linalg.norm(end - start))
        # A line towards the viewer is a point and has no direction.
        if length < 1e-6:
            continue
        at = np.arange(0.0, length, dash_px + gap_px)[:, None]
        direction = (end - start) / length
        begins.append(start + at * direction)
        stops.append(start + np.minimum(at + dash_px, length) * direction)
    empty = np.zeros((0, 2))
    return np.concatenate([empty, *begins]), np.concatenate([empty, *stops])


def draw_lines(
    draw: ImageDraw.ImageDraw, starts: Array, ends: Array, colour: Colour, width_px: int
) -> None:
    """M lines from (M, 2) to (M, 2) pixels."""
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        draw.line([tuple(start), tuple(end)], fill=colour, width=width_px)


def draw_tag(
    image: Image.Image,
    at: tuple[float, float],
    text: str,
    colour: Colour,
    size_px: int = 12,
    taken: list[Rectangle] | None = None,
) -> None:
    """Text on a filled rectangle whose lower left corner is `at`, pushed into the picture.

    With `taken`, a tag that would cover one of these rectangles is left out, and one that is
    drawn is added.
    """
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font(size_px))
    while right - left + 6 > image.width and size_px > _SMALLEST_PX:
        size_px -= 1
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font(size_px))
    width, height = right - left + 6, bottom - top + 4
    x = max(0, min(at[0], image.width - width))
    y = min(max(at[1] - height, 0), image.height - height)
    # The caller draws the best boxes' tags first; of two that overlap, neither could be read.
    if taken is not None:
        if any(x < r and x + width > q and y < s and y + height > p for q, p, r, s in taken):
            return
        taken.append((x, y, x + width, y + height))
    # Luma of ITU-R BT.601: how bright a colour looks.
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 128
    draw.rectangle([x, y, x + width, y + height], fill=colour)
    text_colour = (255, 255, 255) if dark else INK
    draw.text((x + 3 - left, y + 2 - top), text, fill=text_colour, font=font(size_px))


def draw_legend(
    image: Image.Image, entries: Iterable[tuple[str, Colour]], *, left_px: int, bottom_px: int
) -> None:
    """Coloured squares with words, stacked upwards from the bottom."""
    draw = ImageDraw.Draw(image)
    y = bottom_px
    for text, colour in entries:
        draw.rectangle([left_px, y - 13, left_px + 13, y], fill=colour)
        draw.text((left_px + 21, y - 16), text, fill=(225, 230, 236), font=font(15))
        y -= 21
