# SPDX-License-Identifier: Apache-2.0
"""Every image encoding gives the same picture."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image

from labeldistill_core.errors import DataError
from labeldistill_ros.inputs.decoding import ENCODINGS, to_rgb

RGB = np.random.default_rng(1).integers(0, 255, (6, 8, 3), np.uint8)


def message(encoding: str, pixels: np.ndarray[Any, Any], padding: int = 0) -> Image:
    rows = pixels.reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    made = Image(height=6, width=8, encoding=encoding, step=rows.shape[1])
    made.data.frombytes(rows.tobytes())
    return made


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, RGB[..., :1]], axis=2)),
        ("bgra8", np.concatenate([RGB[..., ::-1], RGB[..., :1]], axis=2)),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colors(encoding: str, pixels: np.ndarray[Any, Any], padding: int) -> None:
    np.testing.assert_array_equal(to_rgb(message(encoding, pixels, padding)), RGB)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_memory_that_is_given_is_written_to(encoding: str, padding: int) -> None:
    """Read-only rows of any length, in one go and without rows of another image."""
    pytest.importorskip("cv2")
    channels = ENCODINGS[encoding][0]
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (6, 8 * channels + padding), np.uint8)
    made = SimpleNamespace(
        height=6, width=8, encoding=encoding, step=rows.shape[1], data=rows.tobytes()
    )
    memory = np.full((6, 8, 3), 7, np.uint8)
    found = to_rgb(made, take=lambda shape: memory)
    assert found is memory
    packed = np.ascontiguousarray(rows[:, : 8 * channels])
    tight = SimpleNamespace(
        height=6, width=8, encoding=encoding, step=8 * channels, data=packed.tobytes()
    )
    np.testing.assert_array_equal(to_rgb(tight), found)


@pytest.mark.parametrize("encoding", ["bgr8", "rgba8", "bgra8", "8UC3", "mono8", "8UC1"])
def test_without_opencv_the_pixels_are_the_same(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    channels = ENCODINGS[encoding][0]
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    by_opencv = to_rgb(message(encoding, pixels, padding=3))
    monkeypatch.setitem(sys.modules, "cv2", None)
    np.testing.assert_array_equal(to_rgb(message(encoding, pixels, padding=3)), by_opencv)


def test_gray() -> None:
    np.testing.assert_array_equal(
        to_rgb(message("mono8", RGB[..., 0])), np.repeat(RGB[..., :1], 3, axis=2)
    )


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_a_plain_color(pattern: str) -> None:
    pytest.importorskip("cv2", reason="Bayer patterns need OpenCV")
    color = {"r": 200, "g": 100, "b": 30}
    tile = np.array([color[letter] for letter in pattern], np.uint8).reshape(2, 2)
    image = to_rgb(message(f"bayer_{pattern}8", np.tile(tile, (3, 4))))
    assert np.abs(image.astype(int) - [200, 100, 30]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_compressed(kind: str) -> None:
    smooth = np.full((6, 8, 3), (200, 90, 30), np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(smooth).save(buffer, kind)
    image = to_rgb(CompressedImage(format=kind.lower(), data=buffer.getvalue()))
    assert np.abs(image.astype(int) - smooth).max() <= 3


def test_bad_images_are_refused() -> None:
    with pytest.raises(DataError, match="encoding '32FC1' is not known: use one of rgb8"):
        to_rgb(message("32FC1", RGB))
    short = message("rgb8", RGB)
    short.data = short.data[:-1]
    with pytest.raises(DataError, match="do not fit in 143 bytes"):
        to_rgb(short)
    with pytest.raises(DataError, match="corrupt image of 9 bytes"):
        to_rgb(CompressedImage(data=b"no image!"))


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("bayer_rggb8", "JPEG"), ("bayer_rggb8", "PNG"), ("bayer_rggb16", "PNG")],
)
def test_a_mosaic_that_was_compressed_as_grey_is_undone(encoding: str, kind: str) -> None:
    smooth = np.asarray(Picture.fromarray(RGB).resize((64, 36), Picture.Resampling.BILINEAR))
    mosaic = smooth[..., 1].copy()
    mosaic[::2, ::2] = smooth[::2, ::2, 0]
    mosaic[1::2, 1::2] = smooth[1::2, 1::2, 2]
    grey = mosaic.astype(np.uint16) * 257 if encoding.endswith("16") else mosaic
    buffer = io.BytesIO()
    Picture.fromarray(grey).save(buffer, kind, **({"quality": 100} if kind == "JPEG" else {}))
    form = f"{encoding}; {kind.lower()} compressed "
    image = to_rgb(CompressedImage(format=form, data=buffer.getvalue()))
    assert np.abs(image.astype(int) - smooth)[2:-2, 2:-2].mean() < 6
    with pytest.raises(DataError, match="'bayer_xyz8' is not read"):
        to_rgb(CompressedImage(format="bayer_xyz8; png", data=buffer.getvalue()))


def test_an_image_that_is_larger_than_its_camera_is_refused_by_its_head() -> None:
    buffer = io.BytesIO()
    Picture.new("RGB", (320, 180)).save(buffer, "JPEG")
    image = CompressedImage(format="jpeg", data=buffer.getvalue())
    with pytest.raises(DataError, match="is 320 x 180 pixels, its camera_info says 160 x 90"):
        to_rgb(image, largest_wh=(160, 90))
    assert to_rgb(image, largest_wh=(320, 180)).shape == (180, 320, 3)
    assert to_rgb(image, largest_wh=(0, 0)).shape == (180, 320, 3)  # no calibration


def test_raw_images_of_no_size_and_long_encodings_are_refused_by_name() -> None:
    empty = message("rgb8", RGB)
    empty.height = 0
    with pytest.raises(DataError, match="do not fit"):
        to_rgb(empty)
    with pytest.raises(DataError) as refused:
        to_rgb(message("x" * 10_000, RGB))
    assert len(str(refused.value)) < 500
