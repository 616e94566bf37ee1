# SPDX-License-Identifier: Apache-2.0
"""What a step of the detector costs, from JPEG bytes to boxes, and where it goes.

Every set is new to the detector and has its whole history behind it, one second between sets, as
the network was trained. Weights are random; the images are smooth noise at a camera's resolution.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from labeldistill_core.bench.pooling import cell_of_point, naive_lift
from labeldistill_core.bench.scene import frame_set
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.network import depth_net
from labeldistill_core.network import student as student_network
from labeldistill_core.network.decode import decode
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.lift import PoolingTable, pool
from labeldistill_core.network.student import CameraBatch, Student
from labeldistill_core.runtime import detector as detector_module
from labeldistill_core.runtime.detector import Detector

CAMERA_WH = (1600, 900)
"""Images as a nuScenes camera takes them, pixels."""
NETWORK = ("image encoder", "depth net", "tables", "pooling", "BEV encoder", "head", "boxes")
"""Stages behind the preparation of images."""

Times = dict[str, list[float]]
"""Milliseconds of each stage, one a step."""


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

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a stage."""

        def timed(*args: Any) -> Any:
            self.start(name)
            out = function(*args)
            self.stop(name)
            return out

        return timed

    def take(self) -> dict[str, float]:
        """Milliseconds of each stage since the last call."""
        spent, self._spent = self._spent, {}
        return spent

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure_steps(detector: Detector, repeats: int) -> Times:
    """Steps with a whole history, after as many as fill it and two to warm up."""
    jpegs = {name: _jpeg(index) for index, name in enumerate(detector.config.cameras)}
    times: Times = {}
    skipped = detector.config.frames + 1
    detector.reset("next measurement")
    with ThreadPoolExecutor() as threads, _clocked(detector) as clock:
        for index in range(repeats + skipped):
            start = time.perf_counter()
            images = dict(zip(jpegs, threads.map(decode_jpeg, jpegs.values()), strict=True))
            frames = frame_set(float(index), detector.config, images)
            decoded = time.perf_counter()
            found = detector.detect(frames)
            end = time.perf_counter()
            row = {
                "decode JPEG": (decoded - start) * 1e3,
                "resize": found.timings_ms["preprocess"],
                **(clock.take() or _coarse(found.timings_ms)),
                "boxes": found.timings_ms["decode"],
                "step": (end - decoded) * 1e3 - found.timings_ms["preprocess"],
                "end to end": (end - start) * 1e3,
            }
            if index >= skipped:
                for name, value in row.items():
                    times.setdefault(name, []).append(value)
    detector.reset("measured")
    return times


def measure_history(detector: Detector, repeats: int) -> list[dict[str, float]]:
    """Median of the image network and of lift for 0, 1, .. past frames."""
    config = detector.config
    rows: list[Times] = [{} for _ in range(config.frames)]
    for index in range(repeats + 1):
        for past in range(config.frames):
            detector.reset("next measurement")
            for age_s in sorted(config.history_s[:past], reverse=True):
                detector.detect(frame_set(-age_s, config))
            found = detector.detect(frame_set(0.0, config))
            assert found.history_valid == past
            if index:
                for name in ("image_network", "lift"):
                    rows[past].setdefault(name, []).append(found.timings_ms[name])
    detector.reset("measured")
    return [{name: float(np.median(values)) for name, values in row.items()} for row in rows]


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
def _clocked(detector: Detector) -> Iterator[StageClock]:
    """Times the modules of a detector's network and the two parts of lift.

    A compiled network and a step in one piece stay as they are: looking would cut them to pieces.
    """
    clock, network = StageClock(detector.device), detector.network
    if detector.compiled or detector.in_one_piece:
        yield clock
        return
    modules: dict[str, nn.Module] = {
        "image encoder": network.image_encoder,
        "depth net": network.depth_net,
        "BEV encoder": network.bev_encoder,
        "head": network.head,
    }
    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(lambda *_, n=name: clock.start(n)))
        hooks.append(module.register_forward_hook(lambda *_, n=name: clock.stop(n)))
    tables = clock.around("tables", network.pooling_table)
    pooling = clock.around("pooling", pool)
    try:
        with (
            patch.object(network, "pooling_table", tables),
            patch.object(detector_module, "pool", pooling),
        ):
            yield clock
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
