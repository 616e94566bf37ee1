# SPDX-License-Identifier: Apache-2.0
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from labeldistill_core.cameras import FrameSet
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.data.images import ImageTransform, decode_jpeg
from labeldistill_core.errors import DataError
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device_images import DeviceImages, decode_on, resized
from labeldistill_core.runtime.loading import torch_engine

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def picture(width: int, height: int, seed: int = 0, grain: int = 4) -> np.ndarray[Any, Any]:
    """Smooth noise and a grain on top; with much grain, bicubic weights overshoot everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), np.int16)
    noise = rng.integers(-grain, grain + 1, smooth.shape)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("grain", [4, 128])
@pytest.mark.parametrize(
    ("source", "target"),
    [((1600, 900), (704, 256)), ((1600, 900), (352, 128)), ((1280, 960), (704, 256))],
)
def test_resizing_on_a_device_equals_pillows(
    source: tuple[int, int], target: tuple[int, int], grain: int
) -> None:
    image = picture(*source, grain=grain)
    transform = ImageTransform.for_evaluation(source, target)
    ours = resized(torch.from_numpy(image)[None], transform)[0].permute(1, 2, 0).numpy()
    pillows = np.asarray(Image.fromarray(image).resize(transform.resized_wh).crop(transform.crop))
    difference = np.abs(ours.astype(int) - pillows)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.003


def test_a_set_of_images(tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]) -> None:
    """Cameras of two sizes, one that is missing, one that was decoded on the device."""
    frames = frame_set(0.0, missing=["CAM_BACK"])
    views = list(frames.views)
    large = replace(views[1].calibration, width_px=320, height_px=180)
    views[1] = replace(views[1], calibration=large, image=picture(320, 180))
    views[2] = replace(views[2], image=torch.from_numpy(np.array(views[2].image)))
    frames = FrameSet(0, tuple(reversed(views)))
    on_cpu = camera_batch([frames], tiny_config).images
    with ThreadPoolExecutor(2) as pool:
        images = DeviceImages(tiny_config, CPU)
        for _ in range(2):  # the second time memory is there
            found = images(frames, pool)
    assert found.shape == (1, 1, 6, 3, 64, 128)
    assert (found.int() - on_cpu.int()).abs().max() <= 1
    assert not found[0, 0, tiny_config.cameras.index("CAM_BACK")].any()


def test_a_detector_that_resizes_on_its_device(
    student: Student, frame_set: Callable[..., FrameSet]
) -> None:
    plain, other = (Detector(torch_engine(student), device_resize=on) for on in (False, True))
    for t in (0.0, 0.5):
        frames = frame_set(t, missing=["CAM_FRONT"] if t else ())
        one, two = plain.detect(frames).boxes, other.detect(frames).boxes
        assert abs(len(one) - len(two)) <= 2
        nearest = torch.cdist(one.values, two.values).min(dim=1).values
        assert nearest.median() < 0.05
    with pytest.raises(DataError, match="no image of"):
        other.detect(FrameSet(1_000_000_000, ()))


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_decoding_on_a_device() -> None:
    files = []
    for seed in range(2):
        buffer = io.BytesIO()
        Image.fromarray(picture(160, 96, seed)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    for data, image in zip(files, decode_on(CPU, files), strict=True):
        assert image.shape == (96, 160, 3)
        difference = np.abs(image.numpy().astype(int) - decode_jpeg(data))
        assert difference.max() <= 2
    with pytest.raises(DataError, match="corrupt image"):
        decode_on(CPU, [files[0], b"no image"])


@pytest.mark.gpu
def test_a_gpu_resizes_as_the_cpu(
    tiny_config: StudentConfig, frame_set: Callable[..., FrameSet]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = (DeviceImages(tiny_config, device) for device in (CPU, GPU))
        for t in range(5):  # pinned memory is used again
            frames = frame_set(float(t))
            difference = (one(frames, pool).int() - two(frames, pool).cpu().int()).abs()
            assert difference.max() <= 1
            assert (difference > 0).float().mean() < 0.003


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_a_gpu_decodes_nearly_as_the_cpu() -> None:
    """With fewer colours than pixels, nvJPEG repeats a colour where libjpeg-turbo interpolates."""
    for subsampling, in_grey in ((0, False), (2, True)):
        buffer = io.BytesIO()
        Image.fromarray(picture(1600, 896)).save(
            buffer, "JPEG", quality=90, subsampling=subsampling
        )
        (image,) = decode_on(GPU, [buffer.getvalue()])
        assert image.is_cuda
        difference = image.cpu().numpy().astype(float) - decode_jpeg(buffer.getvalue())
        if in_grey:
            assert np.abs(difference @ [0.299, 0.587, 0.114]).mean() < 1.0
        else:
            assert np.abs(difference).mean() < 1.0
    with pytest.raises(DataError, match="corrupt image"):
        decode_on(GPU, [b"no image"])
