# SPDX-License-Identifier: Apache-2.0
"""What a step of the detector costs, from JPEG bytes to boxes, and where it goes.

Every set is new to the detector and has its whole history behind it, one second between sets, as
the network was trained. Weights are random; the images are smooth noise at a camera's resolution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from labeldistill_core.bench.hardware import GpuTime, gpu_time
from labeldistill_core.bench.scene import JpegSource, frame_set
from labeldistill_core.bench.work import Work
from labeldistill_core.runtime import detector as detector_module
from labeldistill_core.runtime.detector import Detector

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
    there = detector.device if device_decode else None
    with JpegSource(detector.config, there) as source, watched(detector, clock):
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


def measure_gpu(detector: Detector, repeats: int, device_decode: bool = False) -> GpuTime:
    """What a GPU does for a step, from JPEG bytes to boxes; as `measure_steps`."""
    detector.reset("next measurement")
    with JpegSource(detector.config, detector.device if device_decode else None) as source:
        for _ in range(detector.config.frames + 1):
            detector.detect(source.take())
        return gpu_time(lambda: detector.detect(source.take()), repeats)


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
