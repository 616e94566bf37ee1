# SPDX-License-Identifier: Apache-2.0
"""What a step of the detector costs, from JPEG bytes to boxes, and where it goes.

Every set is new to the detector and has its whole history behind it, one second between sets, as
the network was trained. Weights are random; the images are smooth noise at a camera's resolution.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from labeldistill_core.bench.hardware import busy_ms
from labeldistill_core.bench.pooling import cell_of_point, naive_lift
from labeldistill_core.bench.scene import frame_set
from labeldistill_core.bench.work import Work
from labeldistill_core.cameras import FrameSet
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.network import depth_net
from labeldistill_core.network import student as student_network
from labeldistill_core.network.decode import decode
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.lift import PoolingTable
from labeldistill_core.network.student import CameraBatch, Student
from labeldistill_core.runtime import detector as detector_module
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device_images import decode_on

CAMERA_WH = (1600, 900)
"""Images as a nuScenes camera takes them, pixels."""
Times = dict[str, list[float]]
"""Milliseconds of each stage, one a step."""


class Stages(Protocol):
    """Is told when a stage begins and ends; stages may lie in others."""

    def start(self, name: str) -> None:
        """A stage begins."""

    def stop(self, name: str) -> None:
        """It ends."""


class StageClock:
    """Adds up the time of named stages."""

    def __init__(self, device: torch.device) -> None:
        """Wait for `device` at both ends of a stage."""
        self._device = device
        self._since: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    def start(self, name: str) -> None:
        """A stage begins."""
        self._since[name] = self._now()

    def stop(self, name: str) -> None:
        """It ends."""
        spent = (self._now() - self._since[name]) * 1e3
        self._spent[name] = self._spent.get(name, 0.0) + spent

    def take(self) -> dict[str, float]:
        """Milliseconds of each stage since the last call."""
        spent, self._spent = self._spent, {}
        return spent

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure_steps(detector: Detector, repeats: int, device_decode: bool = False) -> Times:
    """Steps with a whole history, after as many as fill it and two to warm up.

    Args:
        detector: its history is lost.
        repeats: of what is measured.
        device_decode: decode JPEG on the detector's device.
    """
    clock, times = StageClock(detector.device), Times()
    skipped = detector.config.frames + 1
    detector.reset("next measurement")
    with JpegSource(detector, device_decode) as source, watched(detector, clock):
        for index in range(repeats + skipped):
            start = time.perf_counter()
            frames = source.take()
            decoded = time.perf_counter()
            found = detector.detect(frames)
            end = time.perf_counter()
            stages = clock.take() or _coarse(found.timings_ms)
            normalize = stages.pop("normalize", 0.0)
            resize = stages.pop("resize", found.timings_ms["preprocess"])
            if normalize:
                stages["image encoder"] -= normalize  # it lies in there
            row = {
                "decode JPEG": (decoded - start) * 1e3,
                "resize, normalize" if normalize else "resize": resize + normalize,
                **stages,
                "boxes": found.timings_ms["decode"],
                "step": (end - decoded) * 1e3 - found.timings_ms["preprocess"],
                "end to end": (end - start) * 1e3,
            }
            if index >= skipped:
                for name, value in row.items():
                    times.setdefault(name, []).append(value)
    detector.reset("measured")
    return times


def measure_work(detector: Detector) -> dict[str, dict[str, float]]:
    """Operations and bytes of the stages of a step, see `Work`.

    Args:
        detector: computes stage by stage; its history is lost.
    """
    work = Work()
    with watched(detector, work):
        for index in range(detector.config.frames):
            last = index == detector.config.frames - 1
            with work if last else nullcontext():
                detector.detect(frame_set(float(index), detector.config))
    detector.reset("measured")
    return work.stages


def measure_busy(detector: Detector, repeats: int, device_decode: bool = False) -> float:
    """Milliseconds that a GPU works for a step, from JPEG bytes to boxes; as `measure_steps`."""
    detector.reset("next measurement")
    with JpegSource(detector, device_decode) as source:
        for _ in range(detector.config.frames + 1):
            detector.detect(source.take())
        return busy_ms(lambda: detector.detect(source.take()), repeats)


def measure_history(detector: Detector, repeats: int) -> list[dict[str, float]]:
    """Median of the image network, of lift and of the step for 0, 1, .. past frames."""
    config = detector.config
    rows: list[Times] = [{} for _ in range(config.frames)]
    for index in range(repeats + 1):
        for past in range(config.frames):
            detector.reset("next measurement")
            for age_s in sorted(config.history_s[:past], reverse=True):
                detector.detect(frame_set(-age_s, config))
            found = detector.detect(frame_set(0.0, config))
            assert found.history_valid == past
            spent = dict(found.timings_ms)
            spent["step"] = sum(spent.values()) - spent["preprocess"]
            if index:
                for name in ("image_network", "lift", "step"):
                    rows[past].setdefault(name, []).append(spent[name])
    detector.reset("measured")
    return [{name: float(np.median(values)) for name, values in row.items()} for row in rows]


class JpegSource:
    """Sets of JPEG images one second apart, decoded in parallel when they are taken."""

    def __init__(self, detector: Detector, device_decode: bool) -> None:
        """For the cameras of a detector; decoded on its device if asked for."""
        self._config, self._device = detector.config, detector.device
        self._on_device = device_decode
        self._jpegs = [_jpeg(index) for index in range(len(self._config.cameras))]
        self._seconds = count()

    def __enter__(self) -> JpegSource:
        """Start the threads."""
        self._threads = ThreadPoolExecutor()
        return self

    def __exit__(self, *error: object) -> None:
        """End them."""
        self._threads.shutdown()

    def take(self) -> FrameSet:
        """The next set."""
        images: Sequence[NDArray[np.uint8] | Tensor]
        if self._on_device:
            images = decode_on(self._device, self._jpegs)
        else:
            images = list(self._threads.map(decode_jpeg, self._jpegs))
        by_camera = dict(zip(self._config.cameras, images, strict=True))
        return frame_set(float(next(self._seconds)), self._config, by_camera)


class WholeForward:
    """The published way: every step runs all frames through all of the network.

    Float32, eager, contiguous; the lift builds depth x context of every point, deformable
    convolution is torchvision's operator. Images are prepared beforehand.
    """

    def __init__(self, student: Student, device: torch.device) -> None:
        """From a network with random weights."""
        self._student, self._device = student.eval().to(device), device
        config = student.config
        sets = [frame_set(-age_s, config) for age_s in (0.0, *config.history_s)]
        self._batch: CameraBatch = camera_batch(sets, config)

    @torch.inference_mode()
    def __call__(self) -> None:
        """One step."""
        config = self._student.config
        with (
            patch.object(student_network, "pool", materialized_pool),
            patch.object(depth_net, "deform_conv3x3", _torchvision_deform_conv),
        ):
            maps = self._student(self._batch.to(self._device))[0].maps
        decode(maps, config.grid, config.decode)


def materialized_pool(features: FrameFeatures, table: PoolingTable) -> Tensor:
    """In place of `lift.pool`: builds the lifted tensor."""
    return naive_lift(features.depth, features.context, table, cell_of_point(table))


def _torchvision_deform_conv(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = deform_conv2d(x, offset, weight, padding=1)
    return out


@contextmanager
def watched(detector: Detector, stages: Stages) -> Iterator[None]:
    """Tells of the modules of a detector's network, of the parts of lift and of image preparation.

    A compiled network and a step in one piece stay as they are: looking would cut them to pieces.
    """
    network = detector.network
    if detector.compiled or detector.in_one_piece:
        yield
        return

    def around(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any) -> Any:
            stages.start(name)
            out = function(*args)
            stages.stop(name)
            return out

        return told

    modules: dict[str, nn.Module] = {
        "image encoder": network.image_encoder,
        "depth net": network.depth_net,
        "BEV encoder": network.bev_encoder,
        "head": network.head,
    }
    functions: tuple[tuple[str, Any, str], ...] = (
        ("resize", detector, "prepare"),
        ("normalize", network.image_encoder, "normalize"),
        ("tables", network, "pooling_table"),
        ("pooling", detector_module, "pool"),
    )
    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(lambda *_, n=name: stages.start(n)))
        hooks.append(module.register_forward_hook(lambda *_, n=name: stages.stop(n)))
    try:
        with ExitStack() as stack:
            for name, owner, attribute in functions:
                told = around(name, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, told))
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _coarse(timings_ms: dict[str, float]) -> dict[str, float]:
    """The stages that a detector tells itself."""
    names = {"image_network": "image network", "lift": "lift", "bev_network": "BEV network"}
    return {names[stage]: ms for stage, ms in timings_ms.items() if stage in names}


def _jpeg(seed: int) -> bytes:
    """Smooth noise: compresses to about the size of a photograph."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(CAMERA_WH), np.int16)
    grain = random.normal(0, 4, smooth.shape).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
