# SPDX-License-Identifier: Apache-2.0
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labeldistill_core.data.images import ImageTransform, decode_jpeg
from labeldistill_core.errors import DataError


def encoded(image: np.ndarray[Any, Any], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, quality=95)
    return buffer.getvalue()


def blob(u: float, v: float, width: int = 320, height: int = 180) -> np.ndarray[Any, Any]:
    """A bright spot around pixel (u, v) on black."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    spot = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 4.0**2))
    return np.repeat(spot[..., None], 3, axis=2).astype(np.uint8)


def centre_of_light(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weight = image[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    centre = np.array([(columns * weight).sum(), (rows * weight).sum()])
    return np.asarray(centre / weight.sum())


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_decodes_to_red_green_blue(form: str) -> None:
    image = np.zeros((24, 40, 3), np.uint8)
    image[:] = (200, 90, 10)
    decoded = decode_jpeg(encoded(image, form))
    assert decoded.shape == (24, 40, 3)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).max() <= 2


def test_grey_images_get_three_channels() -> None:
    assert decode_jpeg(encoded(np.full((8, 8), 77, np.uint8), "PNG")).shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_truncated_and_corrupt_images_are_refused(form: str) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), form)
    with pytest.raises(DataError, match=f"corrupt image of {len(data) // 2} bytes"):
        decode_jpeg(data[: len(data) // 2])
    with pytest.raises(DataError, match="corrupt image"):
        decode_jpeg(bytes(64) + data[64:])
    with pytest.raises(DataError, match="corrupt image of 0 bytes"):
        decode_jpeg(b"")


def test_evaluation_of_nuscenes_images() -> None:
    transform = ImageTransform.for_evaluation((1600, 900), (704, 256))
    assert transform.resize == 0.44
    assert transform.resized_wh == (704, 396)
    assert transform.crop == (0, 140, 704, 396)
    # the published matrix: u' = 0.44 u, v' = 0.44 v - 140
    u, v = (transform.matrix @ [1000.0, 600.0, 0.0, 1.0])[:2]
    assert (u, v) == pytest.approx((440.0, 124.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(50, 2000), st.integers(50, 2000), st.integers(1, 22), st.integers(1, 44))
def test_evaluation_fills_the_target(width: int, height: int, rows: int, columns: int) -> None:
    target = (32 * columns, 32 * rows)
    transform = ImageTransform.for_evaluation((width, height), target)
    left, top, right, bottom = transform.crop
    assert (right - left, bottom - top) == target
    assert left >= 0
    assert top >= 0
    assert right <= transform.resized_wh[0]
    assert bottom == transform.resized_wh[1]


@pytest.mark.parametrize(
    ("resize", "crop", "flip", "rotate_deg"),
    [
        (0.5, (0, 0, 160, 90), False, 0.0),
        (0.5, (10, 20, 138, 84), False, 0.0),
        (0.5, (10, 20, 138, 84), True, 0.0),
        (0.5, (10, 20, 138, 84), False, 8.0),
        (0.6, (-8, 30, 152, 100), True, -5.4),
    ],
)
@pytest.mark.parametrize("point", [(110.0, 100.0), (180.0, 120.0)])
def test_matrix_agrees_with_pixels(
    resize: float,
    crop: tuple[int, int, int, int],
    flip: bool,
    rotate_deg: float,
    point: tuple[float, float],
) -> None:
    resized = (round(320 * resize), round(180 * resize))
    transform = ImageTransform(resize, resized, crop, flip, rotate_deg)
    found = centre_of_light(transform.apply(blob(*point)))
    expected = (transform.matrix @ [*point, 0.0, 1.0])[:2]
    # pixel centres and pixel corners differ by up to one pixel when an image is flipped and turned
    np.testing.assert_allclose(found, expected, atol=1.3)


def test_what_lies_outside_is_black() -> None:
    transform = ImageTransform(1.0, (20, 10), (0, -5, 20, 10))
    out = transform.apply(np.full((10, 20, 3), 255, np.uint8))
    assert out.shape == (15, 20, 3)
    assert out[:5].max() == 0
    assert out[5:].min() == 255


def test_flip_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
    plain, flipped = (ImageTransform(1.0, (20, 10), (0, 0, 20, 10), f) for f in (False, True))
    np.testing.assert_array_equal(plain.apply(image), image)
    np.testing.assert_array_equal(flipped.apply(image), image[:, ::-1])


@pytest.mark.parametrize("size_px", [(320, 180), (131, 77)])
@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"subsampling": "4:2:2"}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_pixels_are_those_of_pillow(
    size_px: tuple[int, int], mode: str, how: dict[str, Any]
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size_px).convert(mode).save(buffer, "JPEG", **how)
    with Image.open(buffer) as picture:
        by_pillow = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_jpeg(buffer.getvalue()), by_pillow)


def photograph(width: int, height: int) -> np.ndarray[Any, Any]:
    """Smooth noise and a grain on top."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), np.int16)
    return (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotate_deg", [0.0, -5.4])
@pytest.mark.parametrize(
    ("resized_wh", "crop", "most"),
    [
        ((704, 396), (0, 140, 704, 396), 1),
        ((352, 198), (0, 70, 352, 198), 1),
        ((617, 347), (-20, 91, 684, 347), 1),
        ((2000, 1125), (100, 869, 804, 1125), 2),
    ],
)
def test_images_that_shrink_are_pillows_within_a_grey_level(
    resized_wh: tuple[int, int],
    crop: tuple[int, int, int, int],
    most: int,
    flip: bool,
    rotate_deg: float,
) -> None:
    image = photograph(1600, 900)
    pillows = Image.fromarray(image).resize(resized_wh).crop(crop)
    if flip:
        pillows = pillows.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    transform = ImageTransform(0.44, resized_wh, crop, flip, rotate_deg)
    ours = transform.apply(image)
    difference = np.abs(ours.astype(int) - np.asarray(pillows.rotate(rotate_deg)))
    assert difference.max() <= most
    assert difference.mean() < 0.01
    planes = transform.apply_planes(image)
    np.testing.assert_array_equal(planes.permute(1, 2, 0).numpy(), ours)


def test_images_that_cannot_be_written_to_or_run_backwards_are_taken() -> None:
    image = photograph(320, 180)
    transform = ImageTransform(0.5, (160, 90), (0, 0, 160, 90))
    expected = transform.apply(image)
    fixed = image.copy()
    fixed.flags.writeable = False
    np.testing.assert_array_equal(transform.apply(fixed), expected)
    backwards = image[..., ::-1].copy()[..., ::-1]
    np.testing.assert_array_equal(transform.apply(backwards), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_resizing_in_a_thread_starts_no_threads_of_its_own() -> None:
    """More OpenMP threads than processors slow down every operation of the process."""
    program = """
import os, threading
import numpy as np
from labeldistill_core.data.images import ImageTransform
from tests.core.data.test_images import photograph

image = photograph(1600, 900)
counts = []

def work():
    counts.append(len(os.listdir("/proc/self/task")))
    for crop in ((0, 140, 704, 396), (-20, -20, 700, 396)):
        ImageTransform(0.44, (704, 396), crop).apply_planes(image)
    counts.append(len(os.listdir("/proc/self/task")))

thread = threading.Thread(target=work)
thread.start()
thread.join()
assert counts[0] == counts[1], counts
"""
    environment = {name: v for name, v in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_a_processor_without_avx2_gives_the_same_pixels(tmp_path: Path) -> None:
    image, there = photograph(1600, 900), tmp_path / "there.npy"
    np.save(tmp_path / "image.npy", image)
    transform = ImageTransform.for_evaluation((1600, 900), (704, 256))
    program = f"""
import numpy as np, torch
from labeldistill_core.data.images import ImageTransform
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
transform = ImageTransform.for_evaluation((1600, 900), (704, 256))
np.save({str(there)!r}, transform.apply(np.load({str(tmp_path / "image.npy")!r})))
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    difference = np.abs(np.load(there).astype(int) - transform.apply(image))
    assert difference.max() <= 1
