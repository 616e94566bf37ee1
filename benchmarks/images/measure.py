# SPDX-License-Identifier: Apache-2.0
"""Time of images on one core, in milliseconds: medians of ways that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from labeldistill_core.config import ImageConfig
from labeldistill_core.data.crop import image_transform
from labeldistill_core.data.images import ImageTransform, decode_jpeg, decode_reduction
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.pixel_pool import PixelPool
from labeldistill_core.data.samples import StudentDataset
from labeldistill_core.presets import find_preset
from labeldistill_core.profiling.bench_images import CAMERA_WH, jpeg
from labeldistill_ros.inputs.decoding import to_rgb

_REPEATS = 30
_SAMPLES = 9


def medians(
    ways: Mapping[str, Callable[[int], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Milliseconds of each way; a way is told the number of its turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = clock()
            way(turn)
            times[name].append((clock() - start) * 1e3)
    # The first turn of each way fills caches and allocates; it is not counted.
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def by_pillow(transform: ImageTransform, image: NDArray[np.uint8]) -> Tensor:
    """What `ImageTransform.apply_planes` does, resized by Pillow."""
    out = Image.fromarray(image).resize(transform.resized_wh).crop(transform.crop)
    if transform.flip:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if transform.rotate_deg:
        out = out.rotate(transform.rotate_deg)
    return torch.from_numpy(np.array(out)).permute(2, 0, 1)


def _resized(transform: ImageTransform, image: NDArray[np.uint8]) -> dict[str, float]:
    return medians(
        {
            "here": lambda _: transform.apply_planes(image),
            "Pillow": lambda _: by_pillow(transform, image),
        },
        _REPEATS,
    )


def resizing() -> dict[str, dict[str, float]]:
    """An image of 1600x900 to those of the presets, and its decoding."""
    data = jpeg(0)
    image = decode_jpeg(data)
    rows = {"decode JPEG": medians({"here": lambda _: decode_jpeg(data)}, _REPEATS)}
    for target in ((704, 256), (352, 128)):
        transform = ImageTransform.for_evaluation(CAMERA_WH, target)
        rows[f"resize to {target[0]}x{target[1]}"] = _resized(transform, image)
    return rows


def decoding(root: Path, version: str) -> dict[str, dict[str, float]]:
    """CPU time of an image from its file's bytes to the network's, decoded whole and scaled."""
    tables = NuScenesTables(root, version)
    data = StudentDataset(tables, tables.scene_names, find_preset("demo").student, partial=True)
    record = tables.cameras(data.tokens[0])["CAM_FRONT"]
    encoded, size_px = record.read(), (record.width_px, record.height_px)
    rows = {}
    for name in ("r50_256x704_4key", "demo"):
        image = find_preset(name).student.image
        transform = image_transform(record.calibration, image)

        # The defaults bind what the loop changes; `medians` calls it later.
        def load(_: int, config: ImageConfig, transform: ImageTransform = transform) -> Tensor:
            reduction = partial(decode_reduction, image=config)
            pixels = decode_jpeg(encoded, largest_wh=size_px, reduction=reduction)
            return transform.apply_planes(pixels)

        ways = {
            "full": partial(load, config=image),
            "scaled": partial(load, config=replace(image, decode="scaled")),
        }
        rows[f"JPEG to {image.width}x{image.height}"] = medians(ways, _REPEATS, time.process_time)
    return rows


def raw_encodings() -> dict[str, dict[str, float]]:
    """Raw images of 1600x900 beside OpenCV alone, which is all that cv_bridge does."""
    width, height = CAMERA_WH
    rows = {}
    for encoding, channels, code in (
        ("bgr8", 3, cv2.COLOR_BGR2RGB),
        ("bgra8", 4, cv2.COLOR_BGRA2RGB),
        ("mono8", 1, cv2.COLOR_GRAY2RGB),
    ):
        shape = (height, width, channels)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        rows[encoding] = _converted(encoding, pixels, code)
    return rows


def _converted(encoding: str, pixels: NDArray[np.uint8], code: int) -> dict[str, float]:
    height, width, channels = pixels.shape
    pool = PixelPool()
    message = SimpleNamespace(
        height=height, width=width, encoding=encoding, step=width * channels, data=pixels.tobytes()
    )
    # What numpy alone would do: a copy through a view with its channels reversed.
    reverse = pixels[..., 2::-1] if channels > 1 else pixels
    return medians(
        {
            "here": lambda _: to_rgb(message, pool.take),
            "OpenCV": lambda _: cv2.cvtColor(pixels, code),
            "numpy": lambda _: np.copyto(pool.take((height, width, 3)), reverse),
        },
        _REPEATS,
    )


def training_sample(root: Path, version: str) -> dict[str, dict[str, float]]:
    """CPU time of an augmented sample of `r50_256x704_4key`: 30 images, LiDAR, boxes.

    Samples of five scenes stand in for the five frames, so that no image comes twice.
    """
    tables = NuScenesTables(root, version)
    config = find_preset("r50_256x704_4key").student
    dataset = StudentDataset(tables, tables.scene_names, config, partial=True)
    dataset.frame_tokens = [tuple(dataset.tokens[:5])]

    def pillow(turn: int) -> None:
        # Everything else of the sample stays, so that the difference is the resizing's alone.
        with patch.object(ImageTransform, "apply_planes", by_pillow):
            dataset[0, turn]

    ways: dict[str, Callable[[int], Any]] = {
        "here": lambda turn: dataset[0, turn],
        "Pillow": pillow,
    }
    return {"training sample": medians(ways, _SAMPLES, time.process_time)}
