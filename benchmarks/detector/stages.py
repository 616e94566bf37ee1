# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the detector: by stage, by history, cameras and pixels, against plain ways."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
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
from labeldistill_core.cameras import CAMERAS
from labeldistill_core.config import StudentConfig
from labeldistill_core.files import write_json
from labeldistill_core.network.student import Student
from labeldistill_core.presets import preset_config
from labeldistill_core.profiling.apart import measure_apart
from labeldistill_core.profiling.bench import (
    check_repeats,
    few,
    measure_ways,
    random_student,
    table,
    without_notices,
)
from labeldistill_core.profiling.scene import frame_set
from labeldistill_core.profiling.timing import percentiles
from labeldistill_core.profiling.ways import Way, ways_on
from labeldistill_core.provenance import commit, machine
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision, resolve_device
from labeldistill_core.runtime.loading import torch_engine

_SCALES = (0.5, 0.75, 1.0, 1.5)
"""Of the image's sides."""


def stages(
    presets: tuple[str, ...] = ("r50_256x704_4key", "demo"),
    device: str = "cpu",
    precisions: tuple[Precision, ...] = ("float32", "auto"),
    compile: bool = False,
    scaling: bool = True,
    repeats: int = 10,
    threads: int | None = None,
    json: Path | None = None,
) -> None:
    """Measure the detector from JPEG bytes to boxes, by stage, and against the published way.

    The published way runs all frames through the whole network in every step, eagerly, in
    float32, and builds the lifted tensor. It runs before and after the others, apart. On a GPU the
    last precision is also measured in a CUDA graph, with images prepared on the CPU, resized on
    the GPU, and decoded there, too.

    Args:
        presets: names of the networks; their weights are random.
        device: cpu, cuda:0 and so on, or auto.
        precisions: of the convolutions.
        compile: measure the last precision with `torch.compile` as well.
        scaling: measure the image network for fewer cameras and other sizes.
        repeats: of a step, after the history is full; a third of it for the published way.
        threads: of an operation on the CPU; torch's choice when none is given.
        json: file to write the figures to.

    Raises:
        ConfigError: no such preset, precision or device, or a number that is not positive.
    """
    check_repeats(repeats, threads)
    configs = {name: preset_config(name) for name in presets}
    place = resolve_device(device)
    ways = ways_on(place, precisions, compile)
    figures: dict[str, Any] = {
        "command": f"python -m benchmarks.detector stages --presets {' '.join(presets)} "
        f"--device {device} --precisions {' '.join(precisions)} --repeats {repeats}"
        + " --compile" * compile
        + " --no-scaling" * (not scaling),
        "commit": commit(),
        "machine": machine(),
        "load": os.getloadavg()[0],
        "device": str(place),
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
    for name, config in configs.items():
        with without_notices():
            found = measure(config, str(place), ways, repeats, scaling)
        figures["presets"][name] = found
        figures["ratios"][name] = found.pop("ratios")
        print(f"\n{name}\n{table(found)}")
        print(f"against the published way: {_numbers(figures['ratios'][name])}", flush=True)
        if json:
            write_json(json, figures)


def measure(
    config: StudentConfig, device: str, ways: Sequence[Way], repeats: int, scaling: bool = True
) -> dict[str, Any]:
    """All figures of one network with random weights.

    Args:
        config: of the network.
        device: where it runs.
        ways: how.
        repeats: as in `bench`.
        scaling: likewise.

    Returns:
        `runs` by way, the name of the `fastest`, `published` for the published way, `pooling`,
        `scaling`, and `ratios` of the fastest to the published way: `speedup` of a step without
        preparation of images, `memory_share` of the peak memory.
    """
    student = random_student(config)
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
    """By history, and on a GPU what it does for a step."""
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
    """Of which the peak is measured."""
    half = (torch.float16,) if device.type == "cuda" else ()
    return (torch.float32, torch.bfloat16, *half)


def _scaling(config: StudentConfig, device: str, precision: Precision) -> dict[str, Any]:
    """Median time of the image network for fewer cameras and other sizes."""

    def image_network_ms(changed: StudentConfig) -> float:
        detector = Detector(torch_engine(Student(changed), device=device, precision=precision))
        sets = [frame_set(float(i), changed) for i in range(5)]
        times = [detector.detect(frames).timings_ms["image_network"] for frames in sets]
        return float(np.median(times[2:]))

    one = replace(config, history_s=())
    sizes = {
        f"{h}x{w}": replace(one, image=replace(config.image, height=h, width=w))
        for h, w in (
            (round(config.image.height * s / 32) * 32, round(config.image.width * s / 32) * 32)
            for s in _SCALES
        )
    }
    return {
        "cameras": {
            str(n): image_network_ms(replace(one, cameras=CAMERAS[:n])) for n in (1, 2, 4, 6)
        },
        "pixels": {name: image_network_ms(changed) for name, changed in sizes.items()},
    }


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
