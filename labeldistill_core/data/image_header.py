# SPDX-License-Identifier: Apache-2.0
"""What the head of a JPEG or PNG says, read before any decoder sees the bytes.

Images come from sensors, bags and files of others. A decoder that guesses the format can be led to
any of its forty (PostScript among them), and a few kilobytes can ask for gigabytes or for minutes.

Source: ITU T.81 annex B (JPEG markers); PNG specification, third edition, section 11.2.1 (IHDR).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np

from labeldistill_core.errors import DataError

MAX_PIXELS = 1 << 26
"""67 megapixels, 200 MB in RGB: more than any camera on a vehicle has."""
MAX_CAMERA_PIXELS = 7680 * 4320
"""Of a sensor in `camera_info`: 8K, four times the 8 megapixels of the largest cameras on vehicles.
Six such images and the maps that take out their distortion (8 bytes a pixel) stay below 2.2 GB."""
_MAX_SCANS = 64
"""Of a progressive JPEG; encoders make ten or so."""
_MAX_SCANNED_PIXELS = 1 << 27
"""Pixels times scans, about a second of decoding: twelve megapixels in ten scans."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG = b"\xff\xd8\xff"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that begin a frame; the other three define tables."""
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of an encoded image."""

    form: Literal["jpeg", "png"]
    """Told by the first bytes, whatever a name or a message says."""
    width_px: int
    """Columns."""
    height_px: int
    """Rows."""
    bits: int
    """Of one channel of one pixel."""
    channels: int
    """Colours, or indices, of one pixel."""


def read_header(data: bytes) -> ImageHeader:
    """Read the head of an image.

    Raises:
        DataError: the bytes are no JPEG or PNG, or their head is damaged.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png(data)
        if data.startswith(_JPEG):
            return _jpeg(data)
    except (struct.error, KeyError, IndexError) as error:
        raise DataError(
            f"corrupt image of {len(data)} bytes: its head is cut or damaged"
        ) from error
    raise DataError(f"corrupt image of {len(data)} bytes: it is neither a JPEG nor a PNG")


def check_header(data: bytes, largest_wh: tuple[int, int] | None = None) -> ImageHeader:
    """Read the head of an image and refuse what would cost more than an image may.

    Args:
        data: encoded image.
        largest_wh: width and height of the camera's images; None or zeros where they are unknown.

    Raises:
        DataError: as `read_header`, or the image or its camera is larger than it may be.
    """
    header = read_header(data)
    width, height = header.width_px, header.height_px
    if not width or not height:
        raise DataError(f"corrupt image of {len(data)} bytes: it has {width} x {height} pixels")
    known = largest_wh is not None and all(largest_wh)
    if largest_wh and known and (fault := fault_of_camera_size(*largest_wh)):
        raise DataError(fault)
    # No healthy driver publishes more pixels than its camera_info tells of.
    if largest_wh and known and (width > largest_wh[0] or height > largest_wh[1]):
        raise DataError(
            f"the image is {width} x {height} pixels, its camera_info says "
            f"{largest_wh[0]} x {largest_wh[1]}: publish a camera_info for this size"
        )
    if width * height > MAX_PIXELS:
        raise DataError(
            f"the image is {width} x {height} pixels, and {MAX_PIXELS / 1e6:.0f} million are the "
            "most that are decoded"
        )
    scans = _scans(data) if header.form == "jpeg" else 1
    if scans > _MAX_SCANS or scans * width * height > _MAX_SCANNED_PIXELS:
        raise DataError(
            f"the JPEG has {scans} scans of {width} x {height} pixels, which would take seconds to "
            "decode: publish baseline JPEG"
        )
    return header


def ends_whole(data: bytes, form: Literal["jpeg", "png"]) -> bool:
    """Whether an image ends as its format has it, but for zeros that pad it: it is not cut off."""
    if form == "png":
        return data.rstrip(b"\0").endswith(_PNG_END)
    return data.rstrip(b"\0").endswith(b"\xff\xd9")


def fault_of_camera_size(width: int, height: int) -> str:
    """Why no camera has so many pixels; empty where one may."""
    if width * height <= MAX_CAMERA_PIXELS:
        return ""
    return (
        f"camera_info says {width} x {height} pixels, and {MAX_CAMERA_PIXELS / 1e6:.0f} million "
        "are the most that are taken: correct width and height, or publish smaller images"
    )


def _scans(data: bytes) -> int:
    """Number of scans of a JPEG.

    0xff is followed by 0 inside a scan, so that its marker is found at its start alone. In numpy,
    since `bytes.count` takes a tenth of the time of decoding, with Python's lock held.
    """
    values = np.frombuffer(data, np.uint8)
    seconds = np.flatnonzero(values[1:] == 0xDA)
    return int(np.count_nonzero(values[seconds] == 0xFF))


def _png(data: bytes) -> ImageHeader:
    name, width, height, bits, colour = struct.unpack_from(">4sIIBB", data, 12)
    if name != b"IHDR":
        raise IndexError
    return ImageHeader("png", width, height, bits, _PNG_CHANNELS[colour])


def _jpeg(data: bytes) -> ImageHeader:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise IndexError
        while data[at] == 0xFF:  # any number of fill bytes may stand before a marker
            at += 1
        marker = data[at]
        at += 1
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 2)
            return ImageHeader("jpeg", width, height, bits, channels)
        if marker in (0xD9, 0xDA):
            raise IndexError
        at += int.from_bytes(data[at : at + 2], "big")
