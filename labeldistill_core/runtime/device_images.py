# SPDX-License-Identifier: Apache-2.0
"""Images decoded and resized where the network runs.

On a GPU, resizing on the CPU would take longer than the network.

Shapes: N cameras of the model, I images, h w rows and columns as taken, H W those of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from labeldistill_core.cameras import CameraView, FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import evaluation_transform
from labeldistill_core.data.image_header import check_header
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.errors import DataError


def decode_on(device: torch.device, jpegs: Sequence[bytes]) -> list[Tensor]:
    """JPEG bytes to (h, w, 3) RGB uint8 on the device, by nvJPEG on a GPU.

    nvJPEG's grey levels are not always those of libjpeg-turbo, with which the network was trained;
    `python -m benchmarks.detector accuracy` tells what that does to its scores.

    Raises:
        DataError: some bytes are no JPEG.
    """
    # torchvision means to give this up, so that only those who ask for it depend on it
    from torchvision.io import ImageReadMode, decode_jpeg

    for jpeg in jpegs:
        # Before any memory is taken on the device, which an image may ask for at will.
        check_header(jpeg)
    # A copy, since torch warns of memory that it may not write to.
    data = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
    try:
        images = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        raise DataError(f"corrupt image: {error}") from error
    return [image.permute(1, 2, 0) for image in images]


def resized(images: Tensor, transform: ImageTransform) -> Tensor:
    """As `ImageTransform.apply`, for images that are neither flipped nor rotated.

    Within one grey level of Pillow when shrinking. Pillow and torch's kernel for bytes, which only
    CPUs have, resize rows, round, then resize columns, and so must this: in one go one value in
    seven differs.

    Args:
        images: (I, h, w, 3) uint8, on any device.
        transform: its crop lies within the resized image.

    Returns:
        (I, 3, H, W) uint8.
    """
    x = images.permute(0, 3, 1, 2).float()
    width, height = transform.resized_wh
    for size in ((x.shape[2], width), (height, width)):
        x = interpolate(x, size, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    left, top, right, bottom = transform.crop
    return x[..., top:bottom, left:right].byte()


class DeviceImages:
    """Brings the images of a set to the device and resizes them there."""

    def __init__(self, config: StudentConfig, device: torch.device) -> None:
        """For the cameras of a model."""
        self._config, self._device = config, device
        self._staging: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def __call__(self, frames: FrameSet, pool: Executor) -> Tensor:
        """The network's images; nothing here waits for the device.

        Args:
            frames: of the current set.
            pool: threads that copy images into pinned memory.

        Returns:
            (1, 1, N, 3, H, W) uint8 on the device, black where a camera is missing.
        """
        by_name = frames.by_name
        views = [by_name[name] for name in self._config.cameras if name in by_name]
        if self._copied:
            self._copied.synchronize()  # before pinned memory is written anew
        on_device = [
            image.to(self._device, non_blocking=True) for image in pool.map(self._staged, views)
        ]
        if self._device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(self._device))
        size = (self._config.image.height, self._config.image.width)
        cameras = self._config.cameras
        out = torch.zeros(1, 1, len(cameras), 3, *size, dtype=torch.uint8, device=self._device)
        # Alike images together, in one launch instead of six; also the crop may differ between
        # cameras, see `ImageConfig.crop`.
        kinds = [
            (image.shape, evaluation_transform(view, self._config))
            for image, view in zip(on_device, views, strict=True)
        ]
        for kind in dict.fromkeys(kinds):
            same, transform = [i for i, own in enumerate(kinds) if own == kind], kind[1]
            images = resized(torch.stack([on_device[i] for i in same]), transform)
            for i, image in zip(same, images, strict=True):
                out[0, 0, cameras.index(views[i].calibration.name)] = image
        return out

    def _staged(self, view: CameraView) -> Tensor:
        """The image in memory from which a GPU copies by itself, or where it was decoded."""
        if isinstance(view.image, Tensor):
            return view.image
        name, shape = view.calibration.name, view.image.shape
        if name not in self._staging or self._staging[name].shape != shape:
            # Only from pinned memory does a copy run beside other work.
            pinned = self._device.type == "cuda"
            self._staging[name] = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        self._staging[name].numpy()[:] = view.image
        return self._staging[name]
