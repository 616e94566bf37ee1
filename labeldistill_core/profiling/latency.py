# SPDX-License-Identifier: Apache-2.0
"""What a step of the detector costs, from JPEG bytes to boxes, and where it goes.

Every set is new to the detector and has its whole history behind it, one second between sets, as
the network was trained. Weights are random; the images decode as those of nuScenes do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch import nn

from labeldistill_core.profiling.bench_images import JpegSource
from labeldistill_core.profiling.stage_clock import StageClock, Times
from labeldistill_core.runtime import eager_engine
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.eager_engine import EagerEngine


class Stages(Protocol):
    """Is told when a stage begins and ends; stages may lie in others."""

    def start(self, name: str) -> None:
        """A stage begins."""

    def stop(self, name: str) -> None:
        """It ends."""


def measure_steps(detector: Detector, repeats: int, device_decode: bool = False) -> Times:
    """Steps with a whole history, after as many as fill it and two to warm up.

    Args:
        detector: its history is lost.
        repeats: of what is measured.
        device_decode: decode JPEG on the detector's device.
    """
    clock, times = StageClock(detector.device), Times()
    skipped = detector.config.frames + 1
    detector.reset()
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
    detector.reset()
    return times


@contextmanager
def watched(detector: Detector, stages: Stages) -> Iterator[None]:
    """Tells of the modules of a detector's network, of the parts of lift and of image preparation.

    A compiled network and a step in one piece stay as they are: looking would cut them to pieces.
    """
    engine = detector.engine
    # A recorded or compiled step is one launch: there is nothing between its stages to hook into.
    if not isinstance(engine, EagerEngine) or engine.info.compiled:
        yield
        return
    network = engine.network

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
        ("tables", engine.tables, "build"),
        ("pooling", eager_engine, "pool"),
    )
    hooks = []
    # `n=name` binds the name now: the hooks are called when the loop has long ended.
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(lambda *_, n=name: stages.start(n)))
        hooks.append(module.register_forward_hook(lambda *_, n=name: stages.stop(n)))
    try:
        with ExitStack() as stack:
            for name, owner, attribute in functions:
                told = around(name, getattr(owner, attribute))
                stack.enter_context(replaced(owner, attribute, told))
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replaced(owner: Any, attribute: str, value: object) -> Iterator[None]:
    """Another value for an attribute of a module, class or object, until the end."""
    own = vars(owner)
    there, before = attribute in own, own.get(attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        if there:
            setattr(owner, attribute, before)
        else:
            delattr(owner, attribute)  # its class has it


def _coarse(timings_ms: dict[str, float]) -> dict[str, float]:
    """The stages that a detector tells itself."""
    names = {"image_network": "image network", "lift": "lift", "bev_network": "BEV network"}
    return {names[stage]: ms for stage, ms in timings_ms.items() if stage in names}
