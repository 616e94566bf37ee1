# SPDX-License-Identifier: Apache-2.0
"""JPEGs that are decoded at a half, quarter or eighth: nearly the same image at the same place."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from labeldistill_core import config_json
from labeldistill_core.cameras import CameraCalibration, CameraView
from labeldistill_core.config import ImageConfig, StudentConfig
from labeldistill_core.data.images import (
    ImageTransform,
    Reduction,
    decode_jpeg,
    decode_reduction,
    reduction_of,
)
from labeldistill_core.frames import Transform
from labeldistill_core.presets import PRESETS, demo
from labeldistill_core.published import behaviour

SCALED = ImageConfig(128, 352, decode="scaled")
SIZES = {(1600, 900): 4, (800, 450): 2, (400, 225): 1, (3200, 1800): 8, (1280, 720): 2}
"""Reduction for `SCALED` by size as taken; a quarter of 1280 columns would be too few."""


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """Soft shapes and sharp edges, the same at every size."""
    y, x = np.mgrid[:height, :width]
    u, v = x / width, y / height
    soft = 110 + 60 * np.sin(9 * u + 4 * v) + 40 * np.cos(21 * v - 6 * u)
    sharp = np.where((u - 0.3) ** 2 + (v - 0.5) ** 2 < 0.02, 60, 0)
    colours = np.stack([soft + sharp, soft * 0.8, 255 - soft], axis=-1)
    return np.asarray(colours.clip(0, 255), np.uint8)


def encoded(pixels: NDArray[np.uint8], form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=95)
    return buffer.getvalue()


def reduction(size_px: tuple[int, int]) -> int:
    return decode_reduction(size_px, SCALED)


def refuse(*_: object, **__: object) -> None:
    raise ValueError("colours of print")


@pytest.fixture(params=["simplejpeg", "pillow"])
def _decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pillow":
        monkeypatch.setattr("simplejpeg.decode_jpeg", refuse)


@pytest.mark.parametrize(("size_px", "expected"), SIZES.items())
def test_the_reduction_leaves_what_the_network_needs(
    size_px: tuple[int, int], expected: int
) -> None:
    assert decode_reduction(size_px, SCALED) == expected
    assert decode_reduction(size_px, replace(SCALED, decode="full")) == 1


def test_a_remainder_or_an_enlarging_augmentation_takes_a_larger_image() -> None:
    assert decode_reduction((1602, 900), SCALED) == 2
    assert decode_reduction((1601, 901), SCALED) == 1
    assert decode_reduction((1600, 900), SCALED, largest_resize=1.13) == 4
    assert decode_reduction((1600, 900), SCALED, largest_resize=1.25) == 2


@pytest.mark.usefixtures("_decoder")
@pytest.mark.parametrize("size_px", SIZES)
def test_the_network_sees_nearly_the_same(size_px: tuple[int, int]) -> None:
    data = encoded(scene(*size_px))
    transform = ImageTransform.for_evaluation(size_px, (352, 128))
    small = decode_jpeg(data, largest_wh=size_px, reduction=reduction)
    assert reduction_of(small, size_px, reduction) == SIZES[size_px]
    full, scaled = (
        transform.apply(image).astype(np.float64) for image in (decode_jpeg(data), small)
    )
    assert np.abs(full - scaled).mean() < 1.0
    # What is left of a shift: how much of the image's slope is in the difference.
    for axis in (0, 1):
        slope = np.gradient(full, axis=axis)
        shift_px = (slope * (scaled - full)).sum() / (slope * slope).sum()
        assert abs(shift_px) < 0.02


@pytest.mark.usefixtures("_decoder")
def test_what_cannot_be_told_afterwards_is_decoded_whole() -> None:
    pixels, size_px = scene(800, 450), (800, 450)
    for data, largest in (
        (encoded(pixels, "PNG"), size_px),
        (encoded(pixels), (1600, 900)),
        (encoded(pixels), None),
    ):
        whole = decode_jpeg(data, largest_wh=largest, reduction=reduction)
        assert whole.shape == (450, 800, 3)
        np.testing.assert_array_equal(whole, decode_jpeg(data))
        assert reduction_of(whole, size_px, reduction) == 1


def test_a_view_says_by_how_much_it_was_reduced() -> None:
    intrinsics = np.array([[600.0, 0, 400], [0, 600, 225], [0, 0, 1]])
    mounted = Transform.identity("ego", "CAM_FRONT")
    camera = CameraCalibration("CAM_FRONT", intrinsics, 800, 450, mounted)
    pose, half = Transform.identity("map", "ego"), np.zeros((225, 400, 3), np.uint8)
    assert CameraView(camera, 0, half, pose, reduced=2).pixels is half
    for wrong in (1, 4):
        with pytest.raises(ValueError, match="the calibration says uint8"):
            CameraView(camera, 0, half, pose, reduced=wrong)


def test_checkpoints_of_before_decode_whole() -> None:
    before = json.loads(config_json.to_json(demo().student))
    assert before["image"].pop("decode") == "full"
    assert config_json.from_json(StudentConfig, json.dumps(before)) == demo().student
    scaled = replace(demo().student, image=SCALED)
    assert config_json.from_json(StudentConfig, config_json.to_json(scaled)) == scaled


def test_published_networks_decode_whole() -> None:
    assert behaviour.student(replace(demo().student, image=SCALED)).image.decode == "full"
    assert all(preset.student.image.decode == "full" for preset in PRESETS.values())


def test_the_type_of_a_reduction_is_a_function_of_width_and_height() -> None:
    half: Reduction = lambda size_px: 2  # noqa: E731
    data = encoded(scene(64, 32))
    assert decode_jpeg(data, largest_wh=(64, 32), reduction=half).shape == (16, 32, 3)
    assert torch.from_numpy(decode_jpeg(data)).shape == (32, 64, 3)
