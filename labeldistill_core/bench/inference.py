# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the detector: by stage, by history, cameras and pixels, against plain ways."""

from __future__ import annotations

import json as json_module
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labeldistill_core.bench.hardware import copy_gb_s, measure_apart, peak_gflops
from labeldistill_core.bench.latency import (
    measure_gpu,
    measure_history,
    measure_steps,
    measure_work,
)
from labeldistill_core.bench.pooling import measure_traffic
from labeldistill_core.bench.published import WholeForward
from labeldistill_core.bench.scene import frame_set
from labeldistill_core.cameras import CAMERAS
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.presets import preset_config
from labeldistill_core.provenance import commit, machine
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision, resolve_device

_SCALES = (0.5, 0.75, 1.0, 1.5)
"""Of the image's sides."""


def bench(
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
    if repeats < 1 or (threads is not None and threads < 1):
        raise ConfigError("--repeats and --threads must be 1 or more")
    if threads:
        torch.set_num_threads(threads)
    configs = {name: preset_config(name) for name in presets}
    place = resolve_device(device)
    ways = ways_on(place, precisions, compile)
    figures: dict[str, Any] = {
        "command": f"labeldistill bench --presets {' '.join(presets)} --device {device} "
        f"--precisions {' '.join(precisions)} --repeats {repeats}"
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
        with _without_notices():
            found = measure(config, str(place), ways, repeats, scaling)
        figures["presets"][name] = found
        figures["ratios"][name] = found.pop("ratios")
        print(f"\n{name}\n{table(found)}")
        print(f"against the published way: {_numbers(figures['ratios'][name])}", flush=True)
        if json:
            json.parent.mkdir(parents=True, exist_ok=True)
            json.write_text(json_module.dumps(figures, indent=1) + "\n")


@dataclass(frozen=True)
class Way:
    """How a detector computes; see `Detector`."""

    precision: Precision
    """Of the convolutions."""
    compile: bool = False
    """With `torch.compile`."""
    fixed_shapes: bool = False
    """In a CUDA graph."""
    device_resize: bool = False
    """Images are resized on the device."""
    device_decode: bool = False
    """And decoded there."""

    def detector(self, student: Student, device: str) -> Detector:
        """One that computes so."""
        return Detector(
            student,
            device=device,
            precision=self.precision,
            compile=self.compile,
            fixed_shapes=self.fixed_shapes,
            device_resize=self.device_resize,
        )

    def name(self, detector: Detector) -> str:
        """For tables."""
        parts = {
            "graph" if detector.device.type == "cuda" else "fixed shapes": self.fixed_shapes,
            "compiled": self.compile,
            "resized there": self.device_resize and not self.device_decode,
            "decoded there": self.device_decode,
        }
        return ", ".join([detector.precision, *(name for name, there in parts.items() if there)])


def ways_on(device: torch.device, precisions: Sequence[Precision], compile: bool) -> list[Way]:
    """What `bench` measures.

    By stage, a GPU runs the stages one by one; as the node runs them, in a graph, they are one.
    """
    ways, last = [Way(precision) for precision in precisions], precisions[-1]
    if device.type != "cuda":
        return ways + [Way(last, compile=True)] * compile
    whole = Way(last, fixed_shapes=True, device_resize=True, device_decode=True)
    ways = [replace(way, device_resize=True) for way in ways]
    ways += [
        Way(last, fixed_shapes=True),
        replace(whole, device_decode=False),
        whole,
    ]
    return ways + [replace(whole, compile=True)] * compile


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
    torch.manual_seed(0)
    student = Student(config).eval()
    few = max(2, repeats // 3)
    whole = partial(_whole, config, device)
    # before and after the others, since the speed of a machine drifts
    before = measure_apart(whole, device, few)
    runs: dict[str, Any] = {}
    by_name: dict[str, Way] = {}
    for way in ways:
        detector = way.detector(student, device)
        # in one piece it does not tell of its stages
        whole_step = way.fixed_shapes or way.compile
        staged = Way(way.precision).detector(student, device) if whole_step else detector
        runs[way.name(detector)] = {
            **_run(detector, way, repeats, few),
            "work": measure_work(staged),
        }
        by_name[way.name(detector)] = way
    fastest = min(runs, key=lambda name: runs[name]["stages"]["end to end"]["p50"])
    best = runs[fastest]
    for name, run in runs.items():
        # to begin anew on a GPU takes long
        if name == fastest or device == "cpu":
            prepare = _Streaming(config, device, by_name[name])
            apart = measure_apart(prepare, device, few, config.frames)
            run |= {"first_step_ms": apart.first_ms, "peak_mib": apart.peak_mib}
    published: dict[str, Any] = {
        "step": percentiles([*before.times_ms, *measure_apart(whole, device, few).times_ms]),
        "peak_mib": before.peak_mib,
    }
    speedup = published["step"]["p50"] / best["stages"]["step"]["p50"]
    return {
        "runs": runs,
        "fastest": fastest,
        "published": published,
        "pooling": measure_traffic(student.to(device), repeats),
        **({"scaling": _scaling(config, device, ways[-1].precision)} if scaling else {}),
        "ratios": {
            "speedup": speedup,
            "memory_share": best["peak_mib"] / published["peak_mib"],
        },
    }


def _run(detector: Detector, way: Way, repeats: int, few: int) -> dict[str, Any]:
    """Figures of one way."""
    times = measure_steps(detector, repeats, way.device_decode)
    on_gpu = detector.device.type == "cuda"
    found: dict[str, Any] = {
        "stages": {name: percentiles(values) for name, values in times.items()},
        "sets_s": 1e3 * repeats / sum(times["end to end"]),
    }
    if detector.in_one_piece or not on_gpu:  # else the host runs ahead of the stages
        found["history"] = measure_history(detector, min(few, 5))
    if on_gpu:
        gpu = measure_gpu(detector, few, way.device_decode)
        found |= {"graph": detector.graph, **asdict(gpu)}
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of milliseconds."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def table(found: Mapping[str, Any]) -> str:
    """The stages of all precisions side by side, milliseconds, as Markdown."""
    runs = found["runs"]
    head = "| stage, ms p50 / p95 / p99 | " + " | ".join(runs) + " |"
    lines = [head, "|---" * (len(runs) + 1) + "|"]
    for stage in dict.fromkeys(stage for run in runs.values() for stage in run["stages"]):
        cells = [run["stages"].get(stage) for run in runs.values()]
        row = " | ".join(
            f"{c['p50']:.1f} / {c['p95']:.1f} / {c['p99']:.1f}" if c else "" for c in cells
        )
        lines.append(f"| {stage} | {row} |")
    published = found["published"]["step"]
    lines.append(f"| step, published way | {published['p50']:.0f} |" + " |" * (len(runs) - 1))
    for name, key in (
        ("first step", "first_step_ms"),
        ("sets a second", "sets_s"),
        ("peak memory, MiB", "peak_mib"),
        ("GPU at work, ms", "busy_ms"),
        ("CUDA graph", "graph"),
    ):
        cells = [run.get(key, "") for run in runs.values()]
        if any(cells):
            row = " | ".join(f"{c:.1f}" if isinstance(c, float) else c for c in cells)
            lines.append(f"| {name} | {row} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Streaming:
    """Prepares steps of a detector."""

    config: StudentConfig
    device: str
    way: Way

    def __call__(self) -> Callable[[], object]:
        detector = self.way.detector(Student(self.config), self.device)
        seconds = count()

        def step() -> None:
            detector.detect(frame_set(float(next(seconds)), self.config))

        return step


def _whole(config: StudentConfig, device: str) -> Callable[[], object]:
    return WholeForward(Student(config), torch.device(device))


def _dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Of which the peak is measured."""
    half = (torch.float16,) if device.type == "cuda" else ()
    return (torch.float32, torch.bfloat16, *half)


def _scaling(config: StudentConfig, device: str, precision: Precision) -> dict[str, Any]:
    """Median time of the image network for fewer cameras and other sizes."""

    def image_network_ms(changed: StudentConfig) -> float:
        detector = Detector(Student(changed), device=device, precision=precision)
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


@contextmanager
def _without_notices() -> Iterator[None]:
    """A detector tells of each history that it drops, and here it drops many."""
    logger = logging.getLogger("labeldistill_core.runtime")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
