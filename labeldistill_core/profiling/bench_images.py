# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks look at."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.pixel_pool import PixelPool
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.device_images import decode_on
from labeldistill_core.runtime.warm_up import outward_cameras
from labeldistill_core.synthetic.rig import CAMERA_PHASES_S, camera_calibrations

CAMERA_WH = (1600, 900)
"""Images as a nuScenes camera takes them, pixels."""


def frame_set(
    stamp_s: float,
    config: StudentConfig,
    images: Mapping[str, NDArray[np.uint8] | Tensor] | None = None,
) -> FrameSet:
    """One image a camera of the model; the vehicle drives a left turn.

    Cameras that are all nuScenes' are mounted as there, others evenly around the vehicle.

    Args:
        stamp_s: time of the set.
        config: names the cameras.
        images: (height, width, 3) of each camera, all of one size; noise at the network's size
            when None.
    """
    size = (config.image.width, config.image.height)
    if images:
        height, width, _ = next(iter(images.values())).shape
        size = (width, height)
    # Seeded by the time: the same set has the same noise in every run and process.
    random = np.random.default_rng([round(1000 * (stamp_s + 1000))])
    views = []
    rig = camera_calibrations(*size)
    if not set(config.cameras) <= set(rig):
        rig = outward_cameras(config.cameras, *size)
    for name, calibration in rig.items():
        if name not in config.cameras:
            continue
        exposure_s = stamp_s + CAMERA_PHASES_S.get(name, 0.0)
        yaw = 0.1 * exposure_s
        pose = Transform.from_quaternion(
            FIXED_FRAME,
            EGO_FRAME,
            (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)),
            (80 * np.sin(yaw), 80 * (1 - np.cos(yaw)), 0.0),
        )
        image = (
            images[name] if images else random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        )
        views.append(CameraView(calibration, round(exposure_s * 1e9), image, pose))
    return FrameSet(round(stamp_s * 1e9), tuple(views))


class JpegSource:
    """Sets of JPEG images one second apart, decoded in parallel when they are taken."""

    def __init__(self, config: StudentConfig, device: torch.device | None) -> None:
        """For the cameras of a model; decoded on a device, or in threads when that is None."""
        self._config, self._device = config, device
        self._jpegs = [jpeg(index) for index in range(len(self._config.cameras))]
        self._seconds = count()
        self._take = PixelPool().take

    def __enter__(self) -> JpegSource:
        """Start the threads."""
        self._threads = ThreadPoolExecutor(min(6, os.cpu_count() or 1))
        return self

    def __exit__(self, *error: object) -> None:
        """End them."""
        self._threads.shutdown()

    def take(self) -> FrameSet:
        """The next set."""
        images: Sequence[NDArray[np.uint8] | Tensor]
        if self._device:
            # All at once, as nvJPEG wants them.
            images = decode_on(self._device, self._jpegs)
        else:
            # Into buffers that are used again, as in the node.
            images = list(self._threads.map(partial(decode_jpeg, take=self._take), self._jpegs))
        by_camera = dict(zip(self._config.cameras, images, strict=True))
        return frame_set(float(next(self._seconds)), self._config, by_camera)


def jpeg(seed: int) -> bytes:
    """Clouds of grey with faint colours, of the bytes and the decoding time of a photograph."""
    random = np.random.default_rng(seed)

    def clouds(rows: int) -> NDArray[np.float32]:
        noise = random.normal(size=(rows, rows * 16 // 9)).astype(np.float32)
        return np.asarray(Image.fromarray(noise).resize(CAMERA_WH, Image.Resampling.BICUBIC))

    # Decoding takes time by the bytes and by how unlike blocks are: nuScenes' images have 138 kB
    # and, as here, plain and detailed parts.
    detail = sum(
        amount * clouds(rows) * clouds(27).clip(0) for rows, amount in ((45, 45), (180, 30))
    )
    colours = 20 * np.stack([clouds(9) for _ in range(3)], axis=-1)
    pixels = (128 + np.asarray(detail)[..., None] + colours).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)  # nuScenes' quantization
    return buffer.getvalue()
