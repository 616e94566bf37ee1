# SPDX-License-Identifier: Apache-2.0
"""Which rows of a camera's images the network sees, and whether the horizon is among them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CameraCalibration, CameraView, FrameSet
from labeldistill_core.config import ImageConfig, StudentConfig
from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.data.crop import horizon_row_px, image_transform, lost_horizons
from labeldistill_core.frames import Transform
from labeldistill_core.presets import find_preset
from labeldistill_core.runtime.device_images import DeviceImages

OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""`ego_from_camera` of a camera that looks straight ahead."""
BOTTOM, HORIZON = (ImageConfig(256, 704, crop=crop) for crop in ("bottom", "horizon"))


def camera(
    width: int, height: int, *, middle: float = 0.5, down_deg: float = 0.0, name: str = "CAM_FRONT"
) -> CameraCalibration:
    f, c, s = 0.8 * width, np.cos(np.radians(down_deg)), np.sin(np.radians(down_deg))
    k = np.array([[f, 0, width / 2], [0, f, height * middle], [0, 0, 1.0]])
    pitch = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])  # about the camera's x, downwards
    return CameraCalibration(
        name, k, width, height, Transform("ego", name, OPTICAL @ pitch, np.zeros(3))
    )


def test_horizon_of_a_camera_that_looks_down() -> None:
    assert horizon_row_px(camera(1600, 900)) == pytest.approx(450)
    down = horizon_row_px(camera(1600, 900, down_deg=10))
    assert down == pytest.approx(450 - 0.8 * 1600 * np.tan(np.radians(10)))
    assert horizon_row_px(camera(1600, 900, down_deg=90)) is None


def test_both_crops_are_the_same_for_16_to_9() -> None:
    for size in ((1600, 900), (1920, 1080), (400, 225)):
        assert image_transform(camera(*size), HORIZON) == image_transform(camera(*size), BOTTOM)


@pytest.mark.parametrize("size", [(1440, 960), (1280, 960), (1280, 1024), (1280, 1280)])
def test_the_horizon_of_higher_images_is_lost_or_kept(size: tuple[int, int]) -> None:
    (text,) = lost_horizons([camera(*size)], BOTTOM).values()
    assert f"the horizon is at row {size[1] // 2}" in text
    assert "image.crop horizon" in text
    assert not lost_horizons([camera(*size)], HORIZON)
    transform = image_transform(camera(*size), HORIZON)
    # the horizon lies where the same camera has it in images of 16:9
    wide = image_transform(camera(size[0], round(size[0] * 9 / 16)), HORIZON)
    rows = [
        t.matrix[1, 1] * horizon + t.matrix[1, 3]
        for t, horizon in ((transform, size[1] / 2), (wide, round(size[0] * 9 / 16) / 2))
    ]
    assert rows[0] == pytest.approx(rows[1], abs=1.5)


@pytest.mark.parametrize(
    ("calibration", "lost"),
    [
        (camera(1600, 900), False),
        (camera(1600, 900, middle=491 / 900), False),  # as nuScenes' cameras
        (camera(1920, 1200), False),
        (camera(1600, 900, middle=0.1), True),
        (camera(1600, 900, down_deg=12), True),
        (camera(1600, 900, down_deg=40), False),  # the horizon is not in the image at all
        (camera(1600, 900, down_deg=90), False),
    ],
)
def test_what_is_told(calibration: CameraCalibration, lost: bool) -> None:
    assert bool(lost_horizons([calibration], BOTTOM)) == lost


def test_presets_keep_the_horizon_and_published_weights_the_lower_edge() -> None:
    preset = find_preset("r50_256x704_4key")
    assert preset.student.image.crop == "horizon"
    assert preset.as_published().student.image.crop == "bottom"
    assert StudentConfig.from_json(preset.student.to_json()) == preset.student
    # a checkpoint of before the choice
    text = preset.as_published().student.to_json().replace('"crop": "bottom"', '"mean": [1, 2, 3]')
    assert StudentConfig.from_json(text).image.crop == "bottom"


def test_augmentation_crops_about_the_horizon_too() -> None:
    config = replace(find_preset("demo").student, cameras=("CAM_FRONT",))
    still = AugmentationConfig(resize=(1.0, 1.0), image_rotation_deg=(0.0, 0.0), image_flip=False)
    own = camera(400, 320)
    view = CameraView(own, 0, np.zeros((320, 400, 3), np.uint8), Transform.identity("map", "ego"))
    drawn = still.image(view, config, np.random.default_rng(0))
    plain = image_transform(own, config.image)
    assert (drawn.crop[1], drawn.crop[3]) == (plain.crop[1], plain.crop[3])
    assert plain.crop[1] < plain.resized_wh[1] - config.image.height


def test_cameras_of_one_size_may_have_different_crops_on_the_device() -> None:
    config = replace(find_preset("demo").student, cameras=("CAM_FRONT", "CAM_BACK"))
    rng = np.random.default_rng(0)
    views = tuple(
        CameraView(
            camera(400, 320, middle=middle, name=name),
            0,
            rng.integers(0, 255, (320, 400, 3), np.uint8),
            Transform.identity("map", "ego"),
        )
        for name, middle in (("CAM_FRONT", 0.4), ("CAM_BACK", 0.6))
    )
    with ThreadPoolExecutor(2) as pool:
        images = DeviceImages(config, torch.device("cpu"))(FrameSet(0, views), pool)[0, 0]
    for image, view in zip(images, views, strict=True):
        wanted = image_transform(view.calibration, config.image).apply_planes(view.pixels)
        assert (image.int() - wanted.int()).abs().max() <= 1
