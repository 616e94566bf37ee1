# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the detector: by stage, by history, cameras and pixels, against plain ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.detector.hardware import copy_gb_s, measure_gpu, peak_gflops
from benchmarks.detector.pooling import measure_traffic
from benchmarks.detector.published import WholeForward
from benchmarks.detector.streaming import measure_history
from benchmarks.detector.work import measure_work
from labeldistill_core.config import StudentConfig
from labeldistill_core.console import Flat
from labeldistill_core.files import write_json
from labeldistill_core.network.student import Student
from labeldistill_core.profiling.bench import (
    BenchOptions,
    few,
    measure_ways,
    surroundings,
    table,
    without_notices,
)
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.profiling.separate_process import measure_apart
from labeldistill_core.profiling.stage_clock import percentiles
from labeldistill_core.profiling.ways import Way
from labeldistill_core.provenance import given_command
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision
from labeldistill_core.runtime.loading import torch_engine

_SCALES = (0.5, 0.75, 1.0, 1.5)
"""Factors by which height and width of the model's images are changed."""


@dataclass(frozen=True)
class StagesOptions(BenchOptions):
    """Which networks are measured, and how; their published way a third as often."""

    scaling: bool = True
    """Measure the image network for fewer cameras and other sizes as well."""


def stages(
    options: Flat[StagesOptions] = StagesOptions(),  # noqa: B008 - frozen
    json: Path | None = None,
) -> None:
    """Measure the detector from JPEG bytes to boxes, by stage, and against the published way.

    The published way runs all frames through the whole network in every step, eagerly, in
    float32, and builds the lifted tensor. It runs before and after the others, apart. On a GPU the
    last precision is also measured in a CUDA graph, with images prepared on the CPU, resized on
    the GPU, and decoded there, too.

    Args:
        options: which networks are measured, and how.
        json: file to write the figures to.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    place, networks, ways = options.place, options.networks(), options.ways
    figures: dict[str, Any] = {
        "command": given_command("python -m benchmarks.detector"),
        **surroundings(place),
        "peak": {
            "copy_gb_s": copy_gb_s(place),
            **{
                f"{str(dtype).removeprefix('torch.')}_gflops": peak_gflops(dtype, place)
                for dtype in _dtypes(place)
            },
        },
        "presets": {},
        "ratios": {},
    }
    print(f"{figures['machine']}; peak {_numbers(figures['peak'])}")
    for name, student in networks.items():
        with without_notices():
            found = measure(student, str(place), ways, options.repeats, options.scaling)
        figures["presets"][name] = found
        figures["ratios"][name] = found.pop("ratios")
        print(f"\n{name}\n{table(found)}")
        print(f"against the published way: {_numbers(figures['ratios'][name])}", flush=True)
        if json:
            write_json(json, figures)


def measure(
    student: Student, device: str, ways: Sequence[Way], repeats: int, scaling: bool = True
) -> dict[str, Any]:
    """All figures of one network.

    Args:
        student: the network.
        device: where it runs: cpu, cuda:0 and so on.
        ways: how it is computed.
        repeats: steps that are measured of each way, after the history is full.
        scaling: measure the image network for fewer cameras and other sizes as well.

    Returns:
        `runs` by way, the name of the `fastest`, `published` for the published way, `pooling`,
        `scaling`, and `ratios` of the fastest to the published way: `speedup` of a step without
        preparation of images, `memory_share` of the peak memory.
    """
    config = student.config
    whole = partial(_whole, config, device)
    # before and after the others, since the speed of a machine drifts
    before = measure_apart(whole, device, few(repeats))
    found = measure_ways(student, device, ways, repeats)
    for way in ways:
        detector = way.detector(student, device)
        # in one piece it does not tell of its stages
        whole_step = way.fixed_shapes or way.compile
        staged = Way(way.precision).detector(student, device) if whole_step else detector
        found["runs"][way.name(detector)] |= {
            **_details(detector, way, few(repeats)),
            "work": measure_work(staged),
        }
    best = found["runs"][found["fastest"]]
    after = measure_apart(whole, device, few(repeats))
    published: dict[str, Any] = {
        "step": percentiles([*before.times_ms, *after.times_ms]),
        "peak_mib": before.peak_mib,
    }
    speedup = published["step"]["p50"] / best["stages"]["step"]["p50"]
    return {
        **found,
        "published": published,
        "pooling": measure_traffic(student.to(device), repeats),
        **({"scaling": _scaling(config, device, ways[-1].precision)} if scaling else {}),
        "ratios": {
            "speedup": speedup,
            "memory_share": best["peak_mib"] / published["peak_mib"],
        },
    }


def _details(detector: Detector, way: Way, repeats: int) -> dict[str, Any]:
    """Times by number of past frames, and on a GPU those of its kernels for a step."""
    found: dict[str, Any] = {}
    on_gpu = detector.device.type == "cuda"
    if detector.engine.info.in_one_piece or not on_gpu:  # else the host runs ahead of the stages
        found["history"] = measure_history(detector, min(repeats, 5))
    if on_gpu:
        gpu = measure_gpu(detector, repeats, way.device_decode)
        found |= asdict(gpu)
    return found


def _whole(config: StudentConfig, device: str) -> Callable[[], object]:
    return WholeForward(Student(config), torch.device(device))


def _dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Number formats in which the peak of matrix products is measured."""
    half = (torch.float16,) if device.type == "cuda" else ()
    return (torch.float32, torch.bfloat16, *half)


def _scaling(config: StudentConfig, device: str, precision: Precision) -> dict[str, Any]:
    """Median time of the image network for fewer cameras and other sizes."""

    def image_network_ms(changed: StudentConfig) -> float:
        detector = Detector(torch_engine(Student(changed), device=device, precision=precision))
        sets = [frame_set(float(i), changed) for i in range(5)]
        times = [detector.detect(frames).timings_ms["image_network"] for frames in sets]
        # The first steps pay for memory and, on a GPU, for the search of algorithms.
        return float(np.median(times[2:]))

    one = replace(config, history_s=())
    sizes = {
        f"{h}x{w}": replace(one, image=replace(config.image, height=h, width=w))
        for h, w in (
            # Multiples of 32, the stride of the image network's coarsest features.
            (round(config.image.height * s / 32) * 32, round(config.image.width * s / 32) * 32)
            for s in _SCALES
        )
    }
    return {
        "cameras": {
            str(n): image_network_ms(replace(one, cameras=one.cameras[:n]))
            for n in (1, 2, 4, 6)
            if n <= len(one.cameras)
        },
        "pixels": {name: image_network_ms(changed) for name, changed in sizes.items()},
    }


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
