# SPDX-License-Identifier: Apache-2.0
"""The streaming step against the forward of all frames.

A `Detector` that has seen the past sets takes one more, and `Student.forward` takes the same set
with all its past images, followed by the same decoding. Image preparation is left out on both
sides, the way to the device is in both. The head's maps of the two must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import torch

from benchmarks.detector.report import Speedup
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.decode import decode
from labeldistill_core.network.student import CameraBatch, Student
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.profiling.stage_clock import Times, time_ms
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.eager_engine import EagerEngine


@torch.inference_mode()
def measure_streaming(student: Student, detector: Detector, repeats: int) -> tuple[Speedup, float]:
    """Both ways on sets of noise seen from a vehicle that drives a turn.

    Args:
        student: the network that the detector was made of.
        detector: its history is lost.
        repeats: after one to warm up.

    Returns:
        The comparison, and the largest difference of the head's maps over all repeats.
    """
    config, engine = detector.config, detector.engine
    if not isinstance(engine, EagerEngine):
        raise ValueError("the maps of a step in one piece cannot be looked at")
    ages_s = (0.0, *config.history_s)
    maps: list[tuple[TaskMaps, ...]] = []
    hooks = [
        network.head.register_forward_hook(lambda _module, _args, out: maps.append(out))
        for network in (student, engine.network)
    ]

    def forward(batch: CameraBatch) -> None:
        decode(student(batch.to(detector.device))[0].maps, config.grid, config.decode)

    fast_ms, plain_ms, differences = [], [], []
    for index in range(repeats + 1):
        # Each repeat is a drive of its own, so that the history never reaches into the one before.
        detector.reset("next repeat")
        now_s = index * (ages_s[-1] + 1.0)
        sets = [frame_set(now_s - age_s, config) for age_s in ages_s]
        for frames in reversed(sets[1:]):
            detector.detect(frames)
        timings = detector.detect(sets[0]).timings_ms
        # Both sides get prepared images: preparing them is the same work for both.
        fast_ms.append(sum(timings.values()) - timings["preprocess"])
        batch = camera_batch(sets, config)
        plain_ms.append(time_ms(lambda batch=batch: forward(batch), detector.device))  # type: ignore[misc]
        differences.append(_difference(maps[-2], maps[-1]))
    for hook in hooks:
        hook.remove()
    name = f"streaming step, {len(ages_s)} frames"
    comparison = Speedup(name, median(fast_ms[1:]), median(plain_ms[1:]), target=3.2)
    return comparison, float(np.max(differences))


def _difference(one: Sequence[TaskMaps], other: Sequence[TaskMaps]) -> float:
    """Largest absolute difference of all maps."""
    differences = [
        float((getattr(a, name) - getattr(b, name)).abs().max())
        for a, b in zip(one, other, strict=True)
        for name in ("heatmap", "box_code")
    ]
    return float(np.max(differences))  # numpy's keeps a NaN


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
            # The first round warms up.
            if index:
                for name in ("image_network", "lift", "step"):
                    rows[past].setdefault(name, []).append(spent[name])
    detector.reset("measured")
    return [{name: float(np.median(values)) for name, values in row.items()} for row in rows]
