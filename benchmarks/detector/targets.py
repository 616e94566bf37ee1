# SPDX-License-Identifier: Apache-2.0
"""What the detector is meant to reach, and whether results of the benchmarks reach it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.detector.page import read_figures

RATE_HZ = 12.0
"""Images a second of each camera of a vehicle; nuScenes' rate."""
_LATENCY_MS = {"r50_256x704_4key": {"p50": 10.0, "p99": 15.0}, "r101_512x1408_2key": {"p50": 25.0}}
"""Wanted percentiles of the time from JPEG bytes to boxes on a GPU, by preset."""


@dataclass(frozen=True)
class Target:
    """A figure and what it is meant to be."""

    name: str
    """Name of the figure, with the preset and the way that it belongs to."""
    value: float
    """What was measured, in `unit`."""
    bound: float
    """Largest value that is good, or the smallest where `at_least` is set; in `unit`."""
    unit: str
    """Unit of value and bound, as it is printed."""
    at_least: bool = False
    """The bound is the smallest good value, not the largest."""

    @property
    def met(self) -> bool:
        """Whether the value is as good as wanted."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        """The verdict with value and bound in one line."""
        verdict, sign = ("met", "NOT MET")[not self.met], "<>"[self.at_least]
        return f"{verdict:<8}{self.name}: {self.value:.4g} {self.unit} ({sign}= {self.bound:g})"


def bench_targets(files: tyro.conf.Positional[tuple[Path, ...]]) -> int:
    """Hold results against what is wanted; 1 when something is not reached.

    Args:
        files: figures of `benchmarks.detector stages` and `accuracy`; others are passed over.

    Raises:
        ConfigError: a file is not a benchmark's.
    """
    found = [target for file in files for target in targets(read_figures(file, "machine"))]
    for target in found:
        print(target)
    return 0 if all(target.met for target in found) else 1


def targets(figures: Mapping[str, Any]) -> Iterator[Target]:
    """The targets that a file of figures speaks of."""
    if "ways" in figures:
        for name, row in figures["ways"].items():
            for score in ("mAP", "NDS"):
                points = 100 * abs(row[score] - figures[score])
                yield Target(f"{name}, {score} off", points, 0.1, "points")
    on_gpu = figures.get("device", "").startswith("cuda")
    for preset, found in figures.get("presets", {}).items():
        best = found["runs"][found["fastest"]]
        name = f"{preset}, {found['fastest']}"
        times = best["stages"]["end to end"]
        # `labeldistill bench` measures neither the device's peak nor the published way.
        if on_gpu and "peak" in figures:
            yield from _of_gpu(preset, name, found, times, figures["peak"]["copy_gb_s"])
        elif not on_gpu and preset == "demo":
            yield Target(f"{name}, rate", 1e3 / times["p50"], 6.0, "Hz", at_least=True)
        elif preset in figures.get("ratios", {}) and preset == "r50_256x704_4key":
            ratios = figures["ratios"][preset]
            yield Target(f"{name}, speedup", ratios["speedup"], 15.0, "times", at_least=True)
            yield Target(f"{name}, memory", ratios["memory_share"], 1.0, "of the published way")


def _of_gpu(
    preset: str,
    name: str,
    found: Mapping[str, Any],
    times: Mapping[str, float],
    copy_gb_s: float,
) -> Iterator[Target]:
    for percentile, bound in _LATENCY_MS.get(preset, {}).items():
        yield Target(f"{name}, {percentile}", times[percentile], bound, "ms")
    if preset != "r50_256x704_4key":
        return
    run, pooling = found["runs"][found["fastest"]], found["pooling"]
    share = pooling["gathered_gb"] / pooling["ms"] * 1e3 / copy_gb_s
    yield Target(f"{preset}, pooling", share, 0.5, "of copying", at_least=True)
    busy = run["busy_ms"] * RATE_HZ / 1e3
    yield Target(f"{name}, busy at {RATE_HZ:g} Hz", busy, 0.15, "of the time")
    graph = float(run["graph"] == "recorded")
    yield Target(f"{name}, steps in a graph", graph, 1.0, "of 1", at_least=True)
