# SPDX-License-Identifier: Apache-2.0
"""A moving picture of the sets that a page shows, for a README or a talk."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from labeldistill_core.errors import ConfigError
from labeldistill_core.files import write_whole
from labeldistill_core.visualization.colours import INK
from labeldistill_core.visualization.page import PageFrame

_FRAME_MS = 400
"""Key frames are half a second apart, so it runs a little faster than the drive did."""
# Twenty sets of the demo at this width and quality are 1 MB; sites that show a README shrink it
# to less than a thousand pixels.
_WIDTH_PX = 1760
_QUALITY = 70


@dataclass(frozen=True, kw_only=True)
class AnimationOptions:
    """Whether a page's frames become a moving picture as well."""

    animation: Path | None = None
    """File for a moving picture of the page's frames, an animated *.webp."""

    def __post_init__(self) -> None:
        """Refuse other formats before anything is computed."""
        if self.animation and self.animation.suffix.lower() != ".webp":
            raise ConfigError(
                f"--animation {self.animation}: it is written as WebP, so call it *.webp"
            )


def animated(frames: Iterable[PageFrame], path: Path) -> Iterator[PageFrame]:
    """Hand on the frames of a page, and write them as an animated WebP after the last.

    Args:
        frames: in the order in which they are shown; cameras stand beside the view from above.
        path: of the file, which appears when it is whole; no frames make no file.
    """
    pictures = []
    for frame in frames:
        pictures.append(side_by_side(frame, _WIDTH_PX))
        yield frame
    if pictures:
        # Frames with fewer cameras are lower.
        size = (_WIDTH_PX, max(picture.height for picture in pictures))
        pictures = [ImageOps.pad(p, size, color=INK, centering=(0, 0)) for p in pictures]
        # WebP and not GIF: 256 colours are too few for a photograph, and a film needs a player.
        buffer = io.BytesIO()
        pictures[0].save(
            buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=_FRAME_MS,
            loop=0, quality=_QUALITY, method=4,
        )  # fmt: skip
        write_whole(path, buffer.getvalue())


def side_by_side(frame: PageFrame, width_px: int) -> Image.Image:
    """The cameras and, right of them, the view from above, as high as they are.

    Args:
        frame: its pictures.
        width_px: of the picture that results.
    """
    cameras, top_view = frame.cameras, frame.top_view
    top_width = round(top_view.width * cameras.height / top_view.height)
    both = Image.new("RGB", (cameras.width + top_width, cameras.height))
    both.paste(cameras, (0, 0))
    both.paste(top_view.resize((top_width, cameras.height)), (cameras.width, 0))
    height_px = round(both.height * width_px / both.width)
    return both.resize((width_px, height_px), Image.Resampling.LANCZOS)
