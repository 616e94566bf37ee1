# SPDX-License-Identifier: Apache-2.0
"""The one image path: decoding, resizing, cropping, flipping and rotating.

Training, offline evaluation, the bag tools and the node all go through here, so that the network
sees the same pixels everywhere.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from labeldistill_core.config import ImageConfig
from labeldistill_core.data.image_header import check_header
from labeldistill_core.data.pixel_pool import new_pixels
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Array

TakePixels = Callable[[tuple[int, ...]], NDArray[np.uint8]]
"""Where an array of a shape comes from, such as `PixelPool.take`."""


Reduction = Callable[[tuple[int, int]], int]
"""By how much a JPEG of a width and height is reduced while it is decoded: 1, 2, 4 or 8."""


def decode_reduction(
    source_wh: tuple[int, int], image: ImageConfig, largest_resize: float = 1.0
) -> int:
    """The reduction of a JPEG that leaves no fewer pixels than the network needs.

    Args:
        source_wh: width and height of the images as taken, pixels.
        image: what the network takes, and whether images are reduced at all.
        largest_resize: factor that augmentation may put on evaluation's resize.
    """
    if image.decode == "full":
        return 1
    needed = ImageTransform.for_evaluation(source_wh, (image.width, image.height)).resized_wh
    for reduction in (8, 4, 2):
        # Only without a remainder: a decoder rounds up, and pixels would be shifted.
        if all(
            size % reduction == 0 and size >= reduction * largest_resize * least
            for size, least in zip(source_wh, needed, strict=True)
        ):
            return reduction
    return 1


def reduction_of(
    pixels: NDArray[np.uint8], source_wh: tuple[int, int], reduction: Reduction | None
) -> int:
    """By how much an image of a camera was reduced; 1 for one of any size that was not asked for.

    Args:
        pixels: (height, width, 3), decoded.
        source_wh: width and height of the camera's images as taken.
        reduction: that it was decoded with.
    """
    reduced = reduction(source_wh) if reduction else 1
    width, height = source_wh
    return reduced if pixels.shape[:2] == (height // reduced, width // reduced) else 1


def decode_jpeg(
    data: bytes,
    take: TakePixels = new_pixels,
    largest_wh: tuple[int, int] | None = None,
    reduction: Reduction | None = None,
) -> NDArray[np.uint8]:
    """JPEG or PNG bytes to (height, width, 3) RGB; 16 bits a channel are scaled to 8.

    JPEG goes to libjpeg-turbo by simplejpeg, which gives Pillow's pixels in 0.7 of its time, and
    straight to where they are wanted. What it refuses, and colours of print, go to Pillow.

    Args:
        data: of the file.
        take: where the pixels of a JPEG go.
        largest_wh: width and height of the camera's images, where they are known.
        reduction: of a JPEG of just this size; none when None.

    Raises:
        DataError: the bytes are no JPEG or PNG, end too early, or are of a larger image.
    """
    header = check_header(data, largest_wh)
    if header.form == "jpeg" and header.bits != 8:
        raise DataError(f"a JPEG of {header.bits} bits a colour is not read: publish one of 8 bits")
    size_px, reduced = (header.width_px, header.height_px), 1
    # Of another size than the camera's nobody could tell afterwards by how much it was reduced.
    if reduction is not None and header.form == "jpeg" and size_px == largest_wh:
        reduced = reduction(size_px)
    if header.form == "jpeg" and header.channels < 4:
        columns, rows = (size // reduced for size in size_px)
        pixels = take((rows, columns, 3))
        try:
            # Strict: it would fill up an image that ends too early.
            filled = simplejpeg.decode_jpeg(
                data, min_height=rows, min_width=columns, min_factor=reduced, buffer=pixels
            )
        except ValueError:
            filled = None  # Pillow tells why, or reads it
        # A file with two headers may be of another size for the library than for ours.
        if filled is not None and filled.shape == pixels.shape:
            return pixels
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if reduced > 1:
                image.draft(None, (size_px[0] // reduced, size_px[1] // reduced))
            image.load()
    except Exception as error:  # damaged bytes lead Pillow's decoders to errors of any kind
        raise DataError(f"corrupt image of {len(data)} bytes: {error}") from error
    if image.mode.startswith("I"):  # Pillow would cut off what is above 255
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class ImageTransform:
    """Resize, crop, flip, rotate, in this order.

    Source: BEVDepth's image data augmentation; `matrix` is its `ida` matrix.
    """

    resize: float
    """Scale of the image."""
    resized_wh: tuple[int, int]
    """Width and height after resizing, pixels."""
    crop: tuple[int, int, int, int]
    """Left, top, right, bottom in the resized image; what lies outside is black."""
    flip: bool = False
    """Mirror left and right."""
    rotate_deg: float = 0.0
    """Counter-clockwise about the centre."""

    @classmethod
    def for_evaluation(
        cls, source_wh: tuple[int, int], target_wh: tuple[int, int]
    ) -> ImageTransform:
        """Fill the target, cut off the top, keep the middle.

        Args:
            source_wh: width and height of the images as taken, pixels.
            target_wh: width and height of the network's images, pixels.
        """
        (source_w, source_h), (target_w, target_h) = source_wh, target_wh
        resize = max(target_h / source_h, target_w / source_w)
        # rounding in the quotient may put the side that fits exactly just under its target
        width = max(int(source_w * resize), target_w)
        height = max(int(source_h * resize), target_h)
        left, top = max(0, width - target_w) // 2, height - target_h
        return cls(resize, (width, height), (left, top, left + target_w, top + target_h))

    def with_top(self, top: int) -> ImageTransform:
        """The same with another first row of the crop, in the resized image."""
        left, before, right, bottom = self.crop
        return replace(self, crop=(left, top, right, top + bottom - before))

    @property
    def matrix(self) -> Array:
        """(4, 4) `image_from_sensor`: pixels as taken to pixels of the result."""
        left, top, right, bottom = self.crop
        linear, shift = np.eye(2) * self.resize, -np.array([left, top], dtype=np.float64)
        size = np.array([right - left, bottom - top], dtype=np.float64)
        if self.flip:
            mirror = np.diag([-1.0, 1.0])
            linear, shift = mirror @ linear, mirror @ shift + [size[0], 0.0]
        angle = math.radians(self.rotate_deg)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        matrix = np.eye(4)
        matrix[:2, :2] = turn @ linear
        matrix[:2, 3] = turn @ (shift - size / 2) + size / 2
        return matrix

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(height, width, 3) RGB to the transformed image, bicubic with anti-aliasing.

        Resized by torch's kernel for bytes. It stays within one grey level of Pillow's, two in a
        few values where an image grows, and takes an eighth of its time where the processor has
        AVX2 (torch 2.1 and later); elsewhere torch gives the same pixels in 1.5 times Pillow's.
        """
        return self.apply_planes(image).permute(1, 2, 0).numpy()

    def apply_planes(self, image: NDArray[np.uint8]) -> Tensor:
        """As `apply`, but (3, rows, columns): what the kernel makes and the network takes."""
        source = torch.from_numpy(np.require(image, requirements=("C", "W")))
        width, height = self.resized_wh
        planes = interpolate(
            source.permute(2, 0, 1)[None], (height, width), mode="bicubic", antialias=True
        )[0]
        planes = _cropped(planes, self.crop)
        if self.flip:
            planes = planes.flip(-1)
        if self.rotate_deg:
            rows = planes.permute(1, 2, 0).contiguous().numpy()
            turned = Image.fromarray(rows).rotate(self.rotate_deg)
            planes = torch.from_numpy(np.array(turned)).permute(2, 0, 1)
        return planes


def _cropped(planes: Tensor, crop: tuple[int, int, int, int]) -> Tensor:
    """A part of (3, rows, columns), black where it lies outside.

    A view, or filled by numpy: an operation of torch that makes as much would start OpenMP threads
    for each thread that resizes, and with more of them than processors all operations slow down.
    """
    left, top, right, bottom = crop
    inside = planes[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[1:] == (bottom - top, right - left):
        return inside
    black = np.zeros((3, bottom - top, right - left), np.uint8)
    rows, columns = inside.shape[1:]
    y, x = max(-top, 0), max(-left, 0)
    black[:, y : y + rows, x : x + columns] = inside.numpy()
    return torch.from_numpy(black)
